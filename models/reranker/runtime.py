"""The re-ranker as it is served: its trees on one thread, the same score for the same row wherever it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.errors import BundleError
from models.reranker.forest import Trees

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

    def self_check(self, rows: NDArray[np.float64]) -> None:
        """Compile, and compare with LightGBM's own scores of rows float64 [n, F]; raises BundleError if any differs."""
        expected = np.asarray(self.booster.predict(rows, raw_score=True, num_threads=1), dtype=np.float64)
        worst = float(np.abs(self.raw(rows) - expected).max(initial=0.0))
        if worst > 0:
            raise BundleError(
                f"re-ranker: expected LightGBM's own scores, got a difference of {worst:g}: do not serve explanations "
                "of this model, and report it."
            )

    def _predict(self, X: NDArray[np.float64], *, raw: bool) -> NDArray[np.float64]:
        if X.ndim != 2 or X.shape[1] != self.width:
            raise BundleError(
                f"re-ranker: expected rows of {self.width} features, got an array of shape {list(X.shape)}: put user "
                "features, item features and session_score side by side, in the order of features.json."
            )
        if len(X) == 0:
            return np.zeros(0)
        if raw and self.trees is not None:
            return self.trees.raw(np.asarray(X, dtype=np.float64))
        return np.asarray(self.booster.predict(X, raw_score=raw, num_threads=1), dtype=np.float64)


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
