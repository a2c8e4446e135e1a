"""The selector as it is served: trees, a calibration, and how much it may explore; two optional files of a bundle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.attribution.treeshap import TreeShap
from models.bundle import Bundle
from models.errors import BundleError
from models.reranker.runtime import read_trees
from models.selector.features import FEATURES, rows

TREES: Final = "selector.txt"
SETTINGS: Final = "selector.json"

MAX_EXPLORATION: Final = 0.1
"""No selector explores in more than this share of items."""


@dataclass(frozen=True)
class Selector:
    """Predicts how likely each type is to help.

    slope and intercept turn the trees' log-odds into calibrated ones; exploration is the share of items for which the
    type is drawn at random among those that hold.
    """

    text: str
    booster: lgb.Booster
    slope: float
    intercept: float
    exploration: float

    @classmethod
    def of(cls, text: str, calibration: tuple[float, float], exploration: float) -> Self:
        """Put the parts together.

        Raises:
            BundleError: the trees read other features, or exploration is out of bounds.

        """
        booster = read_trees(text)
        if tuple(booster.feature_name()) != FEATURES:
            raise BundleError(f"{TREES}: expected the features {', '.join(FEATURES)}: train the selector again")
        if not 0 <= exploration <= MAX_EXPLORATION:
            raise BundleError(f"{SETTINGS}: expected exploration from 0 to {MAX_EXPLORATION}, got {exploration}")
        return cls(text, booster, *calibration, exploration)

    @classmethod
    def load(cls, bundle: Bundle) -> Self | None:
        """Open the bundle's selector, or None where it has none.

        Raises:
            BundleError: it is none.

        """
        if not {TREES, SETTINGS} <= set(bundle.manifest.files):
            return None
        try:
            said = json.loads((bundle.path / SETTINGS).read_bytes())
            calibration = float(said["slope"]), float(said["intercept"])
            exploration = float(said["exploration"])
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{SETTINGS}: {type(error).__name__} {error}: train the selector again") from error
        return cls.of((bundle.path / TREES).read_text(encoding="utf-8"), calibration, exploration)

    @property
    def version(self) -> str:
        """Eight hexadecimal characters that pin trees, calibration and exploration."""
        return hashlib.sha256(b"".join(self.files().values())).hexdigest()[:8]

    def files(self) -> dict[str, bytes]:
        """Give the two files of the bundle."""
        said = {"slope": self.slope, "intercept": self.intercept, "exploration": self.exploration}
        return {TREES: self.text.encode(), SETTINGS: (json.dumps(said, indent=2) + "\n").encode()}

    def chance(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the calibrated chance of helping for rows float64 [n, len(FEATURES)]: float64 [n]."""
        if not len(X):
            return np.zeros(0)
        raw = np.asarray(self.booster.predict(X, raw_score=True, num_threads=1), dtype=np.float64)
        return np.asarray(1 / (1 + np.exp(-(self.slope * raw + self.intercept))))

    def contributions(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take calibrated log-odds apart, exactly: float64 [n, len(FEATURES) + 1], what no feature explains last."""
        shap = self.slope * TreeShap(self.booster).contributions(X)
        shap[:, -1] += self.intercept
        return shap


def scores(selector: Selector, context: NDArray[np.float64], holds: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Predict every type that holds: float64 [n, len(TYPES)], minus infinity for those that do not."""
    chance = np.full(holds.shape, -np.inf)
    item, kind = np.nonzero(holds)
    chance[item, kind] = selector.chance(rows(context[item], kind))
    return chance


def preferred(chance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Choose the type most likely to help, the first of equals: int64 [n]."""
    return np.asarray(chance.argmax(axis=1), dtype=np.int64)


def choose(
    selector: Selector, context: NDArray[np.float64], holds: NDArray[np.bool_], draw: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Choose a type that holds for each item: int64 [n], places in TYPES, -1 where none holds.

    draw is float64 [n] in [0, 1): below the selector's exploration, it decides; else the model does.
    """
    choice = np.full(len(holds), -1, dtype=np.int64)
    some = np.flatnonzero(holds.any(axis=1))
    if not len(some):
        return choice
    held = holds[some]
    choice[some] = preferred(scores(selector, context[some], held))
    if selector.exploration > 0:
        explored = np.flatnonzero(draw[some] < selector.exploration)
        # A draw below the bound is itself uniform below it: its place there picks the type.
        nth = (draw[some][explored] / selector.exploration * held[explored].sum(axis=1)).astype(np.int64)
        choice[some[explored]] = (np.cumsum(held[explored], axis=1) <= nth[:, None]).sum(axis=1)
    return choice
