"""Write Avro bytes from arrays: what :mod:`stream.explain.encode` has compiled.

Strings come as one run of bytes with the start of each; the buffer is large enough by the caller's reckoning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.compiled import compiled

Bytes = npt.NDArray[np.uint8]

_SAID_BY_NOBODY = 3
"""The status model_mismatch, in the order of ``schemas.events.STATUSES``: nothing is said of attention."""

_AUDITED_FEATURES = 3
_AUDITED_EVENTS = 2
_FLOAT_LIMIT = float(np.finfo(np.float32).max)


@compiled
def _put_long(out: Any, at: int, value: int) -> int:
    rest = np.uint64(np.int64(value) << 1) ^ np.uint64(np.int64(value) >> 63)
    while rest > np.uint64(0x7F):
        out[at] = np.uint8((rest & np.uint64(0x7F)) | np.uint64(0x80))
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@compiled
def _put_float(out: Any, at: int, value: Any, odd: Any) -> int:
    """Write a number as a float; a finite one that no float holds is odd."""
    odd[0] |= _FLOAT_LIMIT < abs(value) < np.inf
    bits = np.float32(value).view(np.uint32)
    for shift in range(0, 32, 8):
        out[at] = np.uint8((np.uint64(bits) >> np.uint64(shift)) & np.uint64(0xFF))
        at += 1
    return at


@compiled
def _put_maybe(out: Any, at: int, value: Any, odd: Any) -> int:
    """Write a union of null and float; a NaN is null."""
    if np.isnan(value):
        out[at] = 0
        return at + 1
    out[at] = 2
    return _put_float(out, at + 1, value, odd)


@compiled
def _copy(out: Any, at: int, data: Any, starts: Any, number: int) -> int:
    # Places without a sign need no look at whether they count from the end, and so many bytes are copied at once.
    start, to = np.uint64(starts[number]), np.uint64(at)
    size = np.uint64(starts[number + 1]) - start
    for place in range(size):
        out[to + place] = data[start + place]
    return at + int(size)


@compiled
def _put_string(out: Any, at: int, data: Any, starts: Any, number: int) -> int:
    return _copy(out, _put_long(out, at, starts[number + 1] - starts[number]), data, starts, number)


@compiled
def _put_count(out: Any, at: int, number: int) -> int:
    """Begin an array's only block; an empty array has none."""
    return _put_long(out, at, number) if number else at


@compiled
def _cited(column: Any, items: Any) -> int:
    """How many events are cited: those of an item that the catalogue knows."""
    count = 0
    for number in range(column.shape[0]):
        count += column[number] >= 0 and items[column[number]] > 0
    return count


@compiled
def _told(top: Any, contribution: Any) -> int:
    """How many of the largest contributions there are."""
    count = 0
    for number in range(top.shape[0]):
        count += contribution[top[number]] != 0
    return count


@compiled
def put_explanations(
    out: Any,
    odd: Any,
    heads: Any,
    head_starts: Any,
    ids: Any,
    id_starts: Any,
    id_: Any,
    texts: Any,
    text_starts: Any,
    text: Any,
    bases: Any,
    basis_starts: Any,
    basis: Any,
    names: Any,
    name_starts: Any,
    known: Any,
    known_starts: Any,
    offsets: Any,
    history: Any,
    event: Any,
    attention: Any,
    position: Any,
    kinds: Any,
    statuses: Any,
    steps: Any,
    column: Any,
    attribution: Any,
    drop: Any,
    rank: Any,
    rank_without: Any,
    top: Any,
    value: Any,
    contribution: Any,
    personal_share: Any,
    sound: Any,
    category_match: Any,
    matches: Any,
    length: Any,
    residual: Any,
) -> Any:
    """Write explanations; return where each ends. ``odd[0]`` says afterwards whether some number was no float."""
    ends = np.empty(offsets.shape[0] - 1, np.int64)
    at = 0
    for slate in range(ends.shape[0]):
        at = _copy(out, at, heads, head_starts, slate)
        for row in range(offsets[slate], offsets[slate + 1]):
            at = _copy(out, at, ids, id_starts, id_[row])
            at = _put_long(out, at, position[row])
            at = _put_long(out, at, kinds[row])
            at = _put_long(out, at, statuses[row])
            at = _put_string(out, at, texts, text_starts, text[row])
            at = _put_string(out, at, bases, basis_starts, basis[row])
            at = _put_count(out, at, _cited(column[row], history[slate]))
            for number in range(column.shape[1]):
                past = column[row, number]
                if past >= 0 and history[slate, past] > 0:
                    at = _copy(out, at, known, known_starts, history[slate, past])
                    at = _put_long(out, at, event[slate, past])
                    at = _put_float(out, at, attention[slate, past], odd)
                    at = _put_float(out, at, attribution[row, number], odd)
                    at = _put_float(out, at, drop[row, number], odd)
                    at = _put_long(out, at, rank[row])
                    at = _put_long(out, at, rank_without[row, number])
            out[at] = 0
            at = _put_count(out, at + 1, _told(top[row], contribution[row]))
            for number in range(top.shape[1]):
                feature = top[row, number]
                if contribution[row, feature] != 0:
                    at = _copy(out, at, names, name_starts, feature)
                    at = _put_float(out, at, value[row, feature], odd)
                    at = _put_float(out, at, contribution[row, feature], odd)
            out[at] = 0
            at = _put_maybe(out, at + 1, personal_share[row] if sound[row] else np.float32(np.nan), odd)
            vouched = matches[row] and length[slate] > 0
            at = _put_maybe(out, at, category_match[row] if vouched else np.float32(np.nan), odd)
            at = _put_maybe(out, at, residual[row], odd)
            if steps[row] >= 0:
                out[at] = 2
                at = _put_long(out, at + 1, steps[row])
            else:
                out[at] = 0
                at += 1
            out[at] = 0  # no detail
            at += 1
        out[at] = 0
        at += 1
        ends[slate] = at
    return ends


@compiled
def put_audits(
    out: Any,
    odd: Any,
    past: Any,
    past_starts: Any,
    past_id: Any,
    ids: Any,
    id_starts: Any,
    id_: Any,
    names: Any,
    name_starts: Any,
    took: Any,
    sessions: Any,
    offsets: Any,
    history: Any,
    event: Any,
    attention: Any,
    position: Any,
    ranking: Any,
    reranking: Any,
    kinds: Any,
    statuses: Any,
    hashes: Any,
    text: Any,
    column: Any,
    top: Any,
    contribution: Any,
) -> Any:
    """Write what stands in audit records after where the impression came from; return where each ends."""
    ends = np.empty(offsets.shape[0] - 1, np.int64)
    most = np.empty(_AUDITED_EVENTS, np.int64)
    at = 0
    for slate in range(ends.shape[0]):
        at = _put_float(out, at, took[0], odd)
        at = _put_count(out, at, sessions[slate + 1] - sessions[slate])
        for row in range(sessions[slate], sessions[slate + 1]):
            at = _copy(out, at, past, past_starts, past_id[row])
        out[at] = 0
        at = _put_count(out, at + 1, offsets[slate + 1] - offsets[slate])
        attended = _most_attended(most, event[slate], attention[slate])
        for row in range(offsets[slate], offsets[slate + 1]):
            at = _copy(out, at, ids, id_starts, id_[row])
            at = _put_long(out, at, position[row])
            at = _put_float(out, at, ranking[row], odd)
            at = _put_float(out, at, reranking[row], odd)
            at = _put_long(out, at, kinds[row])
            at = _put_long(out, at, statuses[row])
            for place in range(hashes.shape[1]):
                out[at] = hashes[text[row], place]
                at += 1
            at = _put_shap(out, at, names, name_starts, top[row], contribution[row], odd)
            if statuses[row] != _SAID_BY_NOBODY:
                at = _put_count(out, at, attended)
                for number in range(attended):
                    at = _put_long(out, at, event[slate, most[number]])
                    at = _put_float(out, at, attention[slate, most[number]], odd)
            out[at] = 0
            at = _put_count(out, at + 1, _cited(column[row], history[slate]))
            for number in range(column.shape[1]):
                if column[row, number] >= 0 and history[slate, column[row, number]] > 0:
                    at = _put_long(out, at, event[slate, column[row, number]])
            out[at] = 0
            at += 1
        out[at] = 0
        at += 1
        ends[slate] = at
    return ends


@compiled
def _put_shap(out: Any, at: int, names: Any, name_starts: Any, top: Any, contribution: Any, odd: Any) -> int:
    left = min(_told(top, contribution), _AUDITED_FEATURES)
    at = _put_count(out, at, left)
    for number in range(top.shape[0]):
        if left and contribution[top[number]] != 0:
            at = _copy(out, at, names, name_starts, top[number])
            at = _put_float(out, at, contribution[top[number]], odd)
            left -= 1
    out[at] = 0
    return at + 1


@compiled
def _most_attended(most: Any, event: Any, attention: Any) -> int:
    """Find the columns of a slate's events of most attention, the first of equals first; return how many there are."""
    found = 0
    for column in range(event.shape[0]):
        if event[column] >= 0:
            place = found
            while place > 0 and attention[column] > attention[most[place - 1]]:
                if place < most.shape[0]:
                    most[place] = most[place - 1]
                place -= 1
            if place < most.shape[0]:
                most[place] = column
                found = min(found + 1, most.shape[0])
    return found
