"""Training of the re-ranker: gradient-boosted trees on whether a candidate was engaged with soon after.

The objective is binary (engaged or not), not a ranking loss: its raw score is a log-odds, so that a contribution means
the same in every slate and can be put into words on its own, and slates without any engagement teach it something, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.data.sessions import Sessions
from models.manifest import Feature
from models.reranker.candidates import Encode, unseen_top
from models.reranker.features import ENGAGED, FEATURE_SET, FEATURES, Moments, compute, matrix
from models.reranker.itemlog import ItemLog
from schemas.errors import WhyrecError

LENGTH = 50
MIN_HISTORY = 4
LATER = 5  # a candidate counts as engaged with when it is among the user's next five events, liked, finished or shared
# Where more can only speak for an item (+1), or against it (-1): otherwise explanations would read as nonsense.
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
    """There is not enough engagement in the log to train a re-ranker."""


@dataclass(frozen=True)
class Trained:
    """A trained re-ranker, ready for a bundle; its output is "raw".

    `metrics` were measured on users of their own: `auc` and `auc_session_score` over all candidates, `ndcg10` and
    `ndcg10_session_score` over the slates with an engagement (the latter of each pair ranks by the session score
    alone), `engaged_share`, and the numbers `slates`, `test_slates` and `trees`.
    """

    model_text: str
    features: tuple[Feature, ...]
    feature_set: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Examples:
    """Slates as the recommender would have shown them: rows float64 [S * N, 41], labels and session scores [S, N]."""

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
    cuts: int = 2,
    slate_size: int = 20,
    trees: int = 200,
    leaves: int = 31,
    forest: Mapping[str, float | bool] | None = None,
) -> Trained:
    """Train on slates cut out of histories at random moments.

    Args:
        sessions: histories that the session model has *not* learnt from; otherwise its scores look better than they
            will be. 70 % of the users train, 15 % stop the training, 15 % are measured on.
        encode: the session model.
        item_vectors: float32 [n + 1, d].
        log: all histories that item statistics are counted from, by default `sessions`.
        seed: of the cuts, the split and the trees; the same one gives the same model.
        cuts: moments per history.
        slate_size: candidates per moment.
        trees: at most; training stops earlier where the second group of users gains nothing.
        leaves: per tree.
        forest: what to set otherwise in LightGBM.

    Raises:
        TooFewInteractions: if no slate, or no engagement, remains in one of the groups.

    """
    item_log = ItemLog.of(sessions if log is None else log)
    groups = [
        cut_slates(part, encode, item_vectors, item_log, seed=seed + number, cuts=cuts, slate_size=slate_size)
        for number, part in enumerate(sessions.split(0.7, 0.15, 0.15, seed=seed))
    ]
    for group, purpose in zip(groups, ("train on", "stop the training by", "measure on"), strict=True):
        if not group.engaged.any() or group.engaged.all():
            raise TooFewInteractions(
                f"expected candidates engaged with and others to {purpose}, got {int(group.engaged.sum())} engaged of "
                f"{group.engaged.size} from {len(sessions)} histories: bring more histories, or more cuts of each"
            )
    fit, stop, test = groups
    names = [feature.name for feature in FEATURES]
    data = lgb.Dataset(fit.rows, fit.engaged.ravel(), feature_name=names)
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
            **(forest or {}),
        },
        data,
        num_boost_round=trees,
        valid_sets=[lgb.Dataset(stop.rows, stop.engaged.ravel(), reference=data)],
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
            "slates": float(len(fit.engaged)),
            "test_slates": float(len(test.engaged)),
            "trees": float(booster.best_iteration),
        },
    )


def cut_slates(
    sessions: Sessions,
    encode: Encode,
    item_vectors: NDArray[np.float32],
    log: ItemLog,
    *,
    seed: int,
    cuts: int,
    slate_size: int,
) -> Examples:
    """Cut each history `cuts` times: what the recommender would have shown then, and what the user engaged with."""
    rng = np.random.default_rng([seed, 11])
    rows = np.repeat(np.flatnonzero(sessions.lengths > MIN_HISTORY), cuts)
    whole = sessions.select(rows)
    cut = rng.integers(MIN_HISTORY, whole.lengths) if len(rows) else np.zeros(0, dtype=np.int64)
    now_ms = whole.timestamp_ms[whole.offsets[:-1] + cut]
    history = whole.first(cut)
    later = (whole.position >= cut[whole.owner]) & (whole.position < (cut + LATER)[whole.owner])
    wanted = np.unique((whole.owner * len(item_vectors) + whole.item)[later & np.isin(whole.engagement, ENGAGED)])

    parts = []
    for start in range(0, len(history), 256):
        batch = np.arange(start, min(start + 256, len(history)))
        moments = Moments.of(history.select(batch), now_ms[batch], log, LENGTH)
        vectors = encode(moments.items, moments.engagements)
        items, session_score = unseen_top(vectors, item_vectors, moments.items, slate_size)
        engaged = np.isin(batch[:, None] * len(item_vectors) + items, wanted)
        parts.append(Examples(matrix(*compute(log, moments, items), session_score), engaged, session_score))
    if not parts:
        return Examples(np.zeros((0, len(FEATURES))), np.zeros((0, slate_size), bool), np.zeros((0, slate_size), "f4"))
    return Examples(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.engaged for part in parts]),
        np.concatenate([part.session_score for part in parts]),
    )


def auc(scores: NDArray[np.floating], engaged: NDArray[np.bool_]) -> float:
    """Chance that an engaged candidate outscores another one, over all pairs of any shape; equal scores count half."""
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
