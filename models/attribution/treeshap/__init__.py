"""Exact TreeSHAP contributions of a LightGBM model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from lightgbm import Booster


class TreeShap:
    """Contributions of each feature to the raw score of a LightGBM model."""

    def __init__(self, booster: Booster) -> None:
        self._booster = booster

    def contributions(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return ``float64 [n, features + 1]`` for ``X`` ``float64 [n, features]``; last column: expected value."""
        result = self._booster.predict(X, pred_contrib=True, num_threads=1)
        return np.asarray(result, dtype=np.float64)
