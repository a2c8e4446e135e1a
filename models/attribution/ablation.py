"""Ablation: the session vectors of sessions that past events were taken away from.

An :class:`Edits` table says which session is edited and how; :func:`session_vectors` computes the vectors. Citations,
counterfactual ranks, recourse and the ledger all ask this function, so the same edit has the same vector, to the bit,
everywhere.

The first three ablations were measured against each other. Masking agrees with deletion to a rank correlation of .88
and with blanking to .67, so masking may propose an event and the other two must confirm it.

============  =====================================================================================  =================
ablation      meaning                                                                                also known as
============  =====================================================================================  =================
deletion      the session is run without the event; older events move up by one position, and an     leave-one-out
              event from before the window, which the model did not read, moves into it
blanking      the event keeps its position, and its embedding is zero                                occlusion
masking       the event's key is hidden from attention, and all other events keep their positions    attention masking
substitution  frequent items that are not in the session take the event's place, one after the       marginalisation
              other, with its engagement; their session vectors are averaged
============  =====================================================================================  =================

The newest event is the query of the last layer, so it cannot be masked: its masking is a run of the window's other
events, of which the newest is the query.

Where the session model has incremental inference, only the positions after the first changed one are computed, from the
KV cache of the reading. Otherwise the graph runs each edited session, and masking is available if the graph has the
output ``without`` or the input ``event_mask``. Any graph allows deletion, and substitution if the bundle lists
substitutes. Which of these ablations a citation must survive, the bundle says (:func:`available`).

An ablation that cannot be made has a session vector of NaN: the deletion of all events where nobody knows what an empty
session is for the recommender, or a substitution where all substitutes are in the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from models.compiled import compiled
from models.errors import BundleError, SessionInputError
from models.manifest import AblationName
from models.session.histories import Bools, Floats, Histories, Ints, Reading
from models.session.incremental import plan

if TYPE_CHECKING:
    from models.session.runtime import SessionModel

DELETE, BLANK, MASK, MASK_LAST_QUERY, SUBSTITUTE = range(5)
"""Kinds of edits. MASK_LAST_QUERY masks an event for the newest position only.

That approximates MASK at the cost of computing one position: all other positions stay as they were with the event.
"""

_LEAVE_OUT: Final = 5
"""The newest event is left out of the window, and nothing moves in: its masking."""

METHODS: Final[dict[AblationName, int]] = {
    "deletion": DELETE,
    "blanking": BLANK,
    "masking": MASK,
    "substitution": SUBSTITUTE,
}
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

    @property
    def newest_column(self) -> Ints:
        """The column of each edit that concerns one event, -1 for an edit that concerns none: int64 [n]."""
        newest: Ints = self.columns.max(axis=1, initial=-1)
        return newest

    def take(self, rows: Ints | Bools) -> Edits:
        """Select some of the edits."""
        return Edits(self.session[rows], self.kind[rows], self.columns[rows])

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
    """List the ablations that a citation must survive; deletion is the first.

    Those are the ones that the bundle demands, by default all but substitution that the graph allows.

    Raises:
        BundleError: the graph does not allow an ablation that the bundle demands.

    """
    masks = model.incremental is not None or model.has_without or model.has_event_mask
    able = {"deletion": True, "blanking": model.has_blank, "masking": masks, "substitution": len(model.substitutes) > 0}
    if model.ablations is None:
        return tuple(kind for name, kind in METHODS.items() if able[name] and kind != SUBSTITUTE)
    lacking = [name for name in model.ablations if not able[name]]
    if lacking:
        raise BundleError(
            f"manifest.json: expected ablations that the session model allows, got {', '.join(lacking)}: take them "
            "out, or export the graph with the blank event (blanking) or the input event_mask (masking)."
        )
    return tuple(kind for name, kind in METHODS.items() if name in model.ablations)


def names(model: SessionModel) -> tuple[AblationName, ...]:
    """Name the ablations that a citation must survive, in the order of METHODS; BundleError as of :func:`available`."""
    return tuple(name for name, kind in METHODS.items() if kind in available(model))


def session_vectors(model: SessionModel, reading: Reading, edits: Edits) -> Floats:
    """Session vectors of edited sessions, float32 [n, d]; NaN for an ablation that cannot be made.

    A session that no event is left of has the model's vector of an empty session.

    Args:
        model: the session model.
        reading: of the histories that are edited, by the same model.
        edits: which sessions to edit, and how.

    Raises:
        SessionInputError: the model does not allow a kind of edit; or an edit concerns a column without an event, or a
            number of events that its kind does not allow.

    """
    _check(model, reading, edits)
    replaces = edits.kind == SUBSTITUTE
    if replaces.any():
        vectors = np.empty((len(edits), model.dimension), dtype=np.float32)
        vectors[~replaces] = _less(model, reading, edits.take(~replaces))
        vectors[replaces] = _substituted(model, reading, edits.take(replaces))
    else:
        vectors = _less(model, reading, edits)
    unchanged = ((edits.columns < 0) | (edits.columns >= reading.histories.width)).all(axis=1)
    vectors[unchanged] = reading.vector[edits.session[unchanged]]
    return vectors


def remaining(histories: Histories, edits: Edits) -> tuple[Ints, Ints]:
    """Return what deletions leave of n whole sessions, items and engagements int64 [n, L], left-padded, newest last.

    The session model reads the newest events of it.
    """
    older = Histories(*(np.zeros((len(histories), 0), np.int64),) * 2, histories.length * 0)
    parts = histories.older or older, histories
    item, engagement = (
        np.concatenate([getattr(part, name)[edits.session] for part in parts], axis=1)
        for name in ("item", "engagement")
    )
    # Columns of an edit count the window first, and the older events behind it.
    behind = item.shape[1] - histories.width
    edit, place = np.nonzero(edits.columns >= 0)
    column = edits.columns[edit, place]
    item[edit, np.where(column < histories.width, column + behind, column - histories.width)] = 0
    order = np.argsort(item > 0, axis=1, kind="stable")
    left: tuple[Ints, Ints] = (np.take_along_axis(item, order, axis=1), np.take_along_axis(engagement, order, axis=1))
    return left[0], np.where(left[0] > 0, left[1], 0)


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
    if not len(model.substitutes) and (edits.kind == SUBSTITUTE).any():
        raise SessionInputError(
            "expected a bundle with substitutes, got one without: use deletion, or list some in the manifest."
        )
    if reading.cache is not None:
        return
    cannot_mask = reading.masked is None and not model.has_event_mask
    if (edits.kind == MASK_LAST_QUERY).any() or (cannot_mask and (edits.kind == MASK).any()):
        raise SessionInputError(
            "expected a session model that can mask these events, got one without incremental inference, the output "
            "`without` or the input `event_mask`: use deletion, or export the model with them."
        )


def _less(model: SessionModel, reading: Reading, edits: Edits) -> Floats:
    """Session vectors after edits of every kind but substitution."""
    if model.incremental is None or reading.cache is None:
        return _by_graph(model, reading, edits)
    edited, runs = _planned(model, reading.histories, edits)
    vectors = model.incremental.vectors(reading.cache, edited.item, edited.engagement, runs)
    vectors[edited.length == 0] = model.empty_vector
    return vectors


def _planned(model: SessionModel, histories: Histories, edits: Edits) -> tuple[Histories, Ints]:
    """Return the edited histories, and which of their positions incremental inference has to compute."""
    width, column, kind = histories.width, edits.newest_column, _kind(histories, edits)
    # Only the newest position attends to the event before it, so both kinds of masking are the same there.
    kind = np.where((kind == MASK) & (column == width - 2), MASK_LAST_QUERY, kind)
    edited, first = _edited(model, histories, Edits(edits.session, kind, edits.columns))
    moved = histories.length[edits.session] - edited.length
    kept = np.where(kind == MASK_LAST_QUERY, width - 1, first)
    masked = np.where((kind == MASK) | (kind == MASK_LAST_QUERY), column, -1)
    return edited, plan(edits.session, kept, moved, edited.length, width, masked)


def _by_graph(model: SessionModel, reading: Reading, edits: Edits) -> Floats:
    """Run the graph on each edited session, unless it masked the event as it read the session."""
    histories, masks = reading.histories, edits.kind == MASK
    vectors = np.empty((len(edits), model.dimension), dtype=np.float32)
    read = masks if reading.masked is not None else np.zeros_like(masks)
    if reading.masked is not None:
        vectors[read] = reading.masked[edits.session[read], edits.newest_column[read]]
        vectors[read & (histories.length[edits.session] == 1)] = model.empty_vector
    part = edits.take(~read)
    kind = _kind(histories, part)
    edited, _ = _edited(model, histories, Edits(part.session, kind, part.columns))
    mask = None
    if (kind == MASK).any():
        mask = (kind != MASK)[:, None] | (np.arange(histories.width) != part.newest_column[:, None])
    vectors[~read] = model.run(edited.item, edited.engagement, without=False, event_mask=mask).vector
    return vectors


def _kind(histories: Histories, edits: Edits) -> Ints:
    """Return the kinds of edits, int64 [n], with the masking of the newest event as what it is, leaving it out."""
    masks = (edits.kind == MASK) | (edits.kind == MASK_LAST_QUERY)
    return np.where(masks & (edits.newest_column == histories.width - 1), _LEAVE_OUT, edits.kind)


def _substituted(model: SessionModel, reading: Reading, edits: Edits) -> Floats:
    """Mean session vector over the substitutes that the session lacks, float32 [n, d]; NaN where it lacks none."""
    histories, column = reading.histories, edits.newest_column
    present = (histories.all_items[edits.session][:, :, None] == model.substitutes).any(axis=1)
    edit, which = np.nonzero(~present & (column >= 0)[:, None])
    session, column = edits.session[edit], column[edit]
    item, engagement = histories.item[session], histories.engagement[session]
    item[np.arange(len(item)), column] = model.substitutes[which]
    if model.incremental is None or reading.cache is None:
        each = model.run(item, engagement, without=False).vector
    else:
        none, length = np.zeros_like(session), histories.length[session]
        runs = plan(session, column, none, length, histories.width, np.full_like(session, -1))
        each = model.incremental.vectors(reading.cache, item, engagement, runs)
    means = np.full((len(edits), model.dimension), np.nan, dtype=np.float32)
    filled, starts, counts = np.unique(edit, return_index=True, return_counts=True)
    if len(filled):
        means[filled] = np.add.reduceat(each, starts, axis=0) / counts[:, None].astype(np.float32)
    return means


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
                if kind[n] == DELETE or kind[n] == _LEAVE_OUT:
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
            if room > 0 and not concerned and kind[n] == DELETE:
                target -= 1
                edited_item[n, target] = older_item[session[n], source]
                edited_engagement[n, target] = older_engagement[session[n], source]
                first[n], room = width - length[n], room - 1
        length[n] -= room
