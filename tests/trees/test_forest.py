"""The compiled trees score bit for bit as LightGBM does, for every kind of model and any rows."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.attribution.treeshap import UnsupportedModel
from models.trees.forest import Trees
from models.trees.model import parse
from tests.trees.forests import ODD, Written, model_text, rows, train

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

KINDS: list[dict[str, Any]] = [
    {"objective": "regression"},
    {"objective": "binary"},
    {"objective": "regression", "boosting": "dart", "drop_rate": 0.5},
    {"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
]


def assert_equal_scores(booster: lightgbm.Booster, X: np.ndarray) -> None:
    """Compare scores of no row, one row, a part of a block, a block and several blocks with LightGBM's."""
    trees = Trees(booster)
    for count in (0, 1, 5, 64, len(X)):
        expected = booster.predict(X[:count], raw_score=True, num_threads=1) if count else np.zeros(0)
        np.testing.assert_array_equal(trees.raw(X[:count]), expected)


def assert_equal_cached_scores(
    booster: lightgbm.Booster, X: np.ndarray, feature: int, *, must_cache: bool = False
) -> None:
    """Compare scores of cached rows with LightGBM's scores of the changed rows, for ordinary and for odd values.

    Rows are drawn at random, with repeats; a row scored alone has the score that it has among others.
    """
    trees, rng = Trees(booster), np.random.default_rng(len(X))
    cached = trees.cache_rows(X, feature)
    if cached is None:
        assert not must_cache
        return
    for count in (0, 1, 3, 64, 200):
        row, value = rng.integers(len(X), size=count), rng.choice([*X[:, feature], *ODD, 65.5], size=count)
        changed = X[row]
        changed[:, feature] = value
        expected = booster.predict(changed, raw_score=True, num_threads=1) if count else np.zeros(0)
        np.testing.assert_array_equal(cached.raw(row, value), expected)
    alone = trees.cache_rows(X, feature)
    assert alone is not None
    assert [alone.raw(row[[i]], value[[i]])[0] for i in range(9)] == expected[:9].tolist()
    every = np.arange(len(X))
    np.testing.assert_array_equal(cached.raw(every, X[:, feature]), trees.raw(X))


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
    assert_equal_scores(booster, others)
    for feature in range(7):
        assert_equal_cached_scores(booster, others, feature, must_cache=leaves < 4 and feature not in categorical)


@pytest.mark.slow
@SLOW
@given(leaves=st.integers(2, 60), chain=st.booleans(), trees=st.integers(1, 5), seed=st.integers(0, 9999))
def test_trees_with_any_decision_at_any_node(leaves: int, chain: bool, trees: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = [Written(rng, 5, leaves, chain).text() for _ in range(trees)]
    booster = lightgbm.Booster(model_str=model_text(5, blocks))
    X = rows(rng, 130, 5)
    assert_equal_scores(booster, X)
    for feature in range(5):
        assert_equal_cached_scores(booster, X, feature)


def test_a_feature_may_have_more_than_254_thresholds() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3000, 3))
    booster = train(X, {"objective": "regression", "num_leaves": 255, "min_data_in_leaf": 1, "max_bin": 1000}, 20)
    X = np.concatenate([X[:200], rows(rng, 60, 3)])
    assert_equal_scores(booster, X)
    assert_equal_cached_scores(booster, X, 2)


def test_rows_are_cached_for_a_feature_with_more_than_254_thresholds() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(3000, 3))
    booster = train(X, {"objective": "regression", "num_leaves": 31, "min_data_in_leaf": 1, "max_bin": 1000}, 120)
    trees = parse(booster.model_to_string()).trees
    splits = [split for tree in trees for split in zip(tree.feature, tree.threshold, strict=True)]
    assert len({threshold for feature, threshold in splits if feature == 2}) > 255
    assert_equal_cached_scores(booster, np.concatenate([X[:200], rows(rng, 60, 3)]), 2, must_cache=True)


def test_a_feature_that_no_tree_reads_changes_nothing() -> None:
    X = rows(np.random.default_rng(6), 300, 5)
    X[:, 3] = 1.0
    booster = train(X, {"objective": "regression"}, 5)
    assert_equal_cached_scores(booster, X, 3, must_cache=True)
    cached = Trees(booster).cache_rows(X, 3)
    assert cached is not None
    assert cached.raw(np.arange(300), X[:, 0]).tolist() == Trees(booster).raw(X).tolist()


def test_a_block_of_rows_is_read_once_and_when_it_is_first_scored() -> None:
    """Rows that change after their block was read keep their scores; a change before it counts."""
    rng = np.random.default_rng(7)
    before, after = rng.normal(size=(2, 300, 5))
    trees, value = Trees(train(before, {"objective": "regression"}, 5)), np.zeros(4)
    X, row = before.copy(), np.array([3, 10, 70, 299])
    cached = trees.cache_rows(X, 4)
    assert cached is not None
    cached.raw(row[:3], value[:3])
    X[:] = after
    before[:, 4] = after[:, 4] = 0.0
    expected = trees.raw(np.concatenate([before[row[:3]], after[row[3:]]]))
    assert cached.raw(row, value).tolist() == expected.tolist()
    assert (trees.raw(before[row]) != trees.raw(after[row])).all()


def test_no_rows_are_cached_where_the_splits_of_all_cells_are_many_times_the_trees_own() -> None:
    X = np.random.default_rng(8).normal(size=(3000, 3))
    small, large = (train(X, {"objective": "regression", "num_leaves": leaves}, 5) for leaves in (3, 100))
    assert Trees(small).cache_rows(X, 0) is not None
    assert Trees(large).cache_rows(X, 0) is None


def on_one_feature(count: int) -> Trees:
    """Equal trees of 60 leaves, all of whose splits are on one feature, so that each tree has 45 to 62 cells."""
    block = Written(np.random.default_rng(9), features=1, leaves=60, chain=True).text()
    return Trees(lightgbm.Booster(model_str=model_text(1, [block] * count)))


@pytest.mark.slow
def test_no_rows_are_cached_for_more_than_65536_cells() -> None:
    assert on_one_feature(700).cache_rows(np.zeros((1, 1)), 0) is not None
    assert on_one_feature(1500).cache_rows(np.zeros((1, 1)), 0) is None


def test_no_rows_are_cached_whose_leaves_would_take_more_than_256_mib() -> None:
    trees = on_one_feature(700)
    assert trees.cache_rows(np.zeros((3000, 1)), 0) is not None
    assert trees.cache_rows(np.zeros((4500, 1)), 0) is None


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [31, 400])
def test_fewer_than_four_rows_of_a_later_block_may_be_scored_alone(leaves: int) -> None:
    """The kernel scores four rows at a time; the lanes without a row must not read leaves of a block never computed."""
    X = np.random.default_rng(0).normal(size=(6000, 6))
    booster = train(X, {"objective": "regression", "num_leaves": leaves, "min_data_in_leaf": 3}, 8)
    scored = 0
    for feature in range(6):
        for count in (1, 2, 3, 5):
            cached = Trees(booster).cache_rows(X[:128], feature)
            if cached is None:
                continue
            row, value = np.arange(100, 100 + count), np.linspace(-1, 1, count)
            changed = X[row]
            changed[:, feature] = value
            assert cached.raw(row, value).tolist() == booster.predict(changed, raw_score=True, num_threads=1).tolist()
            scored += 1
    assert scored


def test_trees_of_one_leaf_contribute_to_the_score() -> None:
    X = np.random.default_rng(2).normal(size=(40, 3))
    booster = train(X, {"objective": "regression", "min_data_in_leaf": 100}, 3)
    assert booster.predict(X[:1], raw_score=True)[0] != 0
    assert_equal_scores(booster, X)
    assert_equal_cached_scores(booster, X, 1, must_cache=True)


def test_trees_of_one_leaf_contribute_among_other_trees() -> None:
    rng = np.random.default_rng(10)
    X = rows(rng, 130, 4)
    single = "num_leaves=1\nnum_cat=0\nsplit_feature=\nsplit_gain=\nthreshold=\ndecision_type=\nleft_child=\n"
    single += "right_child=\nleaf_value=0.25\nleaf_weight=\nleaf_count=\ninternal_value=\ninternal_weight=\n"
    single += "internal_count=\nis_linear=0\nshrinkage=1\n"
    blocks = [Written(rng, 4, 9, chain=False).text(), single, Written(rng, 4, 2, chain=False).text()]
    booster = lightgbm.Booster(model_str=model_text(4, blocks))
    assert_equal_scores(booster, X)
    for feature in range(4):
        assert_equal_cached_scores(booster, X, feature)


def test_rows_in_column_major_order_have_the_same_scores() -> None:
    X = rows(np.random.default_rng(3), 300, 5)
    booster = train(X, {"objective": "regression"}, 5)
    np.testing.assert_array_equal(Trees(booster).raw(np.asfortranarray(X)), Trees(booster).raw(X))


@pytest.mark.parametrize("settings", [{"objective": "multiclass", "num_class": 3}, {"linear_tree": True}])
def test_models_of_several_classes_and_linear_trees_are_left_to_lightgbm(settings: dict[str, Any]) -> None:
    X = np.random.default_rng(4).normal(size=(300, 4))
    booster = train(X, settings, 3)
    with pytest.raises(UnsupportedModel):
        Trees(booster)
    assert Trees.of(booster) is None
