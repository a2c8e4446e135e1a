"""Histories of past events, and what the session model makes of them.

An item's score is ``vector · item_vector``, so whatever takes an event away (``models/attribution/removal.py``) gives a
session vector only: the effect of every event on every item of a slate then follows by dot products, raw or centred on
the slate, and a session costs one pass for all its items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from models.session.runtime import SessionModel

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Histories:
    """Past events of several sessions, newest in the last column, 0 where there is none.

    item and engagement are int64 [K, W] (indices of the bundle's catalogue and engagements), length int64 [K].
    """

    item: Ints
    engagement: Ints
    length: Ints

    def __len__(self) -> int:
        return len(self.length)

    @property
    def width(self) -> int:
        """Columns, as many as the longest history has events, or more."""
        return int(self.item.shape[1])

    def first_column(self, row: int) -> int:
        """Column of a history's oldest event."""
        return self.width - int(self.length[row])


@dataclass(frozen=True, slots=True)
class Reading:
    """What the session model makes of several histories.

    vector float32 [K, d]; attention float32 [K, W], mean over layers and heads, from the newest event; without float32
    [K, W, d], exact or nearly, and state float32 [K, W, s], where they were asked for and the model has them. All zeros
    for an empty history, which no model is shown.
    """

    vector: Floats
    attention: Floats
    without: Floats | None
    state: Floats | None


def read(model: SessionModel, histories: Histories, *, without: bool = True) -> Reading:
    """Run the session model's graph once over each history."""
    got = model.run(histories.item, histories.engagement, without=without)
    return Reading(got.vector, got.attention.mean(axis=(1, 2)), got.without, got.state)
