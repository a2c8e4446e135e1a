"""The moments that resemble the present most: in this user's own past, and among what many users share.

Moments are compared by the cosine of their session vectors, which is all that the recommender knows of them. A moment
is told only at ``LEAST`` or above, at most ``TOLD`` of each sort, and each next item once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.exemplars.index import Exemplars
from models.exemplars.prototypes import SHORTEST, unit
from models.session.runtime import SessionModel, left_pad

TOLD: Final = 3
LEAST: Final = 0.5

_LOOKED_AT: Final = 4 * TOLD
"""Prototypes asked for: several may have the same next item."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A past moment: the place of its last event in the history (-1: of others), its cosine, and the next item."""

    place: int
    similarity: float
    next_item: int


def own(
    model: SessionModel,
    item: NDArray[np.int64],
    engagement: NDArray[np.int64],
    watched: NDArray[np.bool_],
    present: NDArray[np.float32],
) -> list[Moment]:
    """Find moments of one history (item and engagement int64 [L], watched bool [L]) like the present float32 [d].

    One run of the session model over its beginnings; those that were followed by something watched count.
    """
    ends = np.array([end for end in range(SHORTEST, len(item)) if watched[end]], dtype=np.int64)
    if not len(ends):
        return []
    vectors = model.run(
        left_pad([item[:end] for end in ends], model.max_length),
        left_pad([engagement[:end] for end in ends], model.max_length),
        without=False,
    ).vector
    cosine = unit(vectors) @ unit(present[None])[0]
    nearest = np.argsort(-cosine, kind="stable")
    return _told(Moment(int(ends[row]) - 1, float(cosine[row]), int(item[ends[row]])) for row in nearest)


def others(exemplars: Exemplars | None, present: NDArray[np.float32]) -> list[Moment]:
    """Find moments that many users share like the present float32 [d]; none for a bundle without prototypes."""
    if exemplars is None or not present.any():
        return []
    [found] = exemplars.nearest(present[None], _LOOKED_AT)
    return _told(Moment(-1, cosine, int(exemplars.next_item[row])) for row, cosine in found)


def _told(nearest: Iterable[Moment]) -> list[Moment]:
    told: dict[int, Moment] = {}
    for moment in nearest:
        if moment.similarity >= LEAST and len(told) < TOLD:
            told.setdefault(moment.next_item, moment)
    return list(told.values())
