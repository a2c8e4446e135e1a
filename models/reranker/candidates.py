"""Candidate generation: the unseen items with the highest scores of the session model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# (item int64 [B, L], engagement int64 [B, L], both left-padded with 0) -> session vectors float32 [B, d]
Encode = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


def top_unseen(
    vectors: NDArray[np.float32], item_vectors: NDArray[np.float32], seen: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the `count` unseen items with the highest scores for each of B sessions, in descending order.

    Args:
        vectors: session vectors float32 [B, d].
        item_vectors: float32 [n + 1, d], row 0 for padding.
        seen: item indices int64 [B, L] to be left out; the padding index 0 is always left out.
        count: number of items; must not exceed the number of unseen items.

    Returns:
        item indices int64 [B, count] and scores float32 [B, count]; among equal scores the lower index comes first.

    """
    scores = vectors @ item_vectors.T
    rows = np.arange(len(vectors))[:, None]
    unseen = scores.copy()
    unseen[:, 0] = -np.inf
    unseen[rows, seen] = -np.inf
    top = np.sort(np.argpartition(-unseen, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-unseen[rows, top], axis=1, kind="stable")
    items = np.take_along_axis(top, order, axis=1)
    return items, np.take_along_axis(scores, items, axis=1)
