"""The past moments most similar to the present one: of the same user, and of the prototypes that many users share.

The similarity of two moments is the cosine of their session vectors. At most ``MAX_MOMENTS`` of each sort are returned,
with a similarity of at least ``MIN_SIMILARITY`` and distinct next items.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.exemplars.index import Exemplars
from models.exemplars.prototypes import MIN_EVENTS, unit
from models.session.runtime import SessionModel, left_pad

MAX_MOMENTS: Final = 3
MIN_SIMILARITY: Final = 0.5

_CANDIDATES: Final = 4 * MAX_MOMENTS
"""Number of prototypes to search for; several may have the same next item."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A past moment.

    Attributes:
        position: position of its last event in the user's history; -1 for a moment of other users.
        similarity: cosine of its session vector and the present one.
        next_item: catalogue index of the item watched next.

    """

    position: int
    similarity: float
    next_item: int


def own_moments(
    model: SessionModel,
    item: NDArray[np.int64],
    engagement: NDArray[np.int64],
    watched: NDArray[np.bool_],
    present: NDArray[np.float32],
) -> list[Moment]:
    """Find the moments of a history that are similar to the present one.

    The session model runs once, on a batch of all prefixes that were followed by a watched item.

    Args:
        model: the session model.
        item: int64 [L], the history's items, oldest first.
        engagement: int64 [L], its engagements.
        watched: bool [L], whether each event counts as watched (was not skipped).
        present: float32 [d], the session vector of the whole history.

    """
    ends = np.array([end for end in range(MIN_EVENTS, len(item)) if watched[end]], dtype=np.int64)
    if not len(ends):
        return []
    vectors = model.run(
        left_pad([item[:end] for end in ends], model.max_length),
        left_pad([engagement[:end] for end in ends], model.max_length),
        without=False,
    ).vector
    cosine = unit(vectors) @ unit(present[None])[0]
    nearest = np.argsort(-cosine, kind="stable")
    return _distinct(Moment(int(ends[row]) - 1, float(cosine[row]), int(item[ends[row]])) for row in nearest)


def shared_moments(exemplars: Exemplars | None, present: NDArray[np.float32]) -> list[Moment]:
    """Find the prototypes similar to the present session vector float32 [d]; empty for a bundle without prototypes."""
    if exemplars is None or not present.any():
        return []
    [found] = exemplars.nearest(present[None], _CANDIDATES)
    return _distinct(Moment(-1, cosine, int(exemplars.next_item[row])) for row, cosine in found)


def _distinct(nearest: Iterable[Moment]) -> list[Moment]:
    """Keep the first moment of each next item, within the limits of number and similarity."""
    kept: dict[int, Moment] = {}
    for moment in nearest:
        if moment.similarity >= MIN_SIMILARITY and len(kept) < MAX_MOMENTS:
            kept.setdefault(moment.next_item, moment)
    return list(kept.values())
