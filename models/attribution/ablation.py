"""Ablation: the session vectors of sessions that past events were taken away from.

An :class:`Edits` table says which session is edited and how; :func:`session_vectors` computes the vectors. Citations,
counterfactual ranks, recourse and the ledger all ask this function, so the same edit has the same vector, to the bit,
everywhere.

Three ablations were measured against each other. Masking agrees with deletion to a rank correlation of .88 and with
blanking to .67, so masking may propose an event and the other two must confirm it.

=========  ====================================================================================  =====================
ablation   meaning                                                                               also known as
=========  ====================================================================================  =====================
deletion   the session is run without the event; older events move up by one position, and from  leave-one-out
           before the window, an event that the model did not read moves into the window
blanking   the event keeps its position, and its embedding is zero                               occlusion
masking    the event's key is hidden from attention, and all other events keep their positions   attention masking
=========  ====================================================================================  =====================

The newest event is the query of the last layer, so it cannot be masked: its masking is its deletion, after which the
event before it is the query.

Where the session model has incremental inference, only the positions after the first changed one are computed, from the
KV cache of the reading. Otherwise the graph runs each edited session, and masking is available if the graph has the
output ``without``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from models.compiled import compiled
from models.errors import SessionInputError
from models.session.histories import Bools, Floats, Histories, Ints, Reading
from models.session.incremental import plan

if TYPE_CHECKING:
    from models.session.runtime import SessionModel

DELETE, BLANK, MASK, MASK_LAST_QUERY = range(4)
"""Kinds of edits. MASK_LAST_QUERY masks an event for the newest position only.

That approximates MASK at the cost of computing one position: all other positions stay as they were with the event.
"""

METHODS: Final[dict[str, int]] = {"deletion": DELETE, "blanking": BLANK, "masking": MASK}
"""The ablations by name; see :func:`every_event`."""


@dataclass(frozen=True, slots=True)
class Edits:
    """n edited sessions.

    session int64 [n], the row of the edited history; kind int64 [n]; columns int64 [n, E], the columns that the edit
    concerns, in any order, -1 for none: columns 0 to W - 1 are those of the window, column W + c is column c of the
    older events. A deletion concerns any number of events, every other kind one event of the window. An edit that
    concerns no event of the window leaves the session as it was read.
    """

    session: Ints
    kind: Ints
    columns: Ints

    def __len__(self) -> int:
        return len(self.session)

    @classmethod
    def of_events(cls, kind: int, session: Ints, column: Ints) -> Self:
        """Edit one event each; session and column int64 [n]."""
        return cls(session, np.full(len(session), kind), column[:, None])

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put edits that concern equally many columns one after the other."""
        fields = zip(*((part.session, part.kind, part.columns) for part in parts), strict=True)
        return cls(*map(np.concatenate, fields))

    @classmethod
    def deletions(cls, session: Ints, deleted: Bools) -> Self:
        """Delete the events in the columns that are marked; session int64 [n], deleted bool [n, W] or [n, W + V]."""
        marked = np.argsort(~deleted, axis=1, kind="stable")[:, : int(deleted.sum(axis=1).max(initial=0))]
        columns = np.where(np.take_along_axis(deleted, marked, axis=1), marked, -1)
        return cls(session, np.full(len(session), DELETE), columns)


def available(model: SessionModel) -> tuple[int, ...]:
    """List the ablations that a session model allows; deletion is always among them."""
    masks = model.incremental is not None or model.has_without
    return (DELETE, *((BLANK,) if model.has_blank else ()), *((MASK,) if masks else ()))


def names(model: SessionModel) -> tuple[str, ...]:
    """Name the ablations that a session model allows, in the order of METHODS."""
    return tuple(name for name, kind in METHODS.items() if kind in available(model))


def session_vectors(model: SessionModel, reading: Reading, edits: Edits) -> Floats:
    """Session vectors of edited sessions, float32 [n, d]; zero for a session that no event is left of.

    Args:
        model: the session model.
        reading: of the histories that are edited, by the same model.
        edits: which sessions to edit, and how.

    Raises:
        SessionInputError: the model does not allow a kind of edit; or an edit concerns a column without an event, or a
            number of events that its kind does not allow.

    """
    _check(model, reading, edits)
    if model.incremental is None or reading.cache is None:
        vectors = _by_graph(model, reading, edits)
    else:
        edited, runs = _planned(model, reading.histories, edits)
        vectors = model.incremental.vectors(reading.cache, edited.item, edited.engagement, runs)
    unchanged = ((edits.columns < 0) | (edits.columns >= reading.histories.width)).all(axis=1)
    vectors[unchanged] = reading.vector[edits.session[unchanged]]
    return vectors


def every_event(model: SessionModel, reading: Reading, kind: int) -> Floats:
    """Session vector without each event of each history by one ablation, float32 [K, W, d]; zero at padding."""
    vectors = np.zeros((*reading.histories.item.shape, model.dimension), dtype=np.float32)
    session, column = np.nonzero(reading.histories.present)
    vectors[session, column] = session_vectors(model, reading, Edits.of_events(kind, session, column))
    return vectors


def _check(model: SessionModel, reading: Reading, edits: Edits) -> None:
    columns, items = edits.columns, reading.histories.all_items
    outside = columns >= items.shape[1]
    if outside.any() or (items[edits.session[:, None], columns][columns >= 0] == 0).any():
        raise SessionInputError("expected columns that hold an event of the edited history, got padding: correct them.")
    one_event = (columns >= 0).sum(axis=1) <= 1
    in_window = (columns < reading.histories.width).all(axis=1)
    if not (one_event & in_window)[edits.kind != DELETE].all():
        raise SessionInputError(
            "expected edits of one event of the window each, got others: only a deletion may concern several or older "
            "events."
        )
    if not model.has_blank and (edits.kind == BLANK).any():
        raise SessionInputError(
            "expected a session model with the blank event, got one without: use deletion, or export the model with it."
        )
    if reading.cache is not None:
        return
    if (edits.kind == MASK_LAST_QUERY).any() or (reading.masked is None and (edits.kind == MASK).any()):
        raise SessionInputError(
            "expected a session model that can mask these events, got one without incremental inference or the output "
            "`without`: use deletion, or export the model with them."
        )


def _planned(model: SessionModel, histories: Histories, edits: Edits) -> tuple[Histories, Ints]:
    """Return the edited histories, and which of their positions incremental inference has to compute."""
    width, column, kind = histories.width, edits.columns.max(axis=1, initial=-1), edits.kind
    kind = np.where((kind >= MASK) & (column == width - 1), DELETE, kind)
    # Only the newest position attends to the event before it, so both kinds of masking are the same there.
    kind = np.where((kind == MASK) & (column == width - 2), MASK_LAST_QUERY, kind)
    edited, first = _edited(model, histories, Edits(edits.session, kind, edits.columns))
    moved = histories.length[edits.session] - edited.length
    kept = np.where(kind == MASK_LAST_QUERY, width - 1, first)
    masked = np.where(kind >= MASK, column, -1)
    return edited, plan(edits.session, kept, moved, edited.length, width, masked)


def _by_graph(model: SessionModel, reading: Reading, edits: Edits) -> Floats:
    """Run the graph on each edited session; a masked event was masked by the graph as it read the session."""
    vectors = np.zeros((len(edits), model.dimension), dtype=np.float32)
    run = np.flatnonzero(edits.kind < MASK)
    edited, _ = _edited(model, reading.histories, Edits(edits.session[run], edits.kind[run], edits.columns[run]))
    vectors[run] = model.run(edited.item, edited.engagement, without=False).vector
    if reading.masked is not None:
        masked = np.flatnonzero(edits.kind == MASK)
        vectors[masked] = reading.masked[edits.session[masked], edits.columns[masked].max(axis=1, initial=-1)]
    return vectors


def _edited(model: SessionModel, histories: Histories, edits: Edits) -> tuple[Histories, Ints]:
    """Return the edited histories, and the first column of each that an edit concerns, int64 [n]."""
    shape = (len(edits), histories.width)
    item, engagement = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    length, first = histories.length[edits.session], np.full(len(edits), histories.width - 1)
    none = np.zeros((len(histories), 0), dtype=np.int64)
    older = Histories(none, none, np.zeros_like(histories.length)) if histories.older is None else histories.older
    _write(
        edits.session, edits.kind, edits.columns, histories.item, histories.engagement, older.item, older.engagement,
        older.length, model.blank_event, item, engagement, length, first,
    )  # fmt: skip
    return Histories(item, engagement, length), first


@compiled
def _write(
    session: Any, kind: Any, columns: Any, item: Any, engagement: Any, older_item: Any, older_engagement: Any,
    older_length: Any, blank: Any, edited_item: Any, edited_engagement: Any, length: Any, first: Any,
) -> None:  # fmt: skip
    """Write edited histories to zeros int64 [n, W], with their lengths, and find the first columns concerned.

    The first column concerned is the oldest one where an older event moves into the window, since all positions change.
    """
    width, older = item.shape[1], older_item.shape[1]
    for n in range(len(session)):
        room = 0
        target = width
        for source in range(width - 1, -1, -1):
            concerned = False
            for column in columns[n]:
                concerned |= column == source
            if concerned:
                first[n] = source
                if kind[n] == DELETE:
                    room += 1
                    continue  # the events before it move one column to the right
            target -= 1
            edited_item[n, target] = item[session[n], source]
            edited_engagement[n, target] = engagement[session[n], source]
            if concerned and kind[n] == BLANK:
                edited_item[n, target], edited_engagement[n, target] = blank
        target = width - length[n] + room
        for source in range(older - 1, older - 1 - older_length[session[n]], -1):
            concerned = False
            for column in columns[n]:
                concerned |= column == width + source
            if room > 0 and not concerned:
                target -= 1
                edited_item[n, target] = older_item[session[n], source]
                edited_engagement[n, target] = older_engagement[session[n], source]
                first[n], room = width - length[n], room - 1
        length[n] -= room
