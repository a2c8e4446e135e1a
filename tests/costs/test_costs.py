"""A guard on what explaining costs: counts of work, which are the same on every machine; time is measured in bench/.

Bounds are a fifth above what was counted when they were last set.
"""

from __future__ import annotations

import cProfile
import pstats
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from models.bundle import Bundle
from stream.settings import BUNDLED_MODEL

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # shap's, about matplotlib
    from bench.pipeline import Ours, slates_of

pytestmark = pytest.mark.slow

ITEMS = 20
BATCH = 64
SLATES = 4 * BATCH


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(BUNDLED_MODEL)


@pytest.fixture(scope="module")
def slates(bundle: Bundle) -> list[Any]:
    return slates_of(bundle, ITEMS, SLATES)


@pytest.fixture(scope="module")
def ours(bundle: Bundle, slates: list[Any]) -> Iterator[Ours]:
    made = Ours(bundle)
    made(made.messages(slates[:BATCH]))  # compiled, and every language loaded
    return made


def batches(ours: Ours, slates: list[Any]) -> Iterator[list[Any]]:
    messages = ours.messages(slates)
    return (messages[start : start + BATCH] for start in range(0, len(messages), BATCH))


def test_a_slate_asks_for_few_rows_of_the_models(ours: Ours, slates: list[Any]) -> None:
    ours.watch()
    for batch in batches(ours, slates):
        ours(batch)
    rows = {stage: work.rows / SLATES for stage, work in ours.works.items() if work.rows}
    assert set(rows) == {"score", "ablate"}
    # Each session's 20 positions once.
    assert rows["score"] < 26
    # The newest position for each of ten watched events that it attends to, and then the ablations of six candidates.
    assert rows["ablate"] < 76
    met, sums = ours.scored.rows / SLATES, ours.scored.sums / SLATES
    # Each item meets the trees once, and is scored again once for each event that holds.
    assert met <= ITEMS
    assert sums < 136


def test_a_batch_takes_few_calls_in_python(bundle: Bundle, slates: list[Any]) -> None:
    ours = Ours(bundle)
    ours(ours.messages(slates[:BATCH]))
    profile = cProfile.Profile()
    for batch in batches(ours, slates):
        profile.runcall(ours, batch)
    calls = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    assert calls / (SLATES * ITEMS) < 16
