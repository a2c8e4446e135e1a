"""The selector at serving time: trees, calibration and exploration rate, in two optional files of a bundle."""

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
"""Upper bound of the exploration rate."""


@dataclass(frozen=True)
class Selector:
    """Predicts the probability that an explanation of each type helps.

    Attributes:
        text: the trees in LightGBM's text format.
        booster: the trees.
        slope: factor of the calibration, which maps the trees' log-odds to calibrated log-odds.
        intercept: constant of the calibration.
        exploration: share of items for which the type is drawn at random among the types that hold.

    """

    text: str
    booster: lgb.Booster
    slope: float
    intercept: float
    exploration: float

    @classmethod
    def of(cls, text: str, calibration: tuple[float, float], exploration: float) -> Self:
        """Create a selector from the text of its trees, (slope, intercept) and the exploration rate.

        Raises:
            BundleError: the trees read other features, or the exploration rate is out of bounds.

        """
        booster = read_trees(text)
        if tuple(booster.feature_name()) != FEATURES:
            raise BundleError(f"{TREES}: expected the features {', '.join(FEATURES)}: train the selector again")
        if not 0 <= exploration <= MAX_EXPLORATION:
            raise BundleError(f"{SETTINGS}: expected exploration from 0 to {MAX_EXPLORATION}, got {exploration}")
        return cls(text, booster, *calibration, exploration)

    @classmethod
    def load(cls, bundle: Bundle) -> Self | None:
        """Open the bundle's selector; None if the bundle has no selector.

        Raises:
            BundleError: the files are no valid selector.

        """
        if not {TREES, SETTINGS} <= set(bundle.manifest.files):
            return None
        try:
            settings = json.loads((bundle.path / SETTINGS).read_bytes())
            calibration = float(settings["slope"]), float(settings["intercept"])
            exploration = float(settings["exploration"])
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{SETTINGS}: {type(error).__name__} {error}: train the selector again") from error
        return cls.of((bundle.path / TREES).read_text(encoding="utf-8"), calibration, exploration)

    @property
    def version(self) -> str:
        """The first 8 hexadecimal characters of the SHA-256 of trees, calibration and exploration rate."""
        return hashlib.sha256(b"".join(self.files().values())).hexdigest()[:8]

    def files(self) -> dict[str, bytes]:
        """Return the two files of the bundle by name."""
        settings = {"slope": self.slope, "intercept": self.intercept, "exploration": self.exploration}
        return {TREES: self.text.encode(), SETTINGS: (json.dumps(settings, indent=2) + "\n").encode()}

    def probability(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the calibrated probability of helping for rows float64 [n, len(FEATURES)]: float64 [n]."""
        if not len(X):
            return np.zeros(0)
        raw = np.asarray(self.booster.predict(X, raw_score=True, num_threads=1), dtype=np.float64)
        return np.asarray(1 / (1 + np.exp(-(self.slope * raw + self.intercept))))

    def contributions(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the SHAP values of the calibrated log-odds, float64 [n, len(FEATURES) + 1], the base value last."""
        shap = self.slope * TreeShap(self.booster).contributions(X)
        shap[:, -1] += self.intercept
        return shap


def probabilities(selector: Selector, context: NDArray[np.float64], holds: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Predict the probability that each type helps: float64 [n, len(TYPES)], -inf for a type that does not hold."""
    probability = np.full(holds.shape, -np.inf)
    item, kind = np.nonzero(holds)
    probability[item, kind] = selector.probability(rows(context[item], kind))
    return probability


def preferred(probability: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the type with the largest probability, the first of equals: int64 [n], positions in TYPES."""
    return np.asarray(probability.argmax(axis=1), dtype=np.int64)


def choose(
    selector: Selector, context: NDArray[np.float64], holds: NDArray[np.bool_], draw: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Choose a type that holds for each item: int64 [n], positions in TYPES, -1 if no type holds.

    draw, float64 [n] in [0, 1), decides where it is below the exploration rate; elsewhere the model decides.
    """
    choice = np.full(len(holds), -1, dtype=np.int64)
    some = np.flatnonzero(holds.any(axis=1))
    if not len(some):
        return choice
    held = holds[some]
    choice[some] = preferred(probabilities(selector, context[some], held))
    if selector.exploration > 0:
        explored = np.flatnonzero(draw[some] < selector.exploration)
        # A draw below the exploration rate is uniform in [0, rate), so that it can also select the type.
        nth = (draw[some][explored] / selector.exploration * held[explored].sum(axis=1)).astype(np.int64)
        choice[some[explored]] = (np.cumsum(held[explored], axis=1) <= nth[:, None]).sum(axis=1)
    return choice
