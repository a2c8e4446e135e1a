"""Write Avro bytes from arrays: what :mod:`stream.explain.encode` has compiled.

Strings come as one run of bytes with the start of each; the buffer is large enough by the caller's reckoning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stream.avro import compiled

Bytes = npt.NDArray[np.uint8]

_SAID_BY_NOBODY = 3
"""The status model_mismatch, in the order of ``schemas.events.STATUSES``: nothing is said of attention."""

_AUDITED_FEATURES = 3


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
def _put_float(out: Any, at: int, bits: Any) -> int:
    for shift in range(0, 32, 8):
        out[at] = np.uint8((np.uint64(bits) >> np.uint64(shift)) & np.uint64(0xFF))
        at += 1
    return at


@compiled
def _put_maybe(out: Any, at: int, bits: Any) -> int:
    """Write a union of null and float; a NaN is null."""
    if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
        out[at] = 0
        return at + 1
    out[at] = 2
    return _put_float(out, at + 1, bits)


@compiled
def _copy(out: Any, at: int, data: Any, starts: Any, number: int) -> int:
    for place in range(starts[number], starts[number + 1]):
        out[at] = data[place]
        at += 1
    return at


@compiled
def _put_string(out: Any, at: int, data: Any, starts: Any, number: int) -> int:
    return _copy(out, _put_long(out, at, starts[number + 1] - starts[number]), data, starts, number)


@compiled
def _put_count(out: Any, at: int, number: int) -> int:
    """Begin an array's only block; an empty array has none."""
    return _put_long(out, at, number) if number else at


@compiled
def _put_citations(out: Any, at: int, data: Any, starts: Any, places: Any, measured: Any) -> int:
    count = 0
    for number in range(places.shape[0]):
        count += places[number, 0] > 0
    if count:
        at = _put_long(out, at, count)
        for number in range(places.shape[0]):
            if places[number, 0] > 0:
                at = _copy(out, at, data, starts, places[number, 0])
                at = _put_long(out, at, places[number, 1])
                for column in range(3):
                    at = _put_float(out, at, measured[number, column])
                at = _put_long(out, at, places[number, 2])
                at = _put_long(out, at, places[number, 3])
    out[at] = 0
    return at + 1


@compiled
def _put_features(out: Any, at: int, data: Any, starts: Any, top: Any, told: Any, value: Any, contribution: Any) -> int:
    count = 0
    for number in range(top.shape[0]):
        count += told[number]
    if count:
        at = _put_long(out, at, count)
        for number in range(top.shape[0]):
            if told[number]:
                at = _copy(out, at, data, starts, top[number])
                at = _put_float(out, at, value[number])
                at = _put_float(out, at, contribution[number])
    out[at] = 0
    return at + 1


@compiled
def put_explanations(
    out: Any,
    heads: Any,
    head_starts: Any,
    ids: Any,
    id_starts: Any,
    texts: Any,
    text_starts: Any,
    bases: Any,
    basis_starts: Any,
    names: Any,
    name_starts: Any,
    cited: Any,
    cited_starts: Any,
    offsets: Any,
    items: Any,
    top: Any,
    told: Any,
    value: Any,
    contribution: Any,
    places: Any,
    measured: Any,
    shares: Any,
) -> Any:
    """Write explanations; return where each ends. ``items``: position, type, status, basis or -1."""
    ends = np.empty(offsets.shape[0] - 1, np.int64)
    at = 0
    for slate in range(ends.shape[0]):
        at = _copy(out, at, heads, head_starts, slate)
        for row in range(offsets[slate], offsets[slate + 1]):
            at = _copy(out, at, ids, id_starts, row)
            for column in range(3):
                at = _put_long(out, at, items[row, column])
            at = _put_string(out, at, texts, text_starts, row)
            at = _put_string(out, at, bases, basis_starts, row)
            at = _put_citations(out, at, cited, cited_starts, places[row], measured[row])
            at = _put_features(out, at, names, name_starts, top[row], told[row], value[row], contribution[row])
            for column in range(3):
                at = _put_maybe(out, at, shares[row, column])
            if items[row, 3] >= 0:
                out[at] = 2
                at = _put_long(out, at + 1, items[row, 3])
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
    past: Any,
    past_starts: Any,
    ids: Any,
    id_starts: Any,
    names: Any,
    name_starts: Any,
    took: Any,
    sessions: Any,
    offsets: Any,
    items: Any,
    scores: Any,
    top: Any,
    told: Any,
    contribution: Any,
    places: Any,
    events: Any,
    weights: Any,
    hashes: Any,
) -> Any:
    """Write what stands in audit records after where the impression came from; return where each ends."""
    ends = np.empty(offsets.shape[0] - 1, np.int64)
    at = 0
    for slate in range(ends.shape[0]):
        at = _put_float(out, at, took[0])
        at = _put_count(out, at, sessions[slate + 1] - sessions[slate])
        for row in range(sessions[slate], sessions[slate + 1]):
            at = _copy(out, at, past, past_starts, row)
        out[at] = 0
        at = _put_count(out, at + 1, offsets[slate + 1] - offsets[slate])
        for row in range(offsets[slate], offsets[slate + 1]):
            at = _copy(out, at, ids, id_starts, row)
            at = _put_long(out, at, items[row, 0])
            at = _put_float(out, at, scores[row, 0])
            at = _put_float(out, at, scores[row, 1])
            at = _put_long(out, at, items[row, 1])
            at = _put_long(out, at, items[row, 2])
            for place in range(hashes.shape[1]):
                out[at] = hashes[row, place]
                at += 1
            at = _put_shap(out, at, names, name_starts, top[row], told[row], contribution[row])
            at = _put_attention(out, at, events[slate], weights[slate], items[row, 2] != _SAID_BY_NOBODY)
            at = _put_cited(out, at, places[row])
        out[at] = 0
        at += 1
        ends[slate] = at
    return ends


@compiled
def _put_shap(out: Any, at: int, names: Any, name_starts: Any, top: Any, told: Any, contribution: Any) -> int:
    count = 0
    for number in range(top.shape[0]):
        count += told[number]
    count = min(count, _AUDITED_FEATURES)
    if count:
        at = _put_long(out, at, count)
        for number in range(top.shape[0]):
            if told[number] and count:
                at = _copy(out, at, names, name_starts, top[number])
                at = _put_float(out, at, contribution[number])
                count -= 1
    out[at] = 0
    return at + 1


@compiled
def _put_attention(out: Any, at: int, events: Any, weights: Any, told: bool) -> int:
    count = 0
    for number in range(events.shape[0]):
        count += told and events[number] >= 0
    if count:
        at = _put_long(out, at, count)
        for number in range(events.shape[0]):
            if events[number] >= 0:
                at = _put_long(out, at, events[number])
                at = _put_float(out, at, weights[number])
    out[at] = 0
    return at + 1


@compiled
def _put_cited(out: Any, at: int, places: Any) -> int:
    count = 0
    for number in range(places.shape[0]):
        count += places[number, 0] > 0
    if count:
        at = _put_long(out, at, count)
        for number in range(places.shape[0]):
            if places[number, 0] > 0:
                at = _put_long(out, at, places[number, 1])
    out[at] = 0
    return at + 1
