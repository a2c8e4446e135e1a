"""Which past events moved an item: the session vector without each event.

A *removal* answers one question for every event of a history: what would the session vector be without it? Since an
item's score is ``vector · item_vector``, the effect of every event on every item of a slate then follows by dot
products, raw or centred on the slate (with centred item vectors), and a session costs one pass for all its items.

Three removals are known (measured against each other before the project began; masking agrees with deletion to a rank
correlation of .88 and with blanking to .67, so masking may propose and the other two must confirm):

========  ==========================================================================  =============================
removal   meaning                                                                     cost
========  ==========================================================================  =============================
masking   the event's key is hidden from attention, the others keep their places      one pass (``without`` output)
deletion  the event never happened: the rest is run again, as the recommender would   one run per event
blanking  the event keeps its place and says nothing: its embedding is zeroed         one run per event (`blank.py`)
========  ==========================================================================  =============================

The model's attention looks back only, so what stands before an event does not depend on it. A run without the event
takes up the session there (``models/session/rerun``) and computes only the rows after it: five of twenty on average.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from models.errors import SessionInputError
from models.session.rerun import plan

if TYPE_CHECKING:
    from models.session.runtime import SessionModel

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

UNHEARD: Final = 0.01
"""Share of the newest row's attention, mean over layers and heads, below which a glance takes an event for silent.

What that misses: ``python -m bench.proposals``.
"""


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

    def delete(self, row: Ints, column: Ints) -> Histories:
        """Copy the histories of some rows, each without the event in its column; row and column are int64 [n]."""
        columns = np.arange(self.width)
        # What stood to the left of the deleted event moves one column to the right.
        source = columns - (columns <= column[:, None])
        kept = source >= 0
        source[:, 0] = np.maximum(source[:, 0], 0)
        return Histories(
            np.where(kept, self.item[row[:, None], source], 0),
            np.where(kept, self.engagement[row[:, None], source], 0),
            self.length[row] - 1,
        )


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


def glance(model: SessionModel, histories: Histories, wanted: npt.NDArray[np.bool_] | None = None) -> Reading:
    """Read, with what `Runs` needs to take the sessions up again, and from that what every event does nearly.

    wanted bool [K, W] says of which events that is asked, None: of all. Another then seems to do nothing: its vector is
    the session's.

    Nearly: only the newest row learns that the event is gone; all other rows stay as they were with it; and whom it
    hardly heard (UNHEARD) it does not miss. That is exact for the newest two events, and else close: good for finding
    events that are worth a closer look (what it misses: ``python -m bench.proposals``). A model that cannot take
    sessions up again says exactly what every event does, where it can.
    """
    if model.reruns is None:
        return read(model, histories)
    whole = model.reruns.read(histories.item, histories.engagement, histories.length)
    reading = Reading(whole.vector, whole.attention, None, whole.state)
    width, length = histories.width, histories.length
    columns = np.arange(width)
    asked = (columns >= width - length[:, None]) & ((columns >= width - 2) | (reading.attention >= UNHEARD))
    row, column = np.nonzero(asked if wanted is None else asked & wanted)
    item, engagement = histories.item[row], histories.engagement[row]
    # Without the newest event the one before it asks, as in the shorter session; any other is hidden from the newest.
    newest = column == width - 1
    for each in (item, engagement):
        each[newest, -1] = each[newest, max(width - 2, 0)]
    changed = Histories(item, engagement, length[row] - newest)
    kept, hidden = np.full_like(row, width - 1), np.where(newest, -1, column)
    without = np.repeat(reading.vector[:, None], width, axis=1)
    runs = Runs(model, histories, reading.state)
    without[row, column] = runs.vectors(changed, row, kept, newest.astype(np.int64), hidden)
    return replace(reading, without=without)


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of histories that differ from those already read.

    state float32 [K, W, s] is that of `histories`, None where the model keeps none: then everything is run again.
    """

    model: SessionModel
    histories: Histories
    state: Floats | None

    def vectors(self, changed: Histories, row: Ints, kept: Ints, moved: Ints, hidden: Ints) -> Floats:
        """Session vectors of changed histories, float32 [n, d].

        changed are n histories as wide as `histories`; what stands before column `kept` of history `row` (int64 [n]
        each) also stands in them, `moved` columns to the right. hidden, int64 [n]: a column that nobody attends to, -1
        for none (``models.session.rerun.plan``); none may be hidden where the model cannot take sessions up again.
        """
        if self.model.reruns is None or self.state is None:
            return read(self.model, changed, without=False).vector
        runs = plan(row, kept, moved, changed.length, self.histories.width, hidden)
        return self.model.reruns.vectors(self.state, changed.item, changed.engagement, runs)


@dataclass(frozen=True, slots=True)
class Asked:
    """Runs that somebody asks for: the arguments of `Runs.vectors`, and the events that they do without."""

    changed: Histories
    row: Ints
    column: Ints
    moved: Ints
    hidden: Ints


class Asker(ABC):
    """Session vectors without an event, by one kind of removal, each run once however many items ask for it."""

    def __init__(self, model: SessionModel, histories: Histories, state: Floats | None = None) -> None:
        """With the state of the histories' reading, what stands before an event is not run again."""
        self.histories = histories
        self.runs = Runs(model, histories, state)
        self._known = np.zeros(histories.item.shape, dtype=np.bool_)
        # Of it only what is run is ever touched.
        self._vectors: Floats = np.empty((*histories.item.shape, model.dimension), dtype=np.float32)

    @abstractmethod
    def removed(self, row: Ints, column: Ints) -> Asked:
        """Say how to run the histories of some rows, each without the event in its column; int64 [n] each."""

    def vectors(self, row: Ints, column: Ints) -> Floats:
        """Session vector without one event, float32 [n, d]; row and column, int64 [n], may repeat."""
        if not self._known[row, column].all():
            run_together([(self, row, column)])
        return self._vectors[row, column]

    def asked(self, row: Ints, column: Ints) -> Asked:
        """Say what of this has not been run yet."""
        wanted = np.zeros(self._known.shape, dtype=np.bool_)
        wanted[row, column] = True
        return self.removed(*np.nonzero(wanted & ~self._known))

    def keep(self, asked: Asked, vectors: Floats) -> None:
        """Keep what was run."""
        self._known[asked.row, asked.column] = True
        self._vectors[asked.row, asked.column] = vectors


def run_together(wanted: Sequence[tuple[Asker, Ints, Ints]]) -> None:
    """Run what several kinds of removal of the same histories have not got yet in one call to the model."""
    asked = [asker.asked(row, column) for asker, row, column in wanted]
    changed = Histories(
        np.concatenate([each.changed.item for each in asked]),
        np.concatenate([each.changed.engagement for each in asked]),
        np.concatenate([each.changed.length for each in asked]),
    )
    names = ("row", "column", "moved", "hidden")
    arguments = (np.concatenate([getattr(each, name) for each in asked]) for name in names)
    vectors = wanted[0][0].runs.vectors(changed, *arguments)
    ends = np.cumsum([len(each.row) for each in asked])
    for (asker, _, _), each, end in zip(wanted, asked, ends.tolist(), strict=True):
        asker.keep(each, vectors[end - len(each.row) : end])


class Deletions(Asker):
    """Session vectors with an event deleted, or two."""

    def removed(self, row: Ints, column: Ints) -> Asked:
        """Say how to run histories without an event."""
        return Asked(self.histories.delete(row, column), row, column, np.ones_like(row), np.full_like(row, -1))

    def without_two(self, row: Ints, column: Ints, other: Ints) -> Floats:
        """Session vector without two events, in either order, float32 [n, d]; all int64 [n], which may repeat."""
        width = self.histories.width
        keys = (row * width + np.minimum(column, other)) * width + np.maximum(column, other)
        pairs, which = np.unique(keys, return_inverse=True)
        single, high = np.divmod(pairs, width)
        row, low = np.divmod(single, width)
        # The higher column was to the right of the first deletion, where nothing moved.
        left = self.histories.delete(row, low)
        left = left.delete(np.arange(len(row)), high)
        found = self.runs.vectors(left, row, low, np.full_like(row, 2), np.full_like(row, -1))
        return found[which]


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
    """Session vector with each event deleted and the rest run again, float32 [K, W, d]."""
    vectors = np.zeros((*histories.item.shape, model.dimension), dtype=np.float32)
    row, column = np.nonzero(np.arange(histories.width) >= histories.width - histories.length[:, None])
    vectors[row, column] = read(model, histories.delete(row, column), without=False).vector
    return vectors
