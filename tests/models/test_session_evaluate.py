"""Ranking metrics agree with their definitions."""

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
def test_a_rank_counts_better_items_and_half_of_the_ties(scores: list[int], data: st.DataObject) -> None:
    target = data.draw(st.integers(1, len(scores)))
    score = scores[target - 1]
    better, equal = sum(s > score for s in scores), sum(s == score for s in scores) - 1
    row = np.array([[99.0, *scores]], dtype=np.float32)
    assert ranks(row, np.array([target])).tolist() == [1 + better + equal / 2]


def test_metrics_by_hand() -> None:
    metrics = Metrics.of(np.array([1.0, 3.0, 10.0, 11.0]))
    assert metrics.hit_at_10 == 0.75
    assert metrics.ndcg_at_10 == pytest.approx((1 + 1 / 2 + 1 / math.log2(11)) / 4)
    assert metrics.mrr == pytest.approx((1 + 1 / 3 + 1 / 10 + 1 / 11) / 4)
    assert metrics.histories == 4


def test_metrics_of_no_histories_are_nan() -> None:
    metrics = Metrics.of(np.empty(0))
    assert metrics.histories == 0
    assert math.isnan(metrics.hit_at_10)


def test_a_constant_score_is_as_good_as_a_random_one() -> None:
    sessions = walks(50, seed=1)
    items = len(sessions.catalog)

    def constant(item_index: npt.NDArray[np.int64], _: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.zeros((len(item_index), 4), dtype=np.float32)

    metrics = evaluate_model(constant, np.ones((items + 1, 4), dtype=np.float32), sessions, 50)
    assert metrics.hit_at_10 == 0  # all items are tied: the mean of 60 ranks
    assert metrics.mrr == pytest.approx(1 / ((items + 1) / 2))


def test_the_newest_event_is_predicted_from_the_events_before_it() -> None:
    sessions = walks(5, seed=1, length=6)
    inputs: list[npt.NDArray[np.int64]] = []

    def oracle(item_index: npt.NDArray[np.int64], _: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        inputs.append(item_index)
        return np.eye(len(sessions.catalog) + 1, dtype=np.float32)[sessions.item.reshape(5, 6)[:, -1]]

    metrics = evaluate_model(oracle, np.eye(len(sessions.catalog) + 1, dtype=np.float32), sessions, 4)
    assert (metrics.hit_at_10, metrics.mrr) == (1.0, 1.0)
    np.testing.assert_array_equal(inputs[0], sessions.item.reshape(5, 6)[:, 1:5])


def test_histories_of_one_event_are_left_out() -> None:
    sessions = walks(3, seed=1, length=1)
    assert len(leave_last_out(sessions)[0]) == 0
    assert evaluate_popularity(sessions, sessions).histories == 0


def test_popularity_ranks_by_count() -> None:
    training, held_out = walks(200, seed=1), walks(100, seed=2)
    counts = np.bincount(training.item, minlength=len(training.catalog) + 1).astype(np.float32)
    target = leave_last_out(held_out)[1]
    expected = Metrics.of(ranks(np.tile(counts, (len(target), 1)), target))
    assert evaluate_popularity(training, held_out) == expected
