"""The re-ranker at serving time. It runs on one thread, so that a row has the same score on every machine."""

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
    """Scores rows of features, which stand in the order of the bundle's features.json.

    booster: the model as LightGBM reads it. trees: computes LightGBM's raw scores, bit for bit, in a fraction of the
    time; None for a model that only LightGBM can score. output: what the events' scores are, "raw" or "probability".
    width: the number of features.
    """

    booster: lgb.Booster
    trees: Trees | None
    output: str
    width: int

    @classmethod
    def load(cls, bundle: Bundle) -> Reranker:
        """Read the re-ranker of a bundle.

        Raises BundleError if LightGBM cannot read the model, or if its number of features is not that of features.json.
        """
        booster = read_trees(bundle.reranker_text.read_text(encoding="utf-8"))
        if booster.num_feature() != len(bundle.features):
            raise BundleError(
                f"reranker.txt: expected {len(bundle.features)} features as in features.json, got "
                f"{booster.num_feature()}: train the re-ranker on the listed features."
            )
        return cls(booster, Trees.of(booster), bundle.manifest.reranker_output, len(bundle.features))

    def score(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score rows ``X`` float64 [n, F] on the scale of the events' scores, raw or probability: float64 [n]."""
        return self._predict(X, raw=self.output == "raw")

    def raw(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the raw scores of rows ``X`` float64 [n, F], float64 [n]. SHAP values add up to the raw score."""
        return self._predict(X, raw=True)

    def rescorer(self, X: NDArray[np.float64]) -> Rescorer:
        """Prepare to score rows ``X`` float64 [n, F] with other session scores. The caller must not change the rows."""
        self._check(X)
        return Rescorer(self, X)

    def self_check(self, rows: NDArray[np.float64]) -> None:
        """Compile the kernels and compare their raw scores of rows float64 [n, F] with LightGBM's own.

        The rows are scored twice: as they are, and through :meth:`rescorer` with their session scores in reverse order.
        Raises BundleError if any score differs.
        """
        every, changed = np.arange(len(rows)), rows.copy()
        changed[:, -1] = rows[::-1, -1]
        expected = np.asarray(self.booster.predict(rows, raw_score=True, num_threads=1), dtype=np.float64)
        rescored = np.asarray(self.booster.predict(changed, raw_score=True, num_threads=1), dtype=np.float64)
        difference = [self.raw(rows) - expected, self.rescorer(rows).raw(every, changed[:, -1]) - rescored]
        worst = float(np.abs(difference).max(initial=0.0))
        if worst > 0:
            raise BundleError(
                f"re-ranker: expected LightGBM's own scores, got a difference of {worst:g}: do not serve explanations "
                "of this model, and report this defect."
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
                f"re-ranker: expected rows of {self.width} features, got an array of shape {list(X.shape)}: arrange "
                "user features, item features and session_score as columns, in the order of features.json."
            )


class Rescorer:
    """Scores rows with other session scores, bit for bit as the re-ranker scores the changed rows.

    Raw scores come from cached leaves where possible (``Trees.cache_rows``), so that the trees are evaluated once per
    row, however many session scores follow. Otherwise the changed rows are scored from the start; so are probabilities,
    which LightGBM computes.
    """

    def __init__(self, reranker: Reranker, X: NDArray[np.float64]) -> None:
        self._reranker, self._X = reranker, X
        self._cached = None if reranker.trees is None else reranker.trees.cache_rows(X, reranker.width - 1)

    def score(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score rows int64 [m] with session scores float64 [m], on the scale of ``Reranker.score``: float64 [m]."""
        if self._reranker.output == "raw":
            return self.raw(row, session_score)
        return self._reranker.score(self._changed(row, session_score))

    def raw(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the raw scores of rows int64 [m] with session scores float64 [m]: float64 [m]."""
        if self._cached is not None:
            return self._cached.raw(row, session_score)
        return self._reranker.raw(self._changed(row, session_score))

    def _changed(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        X = self._X[row]
        X[:, -1] = session_score
        return X


def read_trees(text: str) -> lgb.Booster:
    """Read a LightGBM model from its text format.

    Raises BundleError if the text is not a model, or is cut short.

    If the text has the line ``tree_sizes``, LightGBM reads the trees in parallel and terminates the process at a
    damaged tree. Without that line LightGBM reads them one after the other and raises an error. So the line is removed.
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
            f"reranker.txt: expected {expected} trees, as its header says, got {booster.num_trees()}: the file is cut "
            "short; save it again with Booster.save_model(path)."
        )
    return booster
