"""Which moments of others may be told of. A *moment* is a history up to some event; what was watched next is known.

A prototype is a group of moments, put together by k-means on their session vectors (cosine), and is admitted only if:

1. at least ``K_ANONYMOUS`` different users have a moment in the group, and
2. at least ``K_ANONYMOUS`` different users of the group watched one and the same item next: the one that most of them
   watched, which is all that is told of them.

A user brings at most ``PER_USER`` moments, drawn at random, and counts once in each number. A moment has at least
``SHORTEST`` events; a skipped event was not watched, and follows no moment. The prototype's vector is the mean over all
users of the group: it is nobody's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.data.sessions import SKIP, Sessions
from models.reranker.candidates import Encode

K_ANONYMOUS: Final = 50
PER_USER: Final = 10
SHORTEST: Final = 3
MOMENTS_PER_GROUP: Final = 1_500
"""The mean size of a group, which decides how many there are."""

_ROUNDS: Final = 15
_BATCH: Final = 512


@dataclass(frozen=True)
class Prototypes:
    """P moments that many users share.

    vector float32 [P, d], of length 1; next_item int64 [P], index in the catalogue; users int64 [P], how many share the
    moment; watched int64 [P], how many of them watched next_item next.
    """

    vector: NDArray[np.float32]
    next_item: NDArray[np.int64]
    users: NDArray[np.int64]
    watched: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.next_item)


def prototypes(sessions: Sessions, encode: Encode, length: int, *, k: int = K_ANONYMOUS, seed: int = 0) -> Prototypes:
    """Put the moments of all users together and keep what at least k of them share; may be none.

    ``length`` is how many events the session model reads. The same arguments give the same prototypes.
    """
    rng = np.random.default_rng([seed, 17])
    history, size = _moments(sessions, rng)
    user = np.unique(sessions.user_id_hash, return_inverse=True)[1][history]
    next_item = sessions.item[sessions.offsets[history] + size].astype(np.int64)
    vector = _encoded(sessions, history, size, encode, length)
    group, count = _grouped(vector, max(1, len(vector) // MOMENTS_PER_GROUP), rng)

    # Each user counts once: in a group, and in a group for an item.
    users = np.bincount(np.unique(np.stack([group, user]), axis=1)[0], minlength=count)
    cells, watchers = np.unique(np.unique(np.stack([group, next_item, user]), axis=1)[:2], axis=1, return_counts=True)
    best = np.lexsort((cells[1], -watchers, cells[0]))
    best = best[np.unique(cells[0][best], return_index=True)[1]]
    best = best[(watchers[best] >= k) & (users[cells[0][best]] >= k)]
    chosen = cells[0][best]
    return Prototypes(_centres(vector, group, count)[chosen], cells[1][best], users[chosen], watchers[best])


def _moments(sessions: Sessions, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw moments: the history of each, and its number of events, int64 [M] both."""
    able = np.flatnonzero((sessions.position >= SHORTEST) & (sessions.engagement != SKIP))
    able = rng.permutation(able)
    user = np.unique(sessions.user_id_hash, return_inverse=True)[1][sessions.owner[able]]
    order = np.argsort(user, kind="stable")
    ordered = user[order]
    place = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    kept = np.sort(able[order[place < PER_USER]])
    return sessions.owner[kept], sessions.position[kept]


def _encoded(
    sessions: Sessions, history: NDArray[np.int64], size: NDArray[np.int64], encode: Encode, length: int
) -> NDArray[np.float32]:
    """Run the session model on each moment: float32 [M, d], of length 1."""
    parts = []
    # Moments of similar size together, so that little padding is read.
    order = np.argsort(size, kind="stable")
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        longest = min(length, int(size[rows].max()))
        parts.append(encode(*sessions.select(history[rows]).first(size[rows]).padded(longest)))
    vectors = np.concatenate(parts or [np.zeros((0, 1), np.float32)])
    vector = np.empty_like(vectors)
    vector[order] = vectors
    return unit(vector)


def _grouped(vector: NDArray[np.float32], count: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], int]:
    """Spherical k-means: the group of each vector int64 [M], and how many groups there are."""
    centre = vector[rng.permutation(len(vector))[:count]]
    group = np.zeros(len(vector), dtype=np.int64)
    for _ in range(_ROUNDS):
        for start in range(0, len(vector), 65_536):
            group[start : start + 65_536] = (vector[start : start + 65_536] @ centre.T).argmax(axis=1)
        centre = _centres(vector, group, len(centre))
    return group, len(centre)


def _centres(vector: NDArray[np.float32], group: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Mean direction of each group, float32 [count, d]; zero for an empty one."""
    sums = np.zeros((count, vector.shape[1]), dtype=np.float64)
    order = np.argsort(group, kind="stable")
    there, start = np.unique(group[order], return_index=True)
    if len(there):
        sums[there] = np.add.reduceat(vector[order].astype(np.float64), start, axis=0)
    return unit(sums.astype(np.float32))


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to length 1; a row of zeros stays."""
    size = np.linalg.norm(vector, axis=1, keepdims=True)
    return np.asarray(vector / np.where(size > 0, size, 1.0), dtype=np.float32)
