"""The first stage of the recommender: the items that the session model scores highest and the user has not seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# (item int64 [B, L], engagement int64 [B, L], both left-padded with 0) -> session vectors float32 [B, d]
Encode = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


def unseen_top(
    vectors: NDArray[np.float32], item_vectors: NDArray[np.float32], seen: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pick the `count` best unseen items for each of B sessions, best first.

    Args:
        vectors: session vectors float32 [B, d].
        item_vectors: float32 [n + 1, d], row 0 for padding.
        seen: item indices int64 [B, L] that are not recommended again; 0 is never recommended.
        count: at most the number of items that remain; the caller sees to it.

    Returns:
        item indices int64 [B, count] and their scores float32 [B, count]; of equal scores the lower index comes first.

    """
    scores = vectors @ item_vectors.T
    rows = np.arange(len(vectors))[:, None]
    open_scores = scores.copy()
    open_scores[:, 0] = -np.inf
    open_scores[rows, seen] = -np.inf
    top = np.sort(np.argpartition(-open_scores, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-open_scores[rows, top], axis=1, kind="stable")
    items = np.take_along_axis(top, order, axis=1)
    return items, np.take_along_axis(scores, items, axis=1)
