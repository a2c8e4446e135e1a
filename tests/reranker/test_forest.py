"""The laid-out trees score as LightGBM does, to the last bit, for every kind of model and any rows."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.attribution.treeshap import UnsupportedModel
from models.reranker.forest import Trees
from tests.attribution.forests import Written, model_text, rows, train

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
    scores_alike(booster, np.concatenate([X[:90], rows(rng, 60, 7)]))


@SLOW
@given(leaves=st.integers(2, 60), chain=st.booleans(), trees=st.integers(1, 5), seed=st.integers(0, 9999))
def test_trees_with_any_decision_at_any_node(leaves: int, chain: bool, trees: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = [Written(rng, 5, leaves, chain).text() for _ in range(trees)]
    scores_alike(lightgbm.Booster(model_str=model_text(5, blocks)), rows(rng, 130, 5))


def test_a_feature_with_more_thresholds_than_a_byte_counts() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3000, 3))
    booster = train(X, {"objective": "regression", "num_leaves": 255, "min_data_in_leaf": 1, "max_bin": 1000}, 20)
    scores_alike(booster, np.concatenate([X[:200], rows(rng, 60, 3)]))


def test_trees_of_one_leaf_count() -> None:
    X = np.random.default_rng(2).normal(size=(40, 3))
    booster = train(X, {"objective": "regression", "min_data_in_leaf": 100}, 3)
    assert booster.predict(X[:1], raw_score=True)[0] != 0
    scores_alike(booster, X)


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
