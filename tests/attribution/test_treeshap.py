"""Contributions equal LightGBM's own, for every kind of model and any rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from math import factorial
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from models.attribution.treeshap import ContributionMismatch, InvalidRows, TreeShap, UnsupportedModel
from schemas.errors import WhyrecError
from tests.trees.forests import Written, model_text, rows, train

Float64s = npt.NDArray[np.float64]

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
BATCHES = (1, 3, 20, 40, 64, 130)
"""One row, a few, a part of a narrow block, of a wide one, a whole one, and wide ones with a rest."""


def equal_to_lightgbm(booster: lightgbm.Booster, X: Float64s) -> None:
    """Compare in batches of all shapes, to a millionth of the spread of the raw scores."""
    treeshap = TreeShap(booster)
    expected = booster.predict(X, pred_contrib=True, num_threads=1)
    raw = booster.predict(X, raw_score=True, num_threads=1).reshape(len(X), -1)
    spread = max(np.ptp(raw, axis=0).max(), np.abs(expected[:, :-1]).max() if raw.shape[1] == 1 else 0.0)
    begin = 0
    for count in BATCHES:
        part = slice(begin, begin + count)
        got = treeshap.contributions(X[part])
        assert got.dtype == np.float64
        assert got.shape == expected[part].shape
        np.testing.assert_allclose(got, expected[part], rtol=1e-12, atol=1e-6 * spread)
        total = got.reshape(len(got), raw.shape[1], -1).sum(axis=2)
        np.testing.assert_allclose(total, raw[part], rtol=1e-9, atol=1e-5 * spread)
        begin += count
    assert begin <= len(X)


@st.composite
def kinds(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a model."""
    kind = draw(
        st.sampled_from(
            [
                {"objective": "regression"},
                {"objective": "binary"},
                {"objective": "multiclass", "num_class": 3},
                {"objective": "regression", "boosting": "dart", "drop_rate": 0.5},
                {"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
                {"objective": "regression", "monotone_constraints": [1, -1, 0, 0, 0, 0, 1]},
            ]
        )
    )
    return {
        **kind,
        **draw(st.sampled_from([{}, {"zero_as_missing": True}, {"use_missing": False}])),
        "num_leaves": draw(st.sampled_from([2, 3, 7, 31, 255])),
        "min_data_in_leaf": draw(st.sampled_from([1, 5, 50])),
        "feature_fraction": draw(st.sampled_from([0.2, 1.0])),
        "max_cat_to_onehot": draw(st.sampled_from([1, 100])),
        "min_data_per_group": 1,
        "cat_smooth": 1.0,
    }


@pytest.mark.slow
@SLOW
@given(kind=kinds(), trees=st.integers(1, 12), categorical=st.sampled_from([[], [2], [2, 5]]), seed=st.integers(0, 999))
def test_trained_models_of_any_kind(kind: dict[str, Any], trees: int, categorical: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rows(rng, 600, 7)
    if kind.get("monotone_constraints"):
        categorical = []
    finite = np.where(np.isinf(X), 1e300, X)  # LightGBM doesn't bin infinities of categories
    finite[:, categorical] = np.where(np.abs(finite[:, categorical]) > 1e6, np.nan, finite[:, categorical])
    finite[:, categorical] = np.where(finite[:, categorical] < 0, np.nan, finite[:, categorical])
    booster = train(finite, kind, trees, categorical)
    equal_to_lightgbm(booster, rows(rng, sum(BATCHES), 7))


@SLOW
@given(
    leaves=st.integers(2, 40),
    features=st.integers(1, 6),
    trees=st.integers(1, 20),
    chain=st.booleans(),
    seed=st.integers(0, 999),
)
@example(leaves=255, features=2, trees=3, chain=False, seed=0).via("many thresholds on one feature")
@example(leaves=255, features=1, trees=4, chain=False, seed=0).via("more than 254 of them")
@example(leaves=100, features=99, trees=2, chain=True, seed=1).via("more than 16 quadrature nodes")
@example(leaves=255, features=20, trees=2, chain=True, seed=2).via("a path of 254 splits")
def test_trees_that_no_training_gives(leaves: int, features: int, trees: int, chain: bool, seed: int) -> None:
    """Missing types that differ from node to node, odd thresholds, features met again and again."""
    rng = np.random.default_rng(seed)
    blocks = [Written(rng, features, leaves, chain).text() for _ in range(trees)]
    booster = lightgbm.Booster(model_str=model_text(features, blocks))
    equal_to_lightgbm(booster, rows(rng, sum(BATCHES), max(features, 3))[:, :features].copy())


def shapley(tree: dict[str, Any], x: Float64s) -> Float64s:
    """Shapley values by their definition: all subsets of features, absent ones averaged over training rows."""

    def value(node: dict[str, Any], known: frozenset[int]) -> float:
        if "leaf_value" in node:
            return float(node["leaf_value"])
        children = node["left_child"], node["right_child"]
        if node["split_feature"] in known:
            return value(children[int(x[node["split_feature"]] > node["threshold"])], known)
        counts = [child.get("internal_count", child.get("leaf_count")) for child in children]
        return sum(n * value(child, known) for n, child in zip(counts, children, strict=True)) / sum(counts)

    phi = np.zeros(len(x))
    for player in range(len(x)):
        others = [feature for feature in range(len(x)) if feature != player]
        for size in range(len(x)):
            weight = factorial(size) * factorial(len(x) - 1 - size) / factorial(len(x))
            for known in map(frozenset, combinations(others, size)):
                phi[player] += weight * (value(tree, known | {player}) - value(tree, known))
    return phi


@settings(max_examples=10, deadline=None)
@given(leaves=st.integers(2, 20), seed=st.integers(0, 99))
def test_shapley_values_by_definition(leaves: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, 5))
    booster = train(X, {"num_leaves": leaves, "min_data_in_leaf": 5}, trees=3)
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    expected = [sum(shapley(tree, x) for tree in trees) for x in X[:3]]
    np.testing.assert_allclose(TreeShap(booster).contributions(X[:3])[:, :-1], expected, atol=1e-6)


def test_a_thousand_trees() -> None:
    rng = np.random.default_rng(0)
    X = rows(rng, 400, 5)
    booster = train(np.nan_to_num(X, posinf=9, neginf=-9), {"num_leaves": 8, "learning_rate": 0.3}, trees=1000)
    assert booster.num_trees() == 1000
    equal_to_lightgbm(booster, X)


def test_a_base_score_far_from_zero_costs_no_digits() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    data = lightgbm.Dataset(X, 1e6 + X[:, 0], params={"verbose": -1})
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, data, 20)
    got, expected = TreeShap(booster).contributions(X), booster.predict(X, pred_contrib=True)
    np.testing.assert_allclose(got[:, :-1], expected[:, :-1], atol=1e-6)


def test_single_leaves_go_to_the_expected_value() -> None:
    X = np.random.default_rng(0).normal(size=(100, 3))
    booster = train(X, {"min_data_in_leaf": 90}, trees=5)
    expected = booster.predict(X, pred_contrib=True)
    assert not expected[:, :-1].any()
    np.testing.assert_allclose(TreeShap(booster).contributions(X), expected)


def test_stops_where_lightgbm_stops() -> None:
    """After early stopping, LightGBM predicts and explains with the best iteration."""
    X = np.random.default_rng(0).normal(size=(300, 3))
    booster = train(X, {}, trees=20)
    booster.best_iteration = 7
    equal_to_lightgbm(booster, X)


@pytest.fixture(scope="module")
def booster() -> lightgbm.Booster:
    return train(np.random.default_rng(0).normal(size=(500, 6)), {"num_leaves": 15}, trees=20)


@pytest.fixture(scope="module", name="X")
def some_rows() -> Float64s:
    return np.random.default_rng(1).normal(size=(100, 6))


def test_any_layout_of_the_rows(booster: lightgbm.Booster, X: Float64s) -> None:
    treeshap = TreeShap(booster)
    expected = treeshap.contributions(X)
    frozen = X.copy()
    frozen.flags.writeable = False
    for same in (np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2], frozen, np.hstack([X, X])[:, :6]):
        np.testing.assert_array_equal(treeshap.contributions(same), expected)
    assert treeshap.contributions(X[:0]).shape == (0, 7)


def test_rows_do_not_depend_on_their_neighbours(booster: lightgbm.Booster, X: Float64s) -> None:
    treeshap = TreeShap(booster)
    block = treeshap.contributions(X[:64])
    np.testing.assert_array_equal(treeshap.contributions(X[32:96])[:32], block[32:])


def test_threads_do_not_disturb_each_other(booster: lightgbm.Booster, X: Float64s) -> None:
    treeshap = TreeShap(booster)
    expected = treeshap.contributions(X)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(treeshap.contributions, [X] * 40):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 5)), "expected 6 columns.* got 5"),
        (np.zeros((2, 7)), "expected 6 columns.* got 7"),
        (np.zeros(6), "expected rows as a 2-D float64 array, got 1-D float64"),
        (np.zeros((1, 2, 6)), "got 3-D float64"),
        (np.zeros((2, 6), np.float32), "got 2-D float32"),
        (np.zeros((2, 6), np.int64), "got 2-D int64"),
        ([[0.0] * 6], "got list"),
    ],
)
def test_wrong_rows_are_refused(booster: lightgbm.Booster, wrong: Any, message: str) -> None:
    with pytest.raises(InvalidRows, match=message):
        TreeShap(booster).contributions(wrong)
    assert issubclass(InvalidRows, WhyrecError)


def test_linear_trees_are_refused(X: Float64s) -> None:
    booster = train(X, {"linear_tree": True}, trees=2)
    with pytest.raises(UnsupportedModel, match="linear_tree=false"):
        TreeShap(booster)


@pytest.mark.parametrize("counts", ["internal_count=9 0", "leaf_count=5 4 0"])
def test_leaves_without_training_rows_are_refused(counts: str) -> None:
    block = Written(np.random.default_rng(0), 2, 3, chain=True).text()
    name = counts.partition("=")[0]
    lines = [counts if line.startswith(name) else line for line in block.splitlines()]
    booster = lightgbm.Booster(model_str=model_text(2, ["\n".join(lines)]))
    with pytest.raises(UnsupportedModel, match="without any"):
        TreeShap(booster)


def test_self_check_passes_and_reports_the_difference(booster: lightgbm.Booster, X: Float64s) -> None:
    treeshap = TreeShap(booster)
    assert 0 <= treeshap.self_check(rows=X) < 1e-6
    treeshap.self_check(rows=X[:1])
    treeshap.self_check(rows=np.repeat(X[:1], 3, axis=0))
    treeshap.self_check(rows=X[:0])


def test_self_check_refuses_a_model_that_changed_after_it_was_compiled(X: Float64s) -> None:
    booster = train(X, {"num_leaves": 15}, trees=20)
    treeshap = TreeShap(booster)
    treeshap.self_check(rows=X)
    for leaf in range(2):
        booster.set_leaf_output(0, leaf, booster.get_leaf_output(0, leaf) + leaf + 1.0)
    with pytest.raises(ContributionMismatch, match="do not serve"):
        treeshap.self_check(rows=X)


def test_table_bytes_grow_with_the_model(booster: lightgbm.Booster, X: Float64s) -> None:
    small = TreeShap(train(X, {"num_leaves": 3, "min_data_in_leaf": 5}, trees=2))
    assert 0 < small.table_bytes < TreeShap(booster).table_bytes < 1e6
