"""Training of the selector on logged feedback, and its evaluation: calibration and off-policy value.

For each item with several types that hold, the log records the type shown, its propensity, and whether it helped. Users
are split into three groups: the first trains the trees, the second fits the calibration, the third is for evaluation.
The value of a policy that was not followed is estimated by the doubly robust estimator (Dudik, Langford and Li, ICML
2011), with 95 % confidence intervals clustered by user, since the items of one user are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.selector.features import FEATURES, rows
from models.selector.runtime import Selector, preferred, probabilities
from schemas.errors import WhyrecError

BINS: Final = 10


class TooLittleFeedback(WhyrecError):
    """There is not enough feedback to train a selector."""


@dataclass(frozen=True)
class Feedback:
    """Answers about N items, for each of which at least two types held.

    Attributes:
        context: float64 [N, len(CONTEXT)].
        holds: bool [N, len(TYPES)], the types that held.
        shown: int64 [N], the type shown, a position in TYPES.
        propensity: float64 [N], the probability with which that type was shown.
        helpful: bool [N], the answer.
        user: int64 [N], user numbers.

    """

    context: NDArray[np.float64]
    holds: NDArray[np.bool_]
    shown: NDArray[np.int64]
    propensity: NDArray[np.float64]
    helpful: NDArray[np.bool_]
    user: NDArray[np.int64]

    def of_users(self, users: NDArray[np.int64]) -> Feedback:
        """Select the answers of these users, int64 [u]."""
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
    """Estimated share of helpful explanations, and half the width of its 95 % confidence interval."""

    mean: float
    margin: float


@dataclass(frozen=True)
class Report:
    """Evaluation on the users of the third group.

    Attributes:
        answers: number of answers.
        users: number of users.
        ece: expected calibration error over BINS bins of equal size.
        reliability: mean predicted and mean observed value of each bin.
        learned: value of the selector's policy.
        fixed: value of the policy that shows the first type that holds.
        gain: difference of the two values, paired by answer.
        drivers: mean absolute SHAP value of each feature on the log-odds, largest first.

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
    """Train, calibrate and evaluate a selector; equal feedback and seeds give equal selectors.

    Raises:
        TooLittleFeedback: in one of the three groups of users all answers, or none, are helpful.

    """
    users = np.random.default_rng([seed, 29]).permutation(np.unique(feedback.user))
    training, calibration, test = (
        feedback.of_users(part) for part in np.split(users, [len(users) * 6 // 10, len(users) * 8 // 10])
    )
    for part in (training, calibration, test):
        if not part.helpful.any() or part.helpful.all():
            raise TooLittleFeedback(
                "expected helpful and unhelpful answers in each of three groups of users, got "
                f"{int(feedback.helpful.sum())} helpful of {len(feedback.helpful)} from {len(users)} users: bring "
                "more feedback"
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
        lgb.Dataset(rows(training.context, training.shown), training.helpful, feature_name=list(FEATURES)),
        num_boost_round=80,
    )
    raw = np.asarray(booster.predict(rows(calibration.context, calibration.shown), raw_score=True, num_threads=1))
    selector = Selector.of(booster.model_to_string(), platt(raw, calibration.helpful), exploration)
    return selector, evaluate(selector, test)


def platt(raw: NDArray[np.float64], helpful: NDArray[np.bool_]) -> tuple[float, float]:
    """Fit slope and intercept on the log-odds by Newton's method (Platt, 1999); the order of predictions is kept."""
    X = np.column_stack([raw, np.ones(len(raw))])
    weight = np.array([1.0, 0.0])
    for _ in range(25):
        probability = 1 / (1 + np.exp(-X @ weight))
        hessian = X.T @ (X * (probability * (1 - probability))[:, None]) + 1e-6 * np.eye(2)
        weight -= np.linalg.solve(hessian, X.T @ (probability - helpful))
    return float(weight[0]), float(weight[1])


def evaluate(selector: Selector, test: Feedback) -> Report:
    """Evaluate a selector on logged answers of users who were not in its training."""
    probability = probabilities(selector, test.context, test.holds)
    shown = probability[np.arange(len(probability)), test.shown]
    order = np.array_split(np.argsort(shown, kind="stable"), BINS)
    reliability = [(float(shown[part].mean()), float(test.helpful[part].mean())) for part in order if len(part)]
    sizes = [len(part) for part in order if len(part)]
    ece = float(np.average([abs(predicted - observed) for predicted, observed in reliability], weights=sizes))
    learned = _doubly_robust(probability, preferred(probability), test)
    fixed = _doubly_robust(probability, test.holds.argmax(axis=1), test)
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


def _doubly_robust(probability: NDArray[np.float64], choice: NDArray[np.int64], test: Feedback) -> NDArray[np.float64]:
    """Doubly robust value of a choice for each answer: the prediction, corrected where the choice was shown."""
    row = np.arange(len(choice))
    correction = (test.helpful - probability[row, test.shown]) / test.propensity
    return np.asarray(probability[row, choice] + (choice == test.shown) * correction)


def _drivers(selector: Selector, X: NDArray[np.float64]) -> list[tuple[str, float]]:
    size = np.abs(selector.contributions(X)[:, :-1]).mean(axis=0)
    return [(FEATURES[column], float(size[column])) for column in np.argsort(-size, kind="stable")]


def _value(each: NDArray[np.float64], user: NDArray[np.int64]) -> Value:
    """Mean, and 1.96 standard errors of the mean with one cluster per user."""
    mean = float(each.mean())
    _, cluster = np.unique(user, return_inverse=True)
    residuals = np.bincount(cluster, weights=each - mean)
    return Value(mean, 1.96 * float(np.sqrt((residuals**2).sum())) / len(each))
