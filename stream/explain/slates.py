"""Slates: a batch of impressions as typed arrays, which every stage of the pipeline reads and none changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.bundle import Bundle
from models.compiled import compiled
from models.session.histories import Histories
from schemas.columnar import to_records
from schemas.events import Impression

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slates:
    """S slates with E session events and T items in all.

    batch: the impressions as they were sent, ``impression.avsc`` in Arrow. The arrays below are views of its columns,
    or indices into the bundle's catalogue and engagements.

    Per slate: offsets int64 [S + 1] into the items; foreign bool [S], whether another model or feature set than the
    bundle's served the slate; histories, the events whose item and engagement the bundle knows: the newest
    ``max_length``, which the session model reads, and the older ones; event int64 [S, W], the index of each event that
    the model reads in its session, -1 where there is none, and older_event int64 [S, V], the same for the older ones;
    sessions int64 [S + 1], offsets into the session events.

    Per session event: event_id, item ids as sent; event_item int64 [E], index of the item in the catalogue, 0 where
    it is unknown.

    Per item: slate int64 [T]; item_id, as sent; item int64 [T], index in the catalogue, 0 where it is unknown; position
    int64 [T]; ranking_score and reranking_score float64 [T], as sent, the same where there is no re-ranker; features
    float64 [T, F], the input of the re-ranker, all NaN in a foreign slate.
    """

    batch: pa.RecordBatch
    offsets: Ints
    foreign: Bools
    histories: Histories
    event: Ints
    older_event: Ints
    sessions: Ints
    event_id: pa.StringArray
    event_item: Ints
    slate: Ints
    item_id: pa.StringArray
    item: Ints
    position: Ints
    ranking_score: Doubles
    reranking_score: Doubles
    features: Doubles

    def __len__(self) -> int:
        return len(self.foreign)

    @property
    def known(self) -> Bools:
        """Whether the catalogue has the item, bool [T]."""
        return self.item > 0

    def texts(self, field: str) -> list[str]:
        """Return a text field of each impression, such as ``locale``."""
        return cast("list[str]", self.batch.column(field).to_pylist())

    def timestamps_ms(self) -> Ints:
        """Return when each slate was shown, milliseconds since 1970: int64 [S]."""
        return cast("Ints", self.batch.column("timestamp_ms").to_numpy())

    def impression(self, slate: int) -> Impression:
        """Return one impression as a record."""
        [record] = to_records("impression", self.batch.slice(slate, 1))
        return cast("Impression", record)

    def mean(self, values: npt.NDArray[np.floating], over: Bools) -> Floats:
        """Mean of values [T, …] over some items of each slate, float32 [S, …]; 0 where a slate has none of them."""
        means = np.zeros((len(self), *values.shape[1:]), dtype=np.float32)
        counts = np.bincount(self.slate[over], minlength=len(means))
        filled = np.flatnonzero(counts)
        if len(filled):
            starts = np.concatenate([[0], np.cumsum(counts[filled])[:-1]])
            sums = np.add.reduceat(values[over], starts, axis=0)
            means[filled] = sums / counts[filled].reshape(-1, *[1] * (values.ndim - 1))
        return means


def watched(histories: Histories, bundle: Bundle) -> Bools:
    """Which columns of the histories hold an event that is a sign of interest, bool [S, W]: none of a negative role."""
    is_interest = np.array([False, *(each.role != "negative" for each in bundle.engagements)])
    found: Bools = is_interest[histories.engagement]
    return found


def histories_of(
    sessions: Ints, foreign: Bools, item: Ints, engagement: Ints, max_length: int
) -> tuple[Histories, Ints, Ints]:
    """Select the events of each session that the bundle knows; the session model reads the newest ``max_length``.

    sessions int64 [S + 1]: offsets into the events; foreign bool [S], slates without a history; item and engagement
    int64 [E], indices of the bundle, 0 where unknown. Returns the histories and the index of each of their events in
    its session, -1 where there is none: of those that the model reads, int64 [S, W], and of the older ones, int64
    [S, V].
    """
    items, engagements, events, known = _line_up(sessions, foreign, item, engagement)
    length = np.minimum(known, max_length)
    before = max(0, items.shape[1] - max_length)
    if before == 0:
        return Histories(items, engagements, length), events, np.zeros((len(known), 0), dtype=np.int64)
    # Compiled functions expect whole arrays, not views of their columns.
    [older_items, items], [older_engagements, engagements], [older_events, events] = (
        [np.ascontiguousarray(part) for part in np.split(columns, [before], axis=1)]
        for columns in (items, engagements, events)
    )
    older = Histories(older_items, older_engagements, known - length)
    return Histories(items, engagements, length, older), events, older_events


@compiled
def _line_up(sessions: Any, foreign: Any, item: Any, engagement: Any) -> Any:
    length = np.zeros(foreign.shape[0], np.int64)
    for slate in range(len(length)):
        for place in range(sessions[slate], sessions[slate + 1]):
            length[slate] += item[place] > 0 and engagement[place] > 0 and not foreign[slate]
    # One column at least, so that a batch without any history needs no special case.
    width = 1
    for slate in range(len(length)):
        width = max(width, length[slate])
    shape = (len(length), width)
    items, engagements, events = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    for slate in range(len(length)):
        # From the newest event on, so that the newest event is in the last column.
        column, place = width, sessions[slate + 1]
        while column > width - length[slate]:
            place -= 1
            if item[place] > 0 and engagement[place] > 0:
                column -= 1
                items[slate, column], engagements[slate, column] = item[place], engagement[place]
                events[slate, column] = place - sessions[slate]
    return items, engagements, events, length
