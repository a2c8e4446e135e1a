"""The re-ranker at serving time. It runs on one thread, so that a row has the same score on every machine."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.errors import BundleError
from models.reranker.link import Link
from models.trees.forest import Trees

_TREE_SIZES = re.compile(r"^tree_sizes=(.*)\n", re.MULTILINE)


@dataclass(frozen=True)
class Reranker:
    """Scores rows of features, which stand in the order of the bundle's features.json.

    booster: the model as LightGBM reads it. trees: computes LightGBM's raw scores, bit for bit, in a fraction of the
    time; None for a model that only LightGBM can score. link: from raw scores to the scores that are sent. width: the
    number of features; session_column: which of them is the session model's score, None if the trees do not read it.
    """

    booster: lgb.Booster
    trees: Trees | None
    link: Link
    width: int
    session_column: int | None

    @classmethod
    def load(cls, bundle: Bundle) -> Reranker:
        """Read the re-ranker of a bundle that has one.

        Raises BundleError if LightGBM cannot read the model, or if the model is none that ranks by one score per item.
        """
        booster = read_trees(bundle.reranker_text.read_text(encoding="utf-8"))
        if booster.num_feature() != len(bundle.features):
            raise BundleError(
                f"reranker.txt: expected {len(bundle.features)} features as in features.json, got "
                f"{booster.num_feature()}: train the re-ranker on the listed features."
            )
        classes = booster.num_model_per_iteration()
        if classes != 1:
            raise BundleError(
                f"reranker.txt: expected one score per item, got a model of {classes} classes: an explanation "
                "needs the one score that the slate is ordered by; train with another objective."
            )
        if booster.num_trees() == 0:
            raise BundleError(
                "reranker.txt: expected trees, got a model without any: its scores are all the same; train it for at "
                "least one round, or write the bundle without a re-ranker."
            )
        manifest = bundle.manifest
        output = manifest.reranker_output or "raw"
        link = Link.of(booster, output, manifest.reranker_offset)
        if link is None:
            raise BundleError(
                f"reranker.txt: expected an objective whose {output} can be computed from the raw score, got another: "
                'send raw scores (predict(..., raw_score=True)) and set reranker_output to "raw".'
            )
        return cls(booster, Trees.of(booster), link, len(bundle.features), bundle.session_column)

    @cached_property
    def reads_session_score(self) -> bool:
        """Whether any tree splits on the session model's score."""
        return self.session_column is not None and bool(self.booster.feature_importance()[self.session_column])

    def score(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score rows ``X`` float64 [n, F] on the scale of the events' scores: float64 [n]."""
        return self.link.score(self.raw(X))

    def raw(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the raw scores of rows ``X`` float64 [n, F], float64 [n]. SHAP values add up to the raw score."""
        self._check(X)
        if len(X) == 0:
            return np.zeros(0)
        if self.trees is not None:
            return self.trees.raw(np.asarray(X, dtype=np.float64))
        return np.asarray(self.booster.predict(X, raw_score=True, num_threads=1), dtype=np.float64)

    def rescorer(self, X: NDArray[np.float64]) -> Rescorer:
        """Prepare to score rows ``X`` float64 [n, F] with other session scores. The caller must not change the rows."""
        self._check(X)
        return Rescorer(self, X)

    def self_check(self, rows: NDArray[np.float64]) -> None:
        """Compile the kernels and compare their scores of rows float64 [n, F] with LightGBM's own.

        The rows are scored twice: as they are, and through :meth:`rescorer` with their session scores in reverse order.
        Raises BundleError if any raw score differs, or a score that is sent by more than float64 rounding.
        """
        every, changed = np.arange(len(rows)), rows.copy()
        if self.session_column is not None:
            changed[:, self.session_column] = rows[::-1, self.session_column]
        expected = np.asarray(self.booster.predict(rows, raw_score=True, num_threads=1), dtype=np.float64)
        rescored = np.asarray(self.booster.predict(changed, raw_score=True, num_threads=1), dtype=np.float64)
        session_score = rows[::-1, self.session_column or 0]
        difference = [self.raw(rows) - expected, self.rescorer(rows).raw(every, session_score) - rescored]
        worst = float(np.abs(difference).max(initial=0.0))
        if worst > 0:
            raise BundleError(
                f"re-ranker: expected LightGBM's own scores, got a difference of {worst:g}: do not serve explanations "
                "of this model, and report this defect."
            )
        if self.link.name == "raw score" and self.link.trees == 1:
            return
        predicted = np.asarray(self.booster.predict(rows, num_threads=1), dtype=np.float64)
        sent = replace(self.link, offset=0.0).score(expected)
        if not np.allclose(sent, predicted, rtol=1e-9, atol=1e-12):
            raise BundleError(
                f"re-ranker: expected the {self.link.name} to be what LightGBM predicts, got a difference of "
                f"{np.abs(sent - predicted).max():g}: send raw scores, and report this defect."
            )

    def _check(self, X: NDArray[np.float64]) -> None:
        if X.ndim != 2 or X.shape[1] != self.width:
            raise BundleError(
                f"re-ranker: expected rows of {self.width} features, got an array of shape {list(X.shape)}: arrange "
                "the features as columns, in the order of features.json."
            )


class Rescores(Protocol):
    """Scores items with other session scores."""

    def raw(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the raw scores of rows int64 [m] with session scores float64 [m]: float64 [m]."""

    def changed(
        self,
        row: NDArray[np.int64],
        session_score: NDArray[np.float64],
        columns: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the scores that are sent, of rows int64 [m] with other session scores and features float64 [m, K]."""

    def sent(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores that are sent for raw scores, float64 [m]."""

    def score(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores that are sent, of rows int64 [m] with session scores float64 [m]: float64 [m]."""


class SessionRanking:
    """Stands for the re-ranker where there is none: the session scores order the slate."""

    def raw(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - as in Rescores
        """Return the session scores float64 [m]."""
        return session_score

    def changed(
        self,
        row: NDArray[np.int64],  # noqa: ARG002 - as in Rescores
        session_score: NDArray[np.float64],
        columns: NDArray[np.int64],  # noqa: ARG002 - as in Rescores
        values: NDArray[np.float64],  # noqa: ARG002 - as in Rescores
    ) -> NDArray[np.float64]:
        """Return the session scores float64 [m]."""
        return session_score

    def sent(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the session scores float64 [m]."""
        return raw

    def score(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - as in Rescores
        """Return the session scores float64 [m]."""
        return session_score


class Rescorer:
    """Scores rows with other session scores, bit for bit as the re-ranker scores the changed rows.

    Raw scores come from cached leaves where possible (``Trees.cache_rows``), so that the trees are evaluated once per
    row, however many session scores follow. Otherwise the changed rows are scored from the start. A session score that
    the trees do not read changes nothing.
    """

    def __init__(self, reranker: Reranker, X: NDArray[np.float64]) -> None:
        self._reranker, self._X = reranker, X
        trees, column = reranker.trees, reranker.session_column
        self._cached = None if trees is None or column is None else trees.cache_rows(X, column)

    def score(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score rows int64 [m] with session scores float64 [m], on the scale of ``Reranker.score``: float64 [m]."""
        return self.sent(self.raw(row, session_score))

    def sent(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores that are sent for raw scores, float64 [m]."""
        return self._reranker.link.score(raw)

    def raw(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the raw scores of rows int64 [m] with session scores float64 [m]: float64 [m]."""
        if self._cached is not None:
            return self._cached.raw(row, session_score)
        return self._reranker.raw(self._with(row, session_score))

    def changed(
        self,
        row: NDArray[np.int64],
        session_score: NDArray[np.float64],
        columns: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the scores that are sent, of rows int64 [m] with other session scores and features float64 [m, K]."""
        X = self._with(row, session_score)
        X[:, columns] = values
        return self._reranker.score(X)

    def _with(self, row: NDArray[np.int64], session_score: NDArray[np.float64]) -> NDArray[np.float64]:
        X = self._X[row]
        if self._reranker.session_column is not None:
            X[:, self._reranker.session_column] = session_score
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
