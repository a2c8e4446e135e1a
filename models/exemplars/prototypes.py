"""Prototypes: moments shared by at least k users, which may be shown to other users (k-anonymity).

A *moment* is a prefix of a history together with the item watched next. Moments are clustered by spherical k-means on
their session vectors. A cluster becomes a prototype only if:

1. at least ``K_ANONYMOUS`` distinct users have a moment in the cluster, and
2. at least ``K_ANONYMOUS`` distinct users of the cluster watched the same item next; the item watched next by most
   users is the only item that is shown.

A user contributes at most ``MAX_PER_USER`` moments, drawn at random, and counts once in each number. A moment has at
least ``MIN_EVENTS`` events; an item of a negative engagement, such as a skip, does not count as watched. The vector of
a prototype is the normalised mean over the cluster, so that it is not the vector of any one user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.data.sessions import Sessions
from models.reranker.candidates import Encode

K_ANONYMOUS: Final = 50
MAX_PER_USER: Final = 10
MIN_EVENTS: Final = 3
MOMENTS_PER_CLUSTER: Final = 1_500
"""Mean size of a cluster, which determines the number of clusters."""

_ROUNDS: Final = 15
_BATCH: Final = 512


@dataclass(frozen=True)
class Prototypes:
    """P moments, each shared by many users.

    Attributes:
        vector: float32 [P, d], unit vectors.
        next_item: int64 [P], catalogue indices.
        users: int64 [P], number of users who share the moment.
        watched: int64 [P], number of these users who watched next_item next.

    """

    vector: NDArray[np.float32]
    next_item: NDArray[np.int64]
    users: NDArray[np.int64]
    watched: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.next_item)


def prototypes(sessions: Sessions, encode: Encode, length: int, *, k: int = K_ANONYMOUS, seed: int = 0) -> Prototypes:
    """Cluster the moments of all users and keep the clusters that satisfy k-anonymity; the result may be empty.

    Args:
        sessions: the histories of all users.
        encode: the session model.
        length: number of newest events that the session model reads.
        k: minimum number of users.
        seed: of the random choices; equal arguments give equal prototypes.

    """
    rng = np.random.default_rng([seed, 17])
    history, size = _draw_moments(sessions, rng)
    user = np.unique(sessions.user_id_hash, return_inverse=True)[1][history]
    next_item = sessions.item[sessions.offsets[history] + size].astype(np.int64)
    vector = _encoded(sessions, history, size, encode, length)
    cluster, count = _clustered(vector, max(1, len(vector) // MOMENTS_PER_CLUSTER), rng)

    # Each user counts once per cluster, and once per cluster and next item.
    users = np.bincount(np.unique(np.stack([cluster, user]), axis=1)[0], minlength=count)
    triples = np.unique(np.stack([cluster, next_item, user]), axis=1)
    pairs, watchers = np.unique(triples[:2], axis=1, return_counts=True)
    best = np.lexsort((pairs[1], -watchers, pairs[0]))
    best = best[np.unique(pairs[0][best], return_index=True)[1]]
    best = best[(watchers[best] >= k) & (users[pairs[0][best]] >= k)]
    chosen = pairs[0][best]
    return Prototypes(_centroids(vector, cluster, count)[chosen], pairs[1][best], users[chosen], watchers[best])


def _draw_moments(sessions: Sessions, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw M moments: the index of the history of each, and its number of events, int64 [M] each."""
    eligible = np.flatnonzero((sessions.position >= MIN_EVENTS) & sessions.watched)
    eligible = rng.permutation(eligible)
    user = np.unique(sessions.user_id_hash, return_inverse=True)[1][sessions.owner[eligible]]
    order = np.argsort(user, kind="stable")
    ordered = user[order]
    nth = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    kept = np.sort(eligible[order[nth < MAX_PER_USER]])
    return sessions.owner[kept], sessions.position[kept]


def _encoded(
    sessions: Sessions, history: NDArray[np.int64], size: NDArray[np.int64], encode: Encode, length: int
) -> NDArray[np.float32]:
    """Run the session model on each moment: unit vectors float32 [M, d]."""
    parts = []
    # Moments of similar size form a batch, so that there is little padding.
    order = np.argsort(size, kind="stable")
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        longest = min(length, int(size[rows].max()))
        parts.append(encode(*sessions.select(history[rows]).first(size[rows]).padded(longest)))
    vectors = np.concatenate(parts or [np.zeros((0, 1), np.float32)])
    vector = np.empty_like(vectors)
    vector[order] = vectors
    return unit(vector)


def _clustered(vector: NDArray[np.float32], count: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], int]:
    """Spherical k-means (Dhillon and Modha, 2001): the cluster of each vector, int64 [M], and their number."""
    centroid = vector[rng.permutation(len(vector))[:count]]
    cluster = np.zeros(len(vector), dtype=np.int64)
    for _ in range(_ROUNDS):
        for start in range(0, len(vector), 65_536):
            cluster[start : start + 65_536] = (vector[start : start + 65_536] @ centroid.T).argmax(axis=1)
        centroid = _centroids(vector, cluster, len(centroid))
    return cluster, len(centroid)


def _centroids(vector: NDArray[np.float32], cluster: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Compute the mean direction of each cluster, float32 [count, d]; zero for an empty cluster."""
    sums = np.zeros((count, vector.shape[1]), dtype=np.float64)
    order = np.argsort(cluster, kind="stable")
    present, start = np.unique(cluster[order], return_index=True)
    if len(present):
        sums[present] = np.add.reduceat(vector[order].astype(np.float64), start, axis=0)
    return unit(sums.astype(np.float32))


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to length 1; rows of zeros stay zero."""
    size = np.linalg.norm(vector, axis=1, keepdims=True)
    return np.asarray(vector / np.where(size > 0, size, 1.0), dtype=np.float32)
