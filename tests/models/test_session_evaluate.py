"""Ranking metrics, against their definitions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.session.evaluate import Metrics, evaluate_model, evaluate_popularity, leave_last_out, ranks
from tests.models.test_session_train import walks


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.data())
def test_a_rank_is_one_more_than_what_is_better_and_half_of_what_is_level(
    scores: list[int], data: st.DataObject
) -> None:
    target = data.draw(st.integers(1, len(scores)))
    own = scores[target - 1]
    better, level = sum(s > own for s in scores), sum(s == own for s in scores) - 1
    row = np.array([[99.0, *scores]], dtype=np.float32)
    assert ranks(row, np.array([target])).tolist() == [1 + better + level / 2]


def test_metrics_by_hand() -> None:
    metrics = Metrics.of(np.array([1.0, 3.0, 10.0, 11.0]))
    assert metrics.hit_at_10 == 0.75
    assert metrics.ndcg_at_10 == pytest.approx((1 + 1 / 2 + 1 / math.log2(11)) / 4)
    assert metrics.mrr == pytest.approx((1 + 1 / 3 + 1 / 10 + 1 / 11) / 4)
    assert metrics.histories == 4


def test_no_histories_have_no_metrics() -> None:
    metrics = Metrics.of(np.empty(0))
    assert metrics.histories == 0
    assert math.isnan(metrics.hit_at_10)


def test_a_model_that_knows_nothing_earns_what_chance_does() -> None:
    sessions = walks(50, seed=1)
    items = len(sessions.catalog)

    def nothing(item_index: npt.NDArray[np.int64], _: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.zeros((len(item_index), 4), dtype=np.float32)

    metrics = evaluate_model(nothing, np.ones((items + 1, 4), dtype=np.float32), sessions, 50)
    assert metrics.hit_at_10 == 0  # all are level: the middle of 60 ranks
    assert metrics.mrr == pytest.approx(1 / ((items + 1) / 2))


def test_a_model_is_asked_for_the_newest_event_from_those_before_it() -> None:
    sessions = walks(5, seed=1, length=6)
    asked: list[npt.NDArray[np.int64]] = []

    def oracle(item_index: npt.NDArray[np.int64], _: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        asked.append(item_index)
        return np.eye(len(sessions.catalog) + 1, dtype=np.float32)[sessions.item.reshape(5, 6)[:, -1]]

    metrics = evaluate_model(oracle, np.eye(len(sessions.catalog) + 1, dtype=np.float32), sessions, 4)
    assert (metrics.hit_at_10, metrics.mrr) == (1.0, 1.0)
    np.testing.assert_array_equal(asked[0], sessions.item.reshape(5, 6)[:, 1:5])


def test_histories_of_one_event_are_not_asked() -> None:
    sessions = walks(3, seed=1, length=1)
    assert len(leave_last_out(sessions)[0]) == 0
    assert evaluate_popularity(sessions, sessions).histories == 0


def test_popularity_ranks_by_count() -> None:
    learn, asked = walks(200, seed=1), walks(100, seed=2)
    counts = np.bincount(learn.item, minlength=len(learn.catalog) + 1).astype(np.float32)
    target = leave_last_out(asked)[1]
    expected = Metrics.of(ranks(np.tile(counts, (len(target), 1)), target))
    assert evaluate_popularity(learn, asked) == expected
