"""Exact TreeSHAP of LightGBM models, fast enough to explain every score. The mathematics: ``treeshap.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.attribution.treeshap.kernel import contribute
from models.attribution.treeshap.program import compile_forest
from models.compiled import empty
from models.trees.model import UnsupportedModel, parse
from schemas.errors import WhyrecError

if TYPE_CHECKING:
    from lightgbm import Booster

__all__ = ["ContributionMismatch", "InvalidRows", "TreeShap", "UnsupportedModel"]

Float64s = npt.NDArray[np.float64]

_SINGLE, _NARROW, _WIDE = np.dtype(np.uint8), np.dtype(np.uint32), np.dtype(np.uint64)
_NARROW_ROWS, _WIDE_ROWS = 32, 64
_FEW = 3  # rows: up to here one row after the other is faster than a block


class InvalidRows(WhyrecError):
    """Rows that do not fit the model."""


class ContributionMismatch(WhyrecError):
    """The kernel and LightGBM disagree about a contribution."""


class TreeShap:
    """Contributions of each feature to the raw score of a LightGBM model (Booster), path-dependent and exact.

    Equal to ``booster.predict(X, pred_contrib=True)`` up to float32 rounding within single trees; sums over trees are
    float64. As there, contributions add up to the raw score, which for a random forest is the sum over its trees.
    Raises ``UnsupportedModel`` for linear trees and for leaves without training rows. Calls are independent of each
    other; the work is done without the GIL in the calling thread.
    """

    def __init__(self, booster: Booster) -> None:
        forest = parse(booster.model_to_string())
        self._booster = booster
        self._features, self._classes = forest.features, forest.classes
        self._program = compile_forest(forest)

    @property
    def table_bytes(self) -> int:
        """Bytes of the tables that the kernel reads."""
        return self._program.nbytes

    def contributions(self, X: Float64s, *, same_bits: bool = False) -> Float64s:
        """Return ``float64 [n, features + 1]`` for ``X`` ``float64 [n, features]``, the expected value last.

        A model of K > 1 classes gives ``float64 [n, (features + 1) * K]``, one such block per class. NaN is a missing
        value. With ``same_bits`` a row gives the same bits in any company; without it, up to three rows that fill no
        block are quicker, and their last bits may differ. Raises ``InvalidRows`` if ``X`` has another number of
        columns, dtype or dimension.
        """
        self._check(X)
        if not (X.flags.c_contiguous and X.flags.writeable):
            X = np.array(X, order="C")  # one layout for the kernel, so that it is compiled once
        out = np.zeros((len(X), (self._features + 1) * self._classes))
        out[:, self._features :: self._features + 1] = self._program.base
        whole = len(X) // _WIDE_ROWS * _WIDE_ROWS
        if len(X) - whole > _NARROW_ROWS:
            whole = len(X)
        if whole:
            self._run(X[:whole], out[:whole], _WIDE)
        if whole < len(X):
            single = len(X) - whole <= _FEW and not same_bits
            self._run(X[whole:], out[whole:], _SINGLE if single else _NARROW)
        return out

    def warm_up(self) -> None:
        """Compile the kernel, or load it from numba's cache: seconds once on a machine, then milliseconds."""
        for rows in (1, _NARROW_ROWS, _WIDE_ROWS):
            self.contributions(np.zeros((rows, self._features)))

    def self_check(self, rows: Float64s, tolerance: float = 1e-6) -> float:
        """Compare with LightGBM's own contributions of ``rows`` and return the largest difference found.

        Rows are taken one at a time, in narrow and in wide blocks. Raises ``ContributionMismatch`` if a difference
        exceeds ``tolerance`` times the spread of the raw scores, or times the largest contribution if that is more.
        """
        self._check(rows)
        if not len(rows):
            return 0.0
        expected = np.asarray(self._booster.predict(rows, pred_contrib=True, num_threads=1), dtype=np.float64)
        parts = [slice(begin, begin + 1) for begin in range(min(len(rows), _FEW))]
        parts += [slice(0, _NARROW_ROWS), slice(0, len(rows))]
        worst = max(float(np.abs(self.contributions(rows[part]) - expected[part]).max(initial=0.0)) for part in parts)
        classes = expected.reshape(len(rows), self._classes, self._features + 1)
        spread = np.ptp(classes.sum(axis=2), axis=0).max()
        scale = max(spread, np.abs(classes[:, :, :-1]).max(initial=0.0))
        rounding = 1e-12 * np.abs(expected).max(initial=0.0)
        if not worst <= tolerance * scale + rounding:
            raise ContributionMismatch(
                f"expected contributions within {tolerance:g} of LightGBM's own, relative to a scale of {scale:g}, got "
                f"a difference of {worst:g}; do not serve explanations of this model, and report it"
            )
        return worst

    def _run(self, X: Float64s, out: Float64s, shape: np.dtype[np.generic]) -> None:
        contribute(X, out, self._program.tables, empty(2 * self._program.largest + 1, shape))

    def _check(self, X: Float64s) -> None:
        if not isinstance(X, np.ndarray) or X.ndim != 2 or X.dtype != np.float64:
            got = f"{X.ndim}-D {X.dtype}" if isinstance(X, np.ndarray) else type(X).__name__
            raise InvalidRows(f"expected rows as a 2-D float64 array, got {got}; use np.asarray(X, dtype=np.float64)")
        if X.shape[1] != self._features:
            raise InvalidRows(
                f"expected {self._features} columns, as the model was trained on, got {X.shape[1]}; "
                "check the feature list against the bundle's features.json"
            )
