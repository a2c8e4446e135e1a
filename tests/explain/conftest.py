"""Bundles and slates that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from models.bundle import Bundle
from schemas.columnar import from_records, to_records
from schemas.errors import InvalidEvent
from stream.explain.pipeline import Explainer, Rejected
from tests.bundles import tiny_bundle, tiny_impression

SIZES: Sequence[tuple[int, int]] = ((8, 6), (3, 6), (20, 10), (1, 4), (2, 5), (12, 20), (50, 8), (6, 2))
"""Events and items of the slates that most tests look at."""


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    return Bundle.load(bundle_dir)


@pytest.fixture(scope="session")
def explainer(bundle_dir: Path) -> Explainer:
    return Explainer.load(bundle_dir)


@pytest.fixture(scope="session")
def reference(bundle_dir: Path) -> Explainer:
    return Explainer.load(bundle_dir, "attention")


@dataclass(frozen=True)
class Outcome:
    """What was said of one slate, and what is archived of it."""

    explanation: dict[str, Any]
    audit: dict[str, Any]


def run(explainer: Explainer, records: Sequence[Mapping[str, Any]]) -> list[Outcome | Rejected]:
    """Explain records as a batch; one outcome each, in order."""
    outcomes: dict[int, Outcome | Rejected] = {}
    parts = [from_records("impression", [])]
    places = []
    for place, record in enumerate(records):
        try:
            parts.append(from_records("impression", [record]))
            places.append(place)
        except InvalidEvent as error:
            outcomes[place] = Rejected("decode", str(error))
    explained = explainer.run(pa.concat_batches(parts))
    events = (to_records("explanation", explained.explanations), to_records("audit", explained.audits))
    for row, explanation, audit in zip(explained.rows.tolist(), *events, strict=True):
        outcomes[places[row]] = Outcome(explanation, audit)
    outcomes |= {places[row]: rejected for row, rejected in explained.rejected.items()}
    return [outcomes[place] for place in range(len(records))]


def gist(explanation: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What an explanation says, without the measured numbers: these carry the float noise of their batch."""
    return [
        (
            *(item[field] for field in ("item_id", "position", "type", "status", "text")),
            [(each["event"], each["rank"], each["rank_without"]) for each in item["evidence"]["history"]],
            [each["name"] for each in item["evidence"]["features"]],
        )
        for item in explanation["items"]
    ]


@pytest.fixture(scope="session")
def slates(bundle: Bundle) -> list[dict[str, Any]]:
    return [
        tiny_impression(bundle, session=session, items=items, seed=seed) for seed, (session, items) in enumerate(SIZES)
    ]
