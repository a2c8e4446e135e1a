"""Ranking metrics of next-item models: Hit@10, NDCG@10 and MRR over the whole catalogue.

The target is the newest event of each held-out history, predicted from the events before it. No item is excluded, and
ties get their mean rank, so that a constant score is as good as a random one. Items are not sampled, since sampled
metrics can order models wrongly (Krichene and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.data.sessions import Sessions

_CUT_OFF = 10
_BATCH = 256

# (item_index, engagement_index), int64 [B, L] left-padded -> session vectors float32 [B, d]
Vectors = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Metrics:
    """Means over the evaluated histories; histories is their number."""

    hit_at_10: float
    ndcg_at_10: float
    mrr: float
    histories: int

    @classmethod
    def of(cls, ranks: npt.NDArray[np.float64]) -> Metrics:
        """Compute the metrics of ranks float64 [n], 1 is best; NaN for no ranks."""
        if not len(ranks):
            return cls(float("nan"), float("nan"), float("nan"), 0)
        hit = ranks <= _CUT_OFF
        gain = np.where(hit, 1.0 / np.log2(1.0 + ranks), 0.0)
        return cls(float(hit.mean()), float(gain.mean()), float((1.0 / ranks).mean()), len(ranks))


def ranks(scores: npt.NDArray[np.float32], target: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Rank each target, int64 [n], in scores [n, items + 1] without column 0 (padding): float64 [n], 1 is best."""
    score = np.take_along_axis(scores, target[:, None], axis=1)
    higher = (scores[:, 1:] > score).sum(axis=1)
    equal = (scores[:, 1:] == score).sum(axis=1)
    return np.asarray(1.0 + higher + (equal - 1) / 2.0)


def leave_last_out(sessions: Sessions) -> tuple[Sessions, npt.NDArray[np.int64]]:
    """Split histories of at least two events into the events before the newest, and the newest items int64 [n]."""
    eligible = sessions.select(sessions.lengths >= 2)
    return eligible.without_last(), eligible.item[eligible.offsets[1:] - 1].astype(np.int64)


def evaluate_model(
    vectors: Vectors, item_vectors: npt.NDArray[np.float32], sessions: Sessions, max_length: int
) -> Metrics:
    """Evaluate the ranking of each history's newest event by session_vector · item_vectors[item]."""
    history, target = leave_last_out(sessions)
    rank = np.empty(len(target))
    # Histories of similar length form a batch, so that there is little padding.
    order = np.argsort(history.lengths, kind="stable")
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        length = int(min(history.lengths[part].max(), max_length))
        scores = vectors(*history.select(part).padded(length)) @ item_vectors.T
        rank[part] = ranks(scores, target[part])
    return Metrics.of(rank)


def evaluate_popularity(train: Sessions, sessions: Sessions) -> Metrics:
    """Evaluate the ranking of all items by their number of events in the training histories."""
    _, target = leave_last_out(sessions)
    counts = np.bincount(train.item, minlength=len(train.catalog) + 1).astype(np.float32)
    of_item = np.empty(len(counts))
    items = np.arange(1, len(counts))
    for start in range(0, len(items), _BATCH):
        part = items[start : start + _BATCH]
        of_item[part] = ranks(np.broadcast_to(counts, (len(part), len(counts))), part)
    return Metrics.of(of_item[target])
