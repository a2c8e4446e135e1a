"""Links: from a re-ranker's raw score, the sum of its trees, to the score that the recommender sends, and back.

``Booster.predict`` divides the raw score of a random forest by the number of trees, and then applies the inverse link
of the objective (LightGBM 4, ``src/objective``, ``ConvertOutput``). All of these functions rise with the raw score.
Scores are compared, and SHAP values are given, on the raw scale: there a click model that predicts one in a thousand
has as large a spread as any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from lightgbm import Booster

Doubles = npt.NDArray[np.float64]
Function = Callable[[Doubles], Doubles]

_SENT_PRECISION: Final = 2.0**-23
"""Relative precision of a score that was sent as float32."""


@dataclass(frozen=True, slots=True)
class Link:
    """How a raw score becomes the score that is sent.

    name: for people; forward: from float64 [n] to float64 [n]; inverse: the same backwards, infinite or NaN for a score
    that no raw score gives; trees: the raw score is divided by this number first; offset: and this number is added.
    """

    name: str
    forward: Function
    inverse: Function
    trees: int = 1
    offset: float = 0.0

    @classmethod
    def of(cls, booster: Booster, output: str, offset: float) -> Self | None:
        """Return the link of a model whose scores are sent as ``output``; None for an objective that is not known."""
        head = booster.model_to_string(num_iteration=1).split("\nTree=", 1)[0]
        trees = booster.num_trees() if output != "raw" and "\naverage_output" in head else 1
        objective = re.search(r"^objective=(.*)$", head, re.MULTILINE)
        if output == "raw" or objective is None:
            return cls("raw score", _same, _same, trees, offset)
        name, *options = objective[1].split()
        if name == "regression" and "sqrt" in options:
            name = "regression sqrt"
        functions = _LINKS.get(name)
        if name in _SIGMOID:
            steepness = next((float(each.partition(":")[2]) for each in options if each.startswith("sigmoid:")), 1.0)
            functions = ("sigmoid of the raw score", _sigmoid(steepness), _logit(steepness))
        return None if functions is None else cls(*functions, trees, offset)

    def score(self, raw: Doubles) -> Doubles:
        """Return the scores that are sent for raw scores float64 [n]: float64 [n]."""
        return self.forward(raw / self.trees + self.offset)

    def raw(self, score: Doubles) -> Doubles:
        """Return the raw scores of scores that were sent, float64 [n]: float64 [n], NaN where there is none."""
        with np.errstate(all="ignore"):
            raw = (self.inverse(score) - self.offset) * self.trees
        return np.where(np.isfinite(raw), raw, np.nan)

    def rounding(self, score: Doubles) -> Doubles:
        """Return how far the raw scores of scores that were sent as float32 may be off by rounding: float64 [n]."""
        step = np.abs(score) * _SENT_PRECISION
        with np.errstate(all="ignore"):
            low, high = self.raw(score - step), self.raw(score + step)
            # At the end of a scale (a probability of 1) one side has no raw score.
            raw = self.raw(score)
            return np.fmax(np.abs(high - raw), np.abs(raw - low))


def _same(values: Doubles) -> Doubles:
    return values


def _exp(values: Doubles) -> Doubles:
    return np.asarray(np.exp(values))


def _sigmoid(steepness: float) -> Function:
    return lambda raw: 1.0 / (1.0 + np.exp(-steepness * raw))


def _logit(steepness: float) -> Function:
    return lambda score: np.log(score / (1.0 - score)) / steepness


def _signed_square(raw: Doubles) -> Doubles:
    return np.sign(raw) * raw * raw


def _signed_root(score: Doubles) -> Doubles:
    return np.sign(score) * np.sqrt(np.abs(score))


def _softplus(raw: Doubles) -> Doubles:
    return np.log1p(np.exp(raw))


def _softplus_inverse(score: Doubles) -> Doubles:
    return np.log(np.expm1(score))


_SIGMOID: Final = frozenset({"binary", "cross_entropy"})
_IDENTITY: Final = (
    *("regression", "regression_l1", "huber", "fair", "quantile", "mape"),
    *("lambdarank", "rank_xendcg", "custom", "none"),
)
_LINKS: Final[dict[str, tuple[str, Function, Function]]] = {
    **dict.fromkeys(_IDENTITY, ("raw score", _same, _same)),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), ("exponential of the raw score", _exp, np.log)),
    "regression sqrt": ("square of the raw score", _signed_square, _signed_root),
    "cross_entropy_lambda": ("log(1 + exp(raw score))", _softplus, _softplus_inverse),
}
