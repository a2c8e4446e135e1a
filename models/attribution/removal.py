"""Taking past events away: what the session vector would be without one, by each meaning of *without*.

Three removals are known (measured against each other before the project began; masking agrees with deletion to a rank
correlation of .88 and with blanking to .67, so masking may propose and the other two must confirm):

========  ==========================================================================  =============================
removal   meaning                                                                     cost
========  ==========================================================================  =============================
masking   the event's key is hidden from attention, the others keep their places      one pass (``without`` output)
deletion  the event never happened: the rest is run again, as the recommender would   one run per event
blanking  the event keeps its place and says nothing: its embedding is zeroed         one run per event
========  ==========================================================================  =============================

The model's attention looks back only, so what stands before an event does not depend on it. A run without the event
takes up the session there (``models/session/incremental``) and computes only the rows after it: five of twenty on
average. A model that can do so is asked for single events by masking, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.attribution.history import Bools, Floats, Histories, Ints, read
from models.compiled import compiled
from models.errors import SessionInputError
from models.session.incremental import plan

if TYPE_CHECKING:
    from models.session.runtime import SessionModel

DELETED, BLANKED, MASKED, MUTED = range(4)
"""What becomes of an event; MUTED is masked for the newest event alone, which is quick to say and only nearly right.

The newest event asks, so it can be neither masked nor muted.
"""

REMOVALS: Final = (DELETED, BLANKED, MASKED)
"""What counts as taking an event away."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of histories that differ by an event or two from those already read.

    state float32 [K, W, s] is that of the histories' reading, None where the model keeps none: then everything is run
    again.
    """

    model: SessionModel
    histories: Histories
    state: Floats | None

    def without(self, removal: Ints, row: Ints, column: Ints, second: Ints | None = None) -> Floats:
        """Session vector without one event, or, deleted, without two, float32 [n, d].

        removal, row and column int64 [n]; second int64 [n], a column to the right of the first, or -1. Only a model
        that knows the blank event can blank, only one that takes sessions up again can mask and mute. Raises
        SessionInputError where it cannot, or where the event that asks is to be hidden.
        """
        second = np.full_like(column, -1) if second is None else second
        read_already, width = self.histories, self.histories.width
        if ((removal >= MASKED) & (column == width - 1)).any():
            raise SessionInputError("expected an older event to hide, got the newest, which asks: delete or blank it.")
        item, engagement = (np.zeros((len(row), width), dtype=np.int64) for _ in range(2))
        _take_away(
            removal, row, column, second, *self.model.blank_event, read_already.item, read_already.engagement,
            item, engagement,
        )  # fmt: skip
        gone = np.where(removal == DELETED, 1 + (second >= 0), 0)
        length = read_already.length[row] - gone
        if self.model.reruns is None or self.state is None:
            if (removal >= MASKED).any():
                raise SessionInputError(
                    "expected a session model that takes sessions up again, which alone can hide single events, got "
                    "one that does not: use `masking` or deletion."
                )
            return read(self.model, Histories(item, engagement, length), without=False).vector
        kept = np.where(removal == MUTED, width - 1, column)
        unheard = np.where(removal >= MASKED, column, -1)
        return self.model.reruns.vectors(self.state, item, engagement, plan(row, kept, gone, length, width, unheard))


class Removals:
    """Session vectors without an event, by every removal, each run once however many items ask for it."""

    def __init__(self, model: SessionModel, histories: Histories, state: Floats | None = None) -> None:
        """With the state of the histories' reading, what stands before an event is not run again."""
        shape = (len(REMOVALS), *histories.item.shape)
        self._runs = Runs(model, histories, state)
        self._known = np.zeros(shape, dtype=np.bool_)
        #: float32 [3, K, W, d], by removal; of it only what was run is ever touched.
        self.vectors: Floats = np.empty((*shape, model.dimension), dtype=np.float32)

    def run(self, wanted: Bools) -> None:
        """Run what is wanted, bool [3, K, W], and not known yet, in one call to the model."""
        # Row by row: runs of one session share much.
        row, removal, column = np.nonzero((wanted & ~self._known).swapaxes(0, 1))
        if len(row):
            self.vectors[removal, row, column] = self._runs.without(removal, row, column)
            self._known[removal, row, column] = True

    def without_two(self, row: Ints, column: Ints, other: Ints) -> Floats:
        """Session vector with two events deleted, in either order, float32 [n, d]; int64 [n] each, may repeat."""
        width = self._runs.histories.width
        keys = (row * width + np.minimum(column, other)) * width + np.maximum(column, other)
        pairs, which = np.unique(keys, return_inverse=True)
        single, high = np.divmod(pairs, width)
        row, low = np.divmod(single, width)
        return self._runs.without(np.full_like(row, DELETED), row, low, high)[which]


def masking(model: SessionModel, histories: Histories) -> Floats:
    """Session vector with each event hidden from attention, float32 [K, W, d]; raises where the model has none."""
    masked = read(model, histories).without
    if masked is None:
        raise SessionInputError(
            "expected a session model with the output `without`, got one that has none: use deletion, or export the "
            "model with it."
        )
    return masked


def deletion(model: SessionModel, histories: Histories) -> Floats:
    """Session vector with each event deleted and the rest run again, float32 [K, W, d]; zero at padding."""
    return _each(model, histories, DELETED)


def blanking(model: SessionModel, histories: Histories) -> Floats:
    """Session vector with each event blanked, float32 [K, W, d]; zero at padding.

    Raises SessionInputError for a model that knows no blank event.
    """
    if not model.has_blank:
        raise SessionInputError(
            "expected a session model that knows the blank event, got one that does not: use deletion, or export the "
            "model with it."
        )
    return _each(model, histories, BLANKED)


def _each(model: SessionModel, histories: Histories, removal: int) -> Floats:
    vectors = np.zeros((*histories.item.shape, model.dimension), dtype=np.float32)
    row, column = np.nonzero(np.arange(histories.width) >= histories.width - histories.length[:, None])
    vectors[row, column] = Runs(model, histories, None).without(np.full_like(row, removal), row, column)
    return vectors


@compiled
def _take_away(
    removal: Any, row: Any, column: Any, second: Any, blank_item: Any, blank_engagement: Any, item: Any,
    engagement: Any, changed_item: Any, changed_engagement: Any,
) -> None:  # fmt: skip
    """Write n histories, each without an event or two, to arrays int64 [n, W] of zeros; the arguments of `Runs`."""
    width = item.shape[1]
    for n in range(len(row)):
        to = width
        for source in range(width - 1, -1, -1):
            if removal[n] == DELETED and (source == column[n] or source == second[n]):
                continue  # what stood to its left moves to the right
            to -= 1
            changed_item[n, to] = item[row[n], source]
            changed_engagement[n, to] = engagement[row[n], source]
        if removal[n] == BLANKED:
            changed_item[n, column[n]], changed_engagement[n, column[n]] = blank_item, blank_engagement
