"""The shipped bundle, and fresh users for it."""

from __future__ import annotations

import itertools

import pytest

from models.bundle import Bundle
from stream.evaluation.cases import Case, simulated
from stream.evaluation.run import Evaluation, evaluate
from stream.settings import BUNDLED_MODEL

FRESH_SEED = 31
SLATES = 25
"""Of 20: 500 impressions."""


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    return Bundle.load(BUNDLED_MODEL)


@pytest.fixture(scope="session")
def cases(shipped: Bundle) -> list[Case]:
    return list(itertools.islice(simulated(shipped, FRESH_SEED), SLATES))


@pytest.fixture(scope="session")
def found(shipped: Bundle, cases: list[Case]) -> Evaluation:
    return evaluate(shipped, cases, "fresh users")
