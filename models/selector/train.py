"""Training of the selector on logged feedback, and what it is worth: calibration, and off-policy value.

The log says, for items of which several types hold, which type was shown, how likely it was to be shown, and whether it
helped. Users are parted in three: trees learn from the first, the calibration from the second, all figures are of the
third. The value of a policy that was not followed is estimated doubly robustly (Dudik, Langford and Li, ICML 2011),
with 95 % intervals from the spread over users, since the items of one user are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.selector.features import FEATURES, rows
from models.selector.runtime import Selector, preferred, scores
from schemas.errors import WhyrecError

BINS: Final = 10


class TooLittleFeedback(WhyrecError):
    """There is not enough feedback to train a selector on."""


@dataclass(frozen=True)
class Feedback:
    """What was answered about N items of which two types or more held.

    context float64 [N, len(CONTEXT)]; holds bool [N, len(TYPES)]; shown int64 [N], the type shown; propensity float64
    [N], how likely that was; helpful bool [N]; user int64 [N].
    """

    context: NDArray[np.float64]
    holds: NDArray[np.bool_]
    shown: NDArray[np.int64]
    propensity: NDArray[np.float64]
    helpful: NDArray[np.bool_]
    user: NDArray[np.int64]

    def of(self, users: NDArray[np.int64]) -> Feedback:
        """Select the answers of some users."""
        kept = np.isin(self.user, users)
        return Feedback(
            self.context[kept],
            self.holds[kept],
            self.shown[kept],
            self.propensity[kept],
            self.helpful[kept],
            self.user[kept],
        )


@dataclass(frozen=True)
class Value:
    """Estimated share of explanations that help, and half the width of its 95 % interval."""

    mean: float
    margin: float


@dataclass(frozen=True)
class Report:
    """Of users that nothing was learned from.

    ece: expected calibration error, over ten bins of equal size; reliability: of each bin, what was predicted and what
    came; learned, fixed: values of the two policies; gain: of the first over the second, paired; drivers: mean absolute
    SHAP value of each feature on the log-odds, largest first.
    """

    answers: int
    users: int
    ece: float
    reliability: list[tuple[float, float]]
    learned: Value
    fixed: Value
    gain: Value
    drivers: list[tuple[str, float]]


def train(feedback: Feedback, *, seed: int = 0, exploration: float = 0.0) -> tuple[Selector, Report]:
    """Train, calibrate and evaluate; the same feedback and seed give the same selector.

    Raises:
        TooLittleFeedback: one of the three groups of users has no answer of either sort.

    """
    users = np.random.default_rng([seed, 29]).permutation(np.unique(feedback.user))
    learn, tune, test = (feedback.of(part) for part in np.split(users, [len(users) * 6 // 10, len(users) * 8 // 10]))
    for part in (learn, tune, test):
        if not part.helpful.any() or part.helpful.all():
            raise TooLittleFeedback(
                f"expected helpful answers and others in three groups of users, got {int(feedback.helpful.sum())} "
                f"helpful of {len(feedback.helpful)} from {len(users)} users: bring more feedback"
            )
    booster = lgb.train(
        {
            "objective": "binary",
            "learning_rate": 0.05,
            "num_leaves": 8,
            "min_data_in_leaf": 100,
            "lambda_l2": 5.0,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "seed": seed,
            "verbosity": -1,
        },
        lgb.Dataset(rows(learn.context, learn.shown), learn.helpful, feature_name=list(FEATURES)),
        num_boost_round=80,
    )
    raw = np.asarray(booster.predict(rows(tune.context, tune.shown), raw_score=True, num_threads=1))
    selector = Selector.of(booster.model_to_string(), platt(raw, tune.helpful), exploration)
    return selector, evaluate(selector, test)


def platt(raw: NDArray[np.float64], helpful: NDArray[np.bool_]) -> tuple[float, float]:
    """Fit slope and intercept of the log-odds by Newton's method (Platt 1999): monotone, so no choice changes."""
    X = np.column_stack([raw, np.ones(len(raw))])
    weight = np.array([1.0, 0.0])
    for _ in range(25):
        chance = 1 / (1 + np.exp(-X @ weight))
        curvature = X.T @ (X * (chance * (1 - chance))[:, None]) + 1e-6 * np.eye(2)
        weight -= np.linalg.solve(curvature, X.T @ (chance - helpful))
    return float(weight[0]), float(weight[1])


def evaluate(selector: Selector, test: Feedback) -> Report:
    """Measure a selector on logged answers of users it does not know."""
    chance = scores(selector, test.context, test.holds)
    shown = chance[np.arange(len(chance)), test.shown]
    order = np.array_split(np.argsort(shown, kind="stable"), BINS)
    reliability = [(float(shown[part].mean()), float(test.helpful[part].mean())) for part in order if len(part)]
    sizes = [len(part) for part in order if len(part)]
    ece = float(np.average([abs(said - came) for said, came in reliability], weights=sizes))
    learned = _doubly_robust(chance, preferred(chance), test)
    fixed = _doubly_robust(chance, test.holds.argmax(axis=1), test)
    return Report(
        answers=len(shown),
        users=len(np.unique(test.user)),
        ece=ece,
        reliability=reliability,
        learned=_value(learned, test.user),
        fixed=_value(fixed, test.user),
        gain=_value(learned - fixed, test.user),
        drivers=_drivers(selector, rows(test.context, test.shown)),
    )


def _doubly_robust(chance: NDArray[np.float64], choice: NDArray[np.int64], test: Feedback) -> NDArray[np.float64]:
    """Value of a choice for each answer: what is predicted, corrected where the choice is what was shown."""
    place = np.arange(len(choice))
    correction = (test.helpful - chance[place, test.shown]) / test.propensity
    return np.asarray(chance[place, choice] + (choice == test.shown) * correction)


def _drivers(selector: Selector, X: NDArray[np.float64]) -> list[tuple[str, float]]:
    size = np.abs(selector.contributions(X)[:, :-1]).mean(axis=0)
    return [(FEATURES[column], float(size[column])) for column in np.argsort(-size, kind="stable")]


def _value(each: NDArray[np.float64], user: NDArray[np.int64]) -> Value:
    """Mean, and 1.96 standard errors of it with one cluster per user."""
    mean = float(each.mean())
    _, which = np.unique(user, return_inverse=True)
    residuals = np.bincount(which, weights=each - mean)
    return Value(mean, 1.96 * float(np.sqrt((residuals**2).sum())) / len(each))
