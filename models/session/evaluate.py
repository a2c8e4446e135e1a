"""How well a next-item model ranks: Hit@10, NDCG@10 and MRR over the whole catalogue, nothing sampled.

The newest event of each held-out history is what has to be found, from the events before it. Nothing is excluded from
the ranking, and ties count as the middle of their ranks, so that a constant score earns what chance does. (Sampled
metrics can order models wrongly: Krichene and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.data.sessions import Sessions

_CUT = 10
_BATCH = 256

# (item_index, engagement_index), int64 [B, L] left-padded -> session vectors float32 [B, d]
Vectors = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Metrics:
    """Means over the histories that were asked."""

    hit_at_10: float
    ndcg_at_10: float
    mrr: float
    histories: int

    @classmethod
    def of(cls, ranks: npt.NDArray[np.float64]) -> Metrics:
        """Summarise ranks [n], 1 = best."""
        if not len(ranks):
            return cls(float("nan"), float("nan"), float("nan"), 0)
        hit = ranks <= _CUT
        gain = np.where(hit, 1.0 / np.log2(1.0 + ranks), 0.0)
        return cls(float(hit.mean()), float(gain.mean()), float((1.0 / ranks).mean()), len(ranks))


def ranks(scores: npt.NDArray[np.float32], target: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Rank targets [n] in scores [n, items + 1] (column 0, padding, does not count): float64 [n], 1 = best."""
    own = np.take_along_axis(scores, target[:, None], axis=1)
    above = (scores[:, 1:] > own).sum(axis=1)
    level = (scores[:, 1:] == own).sum(axis=1)
    return np.asarray(1.0 + above + (level - 1) / 2.0)


def leave_last_out(sessions: Sessions) -> tuple[Sessions, npt.NDArray[np.int64]]:
    """Histories of two events and more, without their newest event, and the items of these newest events."""
    asked = sessions.select(sessions.lengths >= 2)
    return asked.without_last(), asked.item[asked.offsets[1:] - 1].astype(np.int64)


def evaluate_model(
    vectors: Vectors, item_vectors: npt.NDArray[np.float32], sessions: Sessions, max_length: int
) -> Metrics:
    """Rank the newest event of each history by session_vector · item_vectors[item]."""
    history, target = leave_last_out(sessions)
    got = np.empty(len(target))
    # Histories of one length together: little padding.
    order = np.argsort(history.lengths, kind="stable")
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        length = int(min(history.lengths[part].max(), max_length))
        scores = vectors(*history.select(part).padded(length)) @ item_vectors.T
        got[part] = ranks(scores, target[part])
    return Metrics.of(got)


def evaluate_popularity(train: Sessions, sessions: Sessions) -> Metrics:
    """Rank by how often each item was watched in the training histories: the same answer for everybody."""
    _, target = leave_last_out(sessions)
    counts = np.bincount(train.item, minlength=len(train.catalog) + 1).astype(np.float32)
    of_item = np.empty(len(counts))
    items = np.arange(1, len(counts))
    for start in range(0, len(items), _BATCH):
        part = items[start : start + _BATCH]
        of_item[part] = ranks(np.broadcast_to(counts, (len(part), len(counts))), part)
    return Metrics.of(of_item[target])
