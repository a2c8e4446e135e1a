"""The laid-out trees score as LightGBM does, to the last bit, for every kind of model and any rows."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.attribution.treeshap import UnsupportedModel
from models.trees import cells, forest
from models.trees.forest import Trees
from tests.trees.forests import ODD, Written, model_text, rows, train

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

KINDS: list[dict[str, Any]] = [
    {"objective": "regression"},
    {"objective": "binary"},
    {"objective": "regression", "boosting": "dart", "drop_rate": 0.5},
    {"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
]


def scores_alike(booster: lightgbm.Booster, X: np.ndarray) -> None:
    """Alone, in part of a block, in a block and in several."""
    trees = Trees(booster)
    for count in (0, 1, 5, 64, len(X)):
        expected = booster.predict(X[:count], raw_score=True, num_threads=1) if count else np.zeros(0)
        np.testing.assert_array_equal(trees.raw(X[:count]), expected)


def scores_again_alike(booster: lightgbm.Booster, X: np.ndarray, feature: int, *, must: bool = False) -> None:
    """With values of all rows and odd ones, in calls of any rows; each alone as in company."""
    trees, rng = Trees(booster), np.random.default_rng(len(X))
    again = trees.again(X, feature)
    if again is None:
        assert not must
        return
    for count in (0, 1, 3, 64, 200):
        row, value = rng.integers(len(X), size=count), rng.choice([*X[:, feature], *ODD, 65.5], size=count)
        changed = X[row]
        changed[:, feature] = value
        expected = booster.predict(changed, raw_score=True, num_threads=1) if count else np.zeros(0)
        np.testing.assert_array_equal(again.raw(row, value), expected)
    alone = trees.again(X, feature)
    assert alone is not None
    assert [alone.raw(row[[i]], value[[i]])[0] for i in range(9)] == expected[:9].tolist()
    every = np.arange(len(X))
    np.testing.assert_array_equal(again.raw(every, X[:, feature]), trees.raw(X))


@pytest.mark.slow
@SLOW
@given(
    kind=st.sampled_from(KINDS),
    missing=st.sampled_from([{}, {"zero_as_missing": True}, {"use_missing": False}]),
    leaves=st.sampled_from([2, 3, 7, 31, 255, 400]),
    trees=st.integers(1, 12),
    categorical=st.sampled_from([[], [2], [2, 5]]),
    seed=st.integers(0, 999),
)
def test_trained_models(
    kind: dict[str, Any], missing: dict[str, Any], leaves: int, trees: int, categorical: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X = rows(rng, 600, 7)
    grouping = {"min_data_in_leaf": 1, "min_data_per_group": 1, "cat_smooth": 1.0}
    booster = train(X, {**kind, **missing, **grouping, "num_leaves": leaves}, trees, categorical)
    others = np.concatenate([X[:90], rows(rng, 60, 7)])
    scores_alike(booster, others)
    for feature in range(7):
        scores_again_alike(booster, others, feature, must=leaves < 4 and feature not in categorical)


@pytest.mark.slow
@SLOW
@given(leaves=st.integers(2, 60), chain=st.booleans(), trees=st.integers(1, 5), seed=st.integers(0, 9999))
def test_trees_with_any_decision_at_any_node(leaves: int, chain: bool, trees: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = [Written(rng, 5, leaves, chain).text() for _ in range(trees)]
    booster = lightgbm.Booster(model_str=model_text(5, blocks))
    X = rows(rng, 130, 5)
    scores_alike(booster, X)
    for feature in range(5):
        scores_again_alike(booster, X, feature)


def test_a_feature_with_more_thresholds_than_a_byte_counts() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3000, 3))
    booster = train(X, {"objective": "regression", "num_leaves": 255, "min_data_in_leaf": 1, "max_bin": 1000}, 20)
    X = np.concatenate([X[:200], rows(rng, 60, 3)])
    scores_alike(booster, X)
    scores_again_alike(booster, X, 2)


def test_a_feature_with_more_thresholds_than_a_byte_counts_is_scored_again() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(3000, 3))
    booster = train(X, {"objective": "regression", "num_leaves": 31, "min_data_in_leaf": 1, "max_bin": 1000}, 120)
    assert len(Trees(booster)._columns._thresholds[2]) > 255
    scores_again_alike(booster, np.concatenate([X[:200], rows(rng, 60, 3)]), 2, must=True)


def test_a_feature_that_no_tree_reads_changes_nothing() -> None:
    X = rows(np.random.default_rng(6), 300, 5)
    X[:, 3] = 1.0
    booster = train(X, {"objective": "regression"}, 5)
    scores_again_alike(booster, X, 3, must=True)
    again = Trees(booster).again(X, 3)
    assert again.raw(np.arange(300), X[:, 0]).tolist() == Trees(booster).raw(X).tolist()


def test_rows_meet_the_trees_once(monkeypatch: pytest.MonkeyPatch) -> None:
    X = rows(np.random.default_rng(7), 300, 5)
    again = Trees(train(X, {"objective": "regression"}, 5)).again(X, 4)
    met: list[list[int]] = []
    fold = forest._fold
    monkeypatch.setattr(forest, "_fold", lambda X, blocks, *rest: (met.append(blocks.tolist()), fold(X, blocks, *rest)))
    for row in ([3, 70, 3], [70], [299], [5, 127, 298, 150]):
        again.raw(np.array(row), np.zeros(len(row)))
    assert met == [[0, 1], [4], [2]]


@pytest.mark.parametrize("limit", ["_MAX_GROWTH", "_MAX_CELLS"])
def test_where_cells_are_too_many_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    X = rows(np.random.default_rng(8), 300, 5)
    booster = train(X, {"objective": "regression"}, 5)
    assert Trees(booster).again(X, 0) is not None
    monkeypatch.setattr(cells, limit, 0)
    assert Trees(booster).again(X, 0) is None


@pytest.mark.parametrize("leaves", [31, 400])
def test_rows_of_a_later_block_may_come_alone(leaves: int) -> None:
    """Fewer than four rows at a time, and none of the first block: nothing of that block may be read."""
    X = np.random.default_rng(0).normal(size=(6000, 6))
    booster = train(X, {"objective": "regression", "num_leaves": leaves, "min_data_in_leaf": 3}, 8)
    scored = 0
    for feature in range(6):
        for count in (1, 2, 3, 5):
            again = Trees(booster).again(X[:128], feature)
            if again is None:
                continue
            row, value = np.arange(100, 100 + count), np.linspace(-1, 1, count)
            changed = X[row]
            changed[:, feature] = value
            assert again.raw(row, value).tolist() == booster.predict(changed, raw_score=True, num_threads=1).tolist()
            scored += 1
    assert scored


def test_where_rows_are_too_many_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    X = rows(np.random.default_rng(9), 300, 5)
    trees = Trees(train(X, {"objective": "regression"}, 5))
    monkeypatch.setattr(forest, "_MAX_KEPT", 300 * len(trees.again(X, 0)._cells.ends) * 2)
    assert trees.again(X, 0) is not None
    assert trees.again(np.concatenate([X, X]), 0) is None


def test_trees_of_one_leaf_count() -> None:
    X = np.random.default_rng(2).normal(size=(40, 3))
    booster = train(X, {"objective": "regression", "min_data_in_leaf": 100}, 3)
    assert booster.predict(X[:1], raw_score=True)[0] != 0
    scores_alike(booster, X)
    scores_again_alike(booster, X, 1, must=True)


def test_trees_of_one_leaf_count_among_others() -> None:
    rng = np.random.default_rng(10)
    X = rows(rng, 130, 4)
    single = "num_leaves=1\nnum_cat=0\nsplit_feature=\nsplit_gain=\nthreshold=\ndecision_type=\nleft_child=\n"
    single += "right_child=\nleaf_value=0.25\nleaf_weight=\nleaf_count=\ninternal_value=\ninternal_weight=\n"
    single += "internal_count=\nis_linear=0\nshrinkage=1\n"
    blocks = [Written(rng, 4, 9, chain=False).text(), single, Written(rng, 4, 2, chain=False).text()]
    booster = lightgbm.Booster(model_str=model_text(4, blocks))
    scores_alike(booster, X)
    for feature in range(4):
        scores_again_alike(booster, X, feature)


def test_rows_in_another_order_of_memory_score_the_same() -> None:
    X = rows(np.random.default_rng(3), 300, 5)
    booster = train(X, {"objective": "regression"}, 5)
    np.testing.assert_array_equal(Trees(booster).raw(np.asfortranarray(X)), Trees(booster).raw(X))


@pytest.mark.parametrize("settings", [{"objective": "multiclass", "num_class": 3}, {"linear_tree": True}])
def test_what_has_no_single_constant_score_is_left_to_lightgbm(settings: dict[str, Any]) -> None:
    X = np.random.default_rng(4).normal(size=(300, 4))
    booster = train(X, settings, 3)
    with pytest.raises(UnsupportedModel):
        Trees(booster)
    assert Trees.of(booster) is None
