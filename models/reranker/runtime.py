"""The re-ranker as it is served: its trees on one thread, the same score for the same row wherever it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.errors import BundleError
from models.trees.forest import Trees

_TREE_SIZES = re.compile(r"^tree_sizes=(.*)\n", re.MULTILINE)


@dataclass(frozen=True)
class Reranker:
    """Scores rows of features in the order of the bundle's list.

    trees gives LightGBM's raw scores, bit for bit, in a fraction of the time; None where only LightGBM can score.
    """

    booster: lgb.Booster
    trees: Trees | None
    output: str
    width: int

    @classmethod
    def load(cls, bundle: Bundle) -> Reranker:
        """Read the trees of a bundle; raises BundleError where LightGBM cannot read them or they want other columns."""
        booster = read_trees(bundle.reranker_text.read_text(encoding="utf-8"))
        if booster.num_feature() != len(bundle.features):
            raise BundleError(
                f"reranker.txt: expected {len(bundle.features)} features as in features.json, got "
                f"{booster.num_feature()}: train the re-ranker on the listed features."
            )
        return cls(booster, Trees.of(booster), bundle.manifest.reranker_output, len(bundle.features))

    def score(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score rows float64 [n, F] as the events carry it, raw or as a probability: float64 [n]."""
        return self._predict(X, raw=self.output == "raw")

    def raw(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the sum of the trees for rows float64 [n, F], to which contributions add up: float64 [n]."""
        return self._predict(X, raw=True)

    def rescorer(self, X: NDArray[np.float64]) -> Rescorer:
        """Prepare to score rows float64 [n, F] again with other session scores; they must stay as they are."""
        self._check(X)
        return Rescorer(self, X)

    def self_check(self, rows: NDArray[np.float64]) -> None:
        """Compile, and compare with LightGBM's own scores of rows float64 [n, F]; raises BundleError if any differs.

        The rows are scored again as well, with the session scores of others.
        """
        every, others = np.arange(len(rows)), rows.copy()
        others[:, -1] = rows[::-1, -1]
        expected = np.asarray(self.booster.predict(rows, raw_score=True, num_threads=1), dtype=np.float64)
        again = np.asarray(self.booster.predict(others, raw_score=True, num_threads=1), dtype=np.float64)
        difference = [self.raw(rows) - expected, self.rescorer(rows).raw(every, others[:, -1]) - again]
        worst = float(np.abs(difference).max(initial=0.0))
        if worst > 0:
            raise BundleError(
                f"re-ranker: expected LightGBM's own scores, got a difference of {worst:g}: do not serve explanations "
                "of this model, and report it."
            )

    def _predict(self, X: NDArray[np.float64], *, raw: bool) -> NDArray[np.float64]:
        self._check(X)
        if len(X) == 0:
            return np.zeros(0)
        if raw and self.trees is not None:
            return self.trees.raw(np.asarray(X, dtype=np.float64))
        return np.asarray(self.booster.predict(X, raw_score=raw, num_threads=1), dtype=np.float64)

    def _check(self, X: NDArray[np.float64]) -> None:
        if X.ndim != 2 or X.shape[1] != self.width:
            raise BundleError(
                f"re-ranker: expected rows of {self.width} features, got an array of shape {list(X.shape)}: put user "
                "features, item features and session_score side by side, in the order of features.json."
            )


class Rescorer:
    """Rows with other session scores, each scored to the bit as its re-ranker scores the changed row.

    Where the trees can, a row meets them once, however often it is scored (``Trees.again``). Otherwise, and for a
    probability, which is LightGBM's own to compute, the changed rows are scored anew.
    """

    def __init__(self, reranker: Reranker, X: NDArray[np.float64]) -> None:
        self._reranker, self._X = reranker, X
        self._again = None if reranker.trees is None else reranker.trees.again(X, reranker.width - 1)

    def score(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score rows int64 [m] with session scores float64 [m], as ``Reranker.score`` does: float64 [m]."""
        if self._reranker.output == "raw":
            return self.raw(row, session_score)
        return self._reranker.score(self._changed(row, session_score))

    def raw(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the sum of the trees for rows int64 [m] with session scores float64 [m]: float64 [m]."""
        if self._again is not None:
            return self._again.raw(row, session_score)
        return self._reranker.raw(self._changed(row, session_score))

    def _changed(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        X = self._X[row]
        X[:, -1] = session_score
        return X


def read_trees(text: str) -> lgb.Booster:
    """Read a LightGBM model from its text format; raises BundleError where it is none, or is cut short.

    Given the sizes of the trees, LightGBM reads them in parallel, and where one is damaged ends the whole process.
    Without the sizes it reads them one by one and raises.
    """
    sizes = _TREE_SIZES.search(text)
    try:
        booster = lgb.Booster(model_str=_TREE_SIZES.sub("", text, count=1))
    except lgb.basic.LightGBMError as error:
        raise BundleError(
            f"reranker.txt: expected a LightGBM model in text format, got {error}: write it with "
            "Booster.save_model(path)."
        ) from error
    expected = len(sizes[1].split()) if sizes else booster.num_trees()
    if booster.num_trees() != expected:
        raise BundleError(
            f"reranker.txt: expected {expected} trees, as its head says, got {booster.num_trees()}: the file is cut "
            "short; save it again with Booster.save_model(path)."
        )
    return booster
