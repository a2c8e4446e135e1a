"""Training of the re-ranker: gradient-boosted trees that predict whether the user soon engages with a candidate.

The objective is binary classification, not a ranking loss. The raw score is then a log-odds, so that a SHAP value has
the same meaning in every slate, and slates without any engagement contribute to the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.data.sessions import Sessions
from models.feature import Feature
from models.reranker.candidates import Encode, top_unseen
from models.reranker.features import ENGAGED, FEATURE_SET, FEATURES, Moments, compute, matrix
from models.reranker.itemlog import ItemLog
from schemas.errors import WhyrecError

LENGTH = 50
MIN_HISTORY = 4
LABEL_EVENTS = 5  # a candidate is positive if the user likes, completes or shares it within this many next events
# Monotonicity constraints: +1 the score increases with the feature, -1 it decreases. Otherwise an explanation could
# state that a good completion rate lowered the score.
MONOTONE = {
    "session_score": 1,
    "category_share": 1,
    "recent_category_share": 1,
    "category_engaged_rate": 1,
    "category_skip_rate": -1,
    "category_lift": 1,
    "completion_rate": 1,
    "like_rate": 1,
    "share_rate": 1,
    "skip_rate": -1,
    "follow_rate": 1,
    "follow_last_rate": 1,
    "follow_engaged_rate": 1,
}


class TooFewInteractions(WhyrecError):
    """The log has too few engagements to train a re-ranker."""


@dataclass(frozen=True)
class Trained:
    """A trained re-ranker, ready for a bundle; its output is "raw".

    Attributes:
        model_text: the trees in LightGBM's text format.
        features: their inputs in order.
        feature_set: name of the feature list.
        metrics: measured on held-out users. `auc` and `auc_session_score` over all candidates, `ndcg10` and
            `ndcg10_session_score` over the slates with an engagement (those named session_score rank by the session
            score alone); `engaged_share`, the share of positive candidates; the numbers `slates`, `test_slates` and
            `trees`.

    """

    model_text: str
    features: tuple[Feature, ...]
    feature_set: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Examples:
    """S slates of N candidates: feature rows float64 [S * N, 41], labels and session scores [S, N]."""

    rows: NDArray[np.float64]
    engaged: NDArray[np.bool_]
    session_score: NDArray[np.float32]


def train(
    sessions: Sessions,
    encode: Encode,
    item_vectors: NDArray[np.float32],
    *,
    log: Sessions | None = None,
    seed: int = 0,
    slates_per_history: int = 2,
    slate_size: int = 20,
    trees: int = 200,
    leaves: int = 31,
    parameters: Mapping[str, float | bool] | None = None,
) -> Trained:
    """Train on slates made at random moments of the histories.

    Args:
        sessions: histories on which the session model was *not* trained, since its scores of its training data are too
            good. 70 % of the users are for training, 15 % for early stopping, 15 % for evaluation.
        encode: the session model.
        item_vectors: float32 [n + 1, d].
        log: the histories from which item statistics are computed, by default `sessions`.
        seed: of the moments, the split and the trees; equal seeds give equal models.
        slates_per_history: number of moments per history.
        slate_size: number of candidates per slate.
        trees: maximum number of trees; training stops early if the loss on the second group does not improve.
        leaves: maximum number of leaves per tree.
        parameters: LightGBM parameters that replace the defaults chosen here.

    Raises:
        TooFewInteractions: a group of users has no slates, or no positive candidates, or no negative ones.

    """
    item_log = ItemLog.of(sessions if log is None else log)
    groups = [
        sample_slates(
            part,
            encode,
            item_vectors,
            item_log,
            seed=seed + number,
            slates_per_history=slates_per_history,
            slate_size=slate_size,
        )
        for number, part in enumerate(sessions.split(0.7, 0.15, 0.15, seed=seed))
    ]
    for group, purpose in zip(groups, ("training", "early stopping", "evaluation"), strict=True):
        if not group.engaged.any() or group.engaged.all():
            raise TooFewInteractions(
                f"expected positive and negative candidates for {purpose}, got {int(group.engaged.sum())} engaged "
                f"of {group.engaged.size} from {len(sessions)} histories: bring more histories, or make more slates of "
                "each"
            )
    training, stopping, test = groups
    names = [feature.name for feature in FEATURES]
    data = lgb.Dataset(training.rows, training.engaged.ravel(), feature_name=names)
    booster = lgb.train(
        {
            "objective": "binary",
            "metric": "binary_logloss",
            "learning_rate": 0.05,
            "num_leaves": leaves,
            "min_data_in_leaf": 50,
            "lambda_l2": 5.0,
            "feature_fraction": 0.7,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "monotone_constraints": [MONOTONE.get(name, 0) for name in names],
            "monotone_constraints_method": "intermediate",
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "seed": seed,
            "verbosity": -1,
            **(parameters or {}),
        },
        data,
        num_boost_round=trees,
        valid_sets=[lgb.Dataset(stopping.rows, stopping.engaged.ravel(), reference=data)],
        callbacks=[lgb.early_stopping(30, verbose=False)],
    )
    scores = np.asarray(booster.predict(test.rows, raw_score=True, num_threads=1)).reshape(test.engaged.shape)
    return Trained(
        model_text=booster.model_to_string(num_iteration=booster.best_iteration),
        features=FEATURES,
        feature_set=FEATURE_SET,
        metrics={
            "auc": auc(scores, test.engaged),
            "auc_session_score": auc(test.session_score, test.engaged),
            "ndcg10": ndcg(scores, test.engaged),
            "ndcg10_session_score": ndcg(test.session_score, test.engaged),
            "engaged_share": float(test.engaged.mean()),
            "slates": float(len(training.engaged)),
            "test_slates": float(len(test.engaged)),
            "trees": float(booster.best_iteration),
        },
    )


def sample_slates(
    sessions: Sessions,
    encode: Encode,
    item_vectors: NDArray[np.float32],
    log: ItemLog,
    *,
    seed: int,
    slates_per_history: int,
    slate_size: int,
) -> Examples:
    """Make slates at random moments of each history, labelled with the user's next engagements."""
    rng = np.random.default_rng([seed, 11])
    rows = np.repeat(np.flatnonzero(sessions.lengths > MIN_HISTORY), slates_per_history)
    full = sessions.select(rows)
    length = rng.integers(MIN_HISTORY, full.lengths) if len(rows) else np.zeros(0, dtype=np.int64)
    now_ms = full.timestamp_ms[full.offsets[:-1] + length]
    history = full.first(length)
    is_next = (full.position >= length[full.owner]) & (full.position < (length + LABEL_EVENTS)[full.owner])
    positive = np.unique((full.owner * len(item_vectors) + full.item)[is_next & np.isin(full.engagement, ENGAGED)])

    parts = []
    for start in range(0, len(history), 256):
        batch = np.arange(start, min(start + 256, len(history)))
        moments = Moments.of(history.select(batch), now_ms[batch], log, LENGTH)
        vectors = encode(moments.items, moments.engagements)
        items, session_score = top_unseen(vectors, item_vectors, moments.items, slate_size)
        engaged = np.isin(batch[:, None] * len(item_vectors) + items, positive)
        parts.append(Examples(matrix(*compute(log, moments, items), session_score), engaged, session_score))
    if not parts:
        return Examples(np.zeros((0, len(FEATURES))), np.zeros((0, slate_size), bool), np.zeros((0, slate_size), "f4"))
    return Examples(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.engaged for part in parts]),
        np.concatenate([part.session_score for part in parts]),
    )


def auc(scores: NDArray[np.floating], engaged: NDArray[np.bool_]) -> float:
    """Area under the ROC curve over all candidates: the share of correctly ordered pairs; ties count one half."""
    positive, negative = scores[engaged], np.sort(scores[~engaged])
    below = np.searchsorted(negative, positive, side="left") + np.searchsorted(negative, positive, side="right")
    return float(below.mean() / (2 * len(negative)))


def ndcg(scores: NDArray[np.floating], engaged: NDArray[np.bool_], top: int = 10) -> float:
    """Mean normalised discounted cumulative gain of slates [S, N] with at least one engaged item (Järvelin 2002)."""
    some = engaged.any(axis=1)
    order = np.argsort(-scores[some], axis=1, kind="stable")
    gain = np.take_along_axis(engaged[some], order, axis=1)[:, :top]
    discount = 1.0 / np.log2(np.arange(2, gain.shape[1] + 2))
    best = np.cumsum(discount)[np.minimum(engaged[some].sum(axis=1), gain.shape[1]) - 1]
    return float((gain @ discount / best).mean())
