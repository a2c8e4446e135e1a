"""The re-ranker at serving time: a row has the same score, bit for bit, in every call."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle, BundleError
from models.reranker.runtime import Reranker
from tests.bundles import tiny_bundle, tiny_reranker


@pytest.fixture
def rows() -> np.ndarray:
    random = np.random.default_rng(0)
    values = random.normal(size=(200, 41)) * 50
    values[random.random(values.shape) < 0.1] = np.nan
    return values


def test_a_row_has_the_same_score_alone_and_among_other_rows(tmp_path: Path, rows: np.ndarray) -> None:
    reranker = Reranker.load(Bundle.load(tiny_bundle(tmp_path)))
    together = reranker.score(rows)

    assert together.dtype == np.float64
    assert len(np.unique(together)) > 10
    for row in range(0, 200, 17):
        assert reranker.score(rows[row : row + 1])[0] == together[row]
    assert reranker.score(rows[::-1])[::-1].tolist() == together.tolist()
    reloaded = Reranker.load(Bundle.load(tmp_path))
    assert reloaded.score(rows).tolist() == together.tolist()


@pytest.mark.parametrize("output", ["raw", "probability"])
@pytest.mark.parametrize("trees", [True, False])
def test_rescoring_equals_scoring_the_row_with_the_other_session_score(
    tmp_path: Path, rows: np.ndarray, output: str, trees: bool
) -> None:
    reranker = Reranker.load(Bundle.load(tiny_bundle(tmp_path, output=output)))
    if not trees:
        reranker = dataclasses.replace(reranker, trees=None)
    rescorer = reranker.rescorer(rows)
    random = np.random.default_rng(1)
    for count in (0, 1, 300):
        row, session_score = random.integers(200, size=count), random.normal(size=count) * 50
        changed = rows[row]
        changed[:, -1] = session_score
        assert rescorer.score(row, session_score).tolist() == reranker.score(changed).tolist()
        assert rescorer.raw(row, session_score).tolist() == reranker.raw(changed).tolist()
    every = np.arange(200)
    assert rescorer.score(every, rows[:, -1]).tolist() == reranker.score(rows).tolist()
    assert np.isnan(rows[:, -1]).any()


def test_scores_that_differ_from_lightgbms_are_not_served(tmp_path: Path, rows: np.ndarray) -> None:
    reranker = Reranker.load(Bundle.load(tiny_bundle(tmp_path)))
    reranker.self_check(rows)
    for leaf in (0, 1):
        reranker.booster.set_leaf_output(0, leaf, reranker.booster.get_leaf_output(0, leaf) + 1.0)

    with pytest.raises(BundleError, match="a difference of 1: do not serve"):
        reranker.self_check(rows)


def test_rescored_rows_that_differ_from_lightgbms_scores_are_not_served(tmp_path: Path, rows: np.ndarray) -> None:
    reranker = Reranker.load(Bundle.load(tiny_bundle(tmp_path)))
    few = rows[:4]
    swapped = few.copy()
    swapped[:, -1] = few[::-1, -1]
    reached, rescored = (reranker.booster.predict(each, pred_leaf=True) for each in (few, swapped))
    tree, leaf = next(
        (tree, leaf)
        for tree in range(reranker.booster.num_trees())
        for leaf in rescored[:, tree].tolist()
        if leaf not in reached[:, tree]  # so that only scores with another session score differ
    )
    reranker.self_check(few)
    reranker.booster.set_leaf_output(tree, leaf, reranker.booster.get_leaf_output(tree, leaf) + 1e-9)

    assert reranker.raw(few).tolist() == reranker.booster.predict(few, raw_score=True).tolist()
    with pytest.raises(BundleError, match="a difference of 1e-09"):
        reranker.self_check(few)


def test_a_probability_is_the_sigmoid_of_the_raw_score(tmp_path: Path, rows: np.ndarray) -> None:
    reranker = Reranker.load(Bundle.load(tiny_bundle(tmp_path, output="probability")))
    raw = reranker.raw(rows)

    np.testing.assert_allclose(reranker.score(rows), 1 / (1 + np.exp(-raw)), rtol=1e-12)
    assert raw.min() < 0 < raw.max()


def test_the_score_of_a_raw_bundle_is_the_raw_score(tmp_path: Path, rows: np.ndarray) -> None:
    reranker = Reranker.load(Bundle.load(tiny_bundle(tmp_path)))

    assert reranker.score(rows).tolist() == reranker.raw(rows).tolist()


def test_zero_rows_give_zero_scores(tmp_path: Path) -> None:
    reranker = Reranker.load(Bundle.load(tiny_bundle(tmp_path)))

    assert reranker.score(np.zeros((0, 41))).shape == (0,)


@pytest.mark.parametrize("shape", [(3, 40), (41,), (0, 3)])
def test_rows_with_another_number_of_features_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    reranker = Reranker.load(Bundle.load(tiny_bundle(tmp_path)))

    with pytest.raises(BundleError, match="expected rows of 41 features"):
        reranker.score(np.zeros(shape))
    with pytest.raises(BundleError, match="expected rows of 41 features"):
        reranker.rescorer(np.zeros(shape))


DAMAGE = {
    "no trees": lambda text: text[: text.index("Tree=0")],
    "cut between trees": lambda text: text[: text.index("Tree=7")],
    "cut within a tree": lambda text: text[: text.index("Tree=7") + 150],
    "a word for a number": lambda text: text.replace("leaf_value=", "leaf_value=x", 1),
    "another objective": lambda text: text.replace("objective=", "objective=un", 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_trees_raise_an_error_and_do_not_end_the_process(tmp_path: Path, damage: str) -> None:
    bundle = Bundle.load(tiny_bundle(tmp_path, reranker_text=DAMAGE[damage](tiny_reranker())))

    with pytest.raises(BundleError, match=r"reranker\.txt: expected (a LightGBM model|20 trees)"):
        Reranker.load(bundle)
