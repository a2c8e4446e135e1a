"""The laboratory measures what each removal does, whatever the session model can do, and never counts one twice."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from models.attribution import METHODS
from models.bundle import Bundle
from stream.explain.columns import to_columns
from stream.explain.laboratory import RELATIVE, Laboratory, ranks
from stream.explain.models import Models
from stream.explain.scores import score

CLOSE = 1e-4
REMOVALS = {
    "takes sessions up again": ("deletion", "blanking", "masking"),
    "runs whole sessions": ("deletion", "blanking", "masking"),
    "knows no blank event": ("deletion", "masking"),
    "hides no event": ("deletion", "blanking"),
}


@pytest.fixture(params=REMOVALS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def models(kind: str, bundle: Bundle) -> Models:
    opened = Models.open(bundle, 1)
    if kind != "takes sessions up again":
        opened.session.reruns = None
    opened.session.has_blank = kind != "knows no blank event"
    opened.session.has_without = kind != "hides no event"
    return opened


def every_event(laboratory: Laboratory) -> np.ndarray:
    """Ask of every item for every event that its history has: columns [T, W]."""
    there = laboratory.slates.histories.item[laboratory.slates.slate] > 0
    return np.where(there, np.arange(there.shape[1]), -1)


def test_falls_are_those_of_the_slow_methods(kind: str, models: Models, slates: list[dict[str, Any]]) -> None:
    columns = to_columns(slates, models.bundle)
    laboratory = Laboratory(columns, score(columns, models), models)
    asked = every_event(laboratory)
    laboratory.measure(asked)
    tried = laboratory.falls.tried.copy()
    laboratory.measure(np.repeat(asked, 2, axis=1))
    np.testing.assert_array_equal(laboratory.falls.tried, tried)
    assert tried.max() == len(REMOVALS[kind])

    vector, items = laboratory.scores.reading.vector[columns.slate], laboratory.scores.items
    falls = []
    for method in REMOVALS[kind]:
        without = METHODS[method](models.session, columns.histories)[columns.slate]
        fall = np.einsum("twd,td->tw", vector[:, None] - without, items)
        mean = columns.mean(fall, columns.known)[columns.slate]
        falls.append((fall, fall - mean))
    margins = [(fall, relative / RELATIVE) for fall, relative in falls]
    nth_newest, ageing = np.arange(asked.shape[1], 0, -1), models.bundle.manifest.citation_ageing
    assert ageing > 0
    there = asked >= 0
    np.testing.assert_allclose(laboratory.falls.drop[there], falls[0][0][there], atol=CLOSE)
    np.testing.assert_allclose(laboratory.falls.drop_centred[there], falls[0][1][there], atol=CLOSE)
    least = np.min(margins, axis=(0, 1)) / nth_newest**ageing
    passed = there & (least > laboratory.margin + CLOSE / RELATIVE)
    assert passed.sum() > 20
    np.testing.assert_allclose(laboratory.falls.least[passed], least[passed], atol=CLOSE / RELATIVE)
    failed = there & (least < laboratory.margin - CLOSE / RELATIVE)
    assert failed.any()
    assert (laboratory.falls.least[failed] <= laboratory.margin).all()


def test_an_item_whose_scores_are_another_models_keeps_the_score_that_was_sent(
    bundle: Bundle, slates: list[dict[str, Any]]
) -> None:
    models = Models.open(bundle, 1)
    columns = to_columns(slates, bundle)
    columns.reranking_score[:] += 1.0
    laboratory = Laboratory(columns, score(columns, models), models)
    newest = np.full((len(columns.item), 1), columns.histories.width - 1)
    laboratory.measure(newest)
    laboratory.reorder(newest)
    np.testing.assert_array_equal(laboratory.rank_without[:, -1], laboratory.rank)


def test_a_rank_counts_what_scores_higher_and_what_ties_before_it() -> None:
    offsets, random = np.array([0, 5, 5, 6, 30]), np.random.default_rng(0)
    scores = random.integers(0, 4, 30).astype(np.float32)
    position = np.concatenate([random.permutation(size) for size in np.diff(offsets)])
    found = ranks(offsets, scores, position)
    for start, stop in pairwise(offsets):
        for row in range(start, stop):
            before = [
                other
                for other in range(start, stop)
                if (-scores[other], position[other]) < (-scores[row], position[row])
            ]
            assert found[row] == len(before) + 1
