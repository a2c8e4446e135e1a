"""Audit records in plain Avro straight to columns, without an object for each entry.

Decoding is the slow step of a sink written in Python. This reads the newest audit schema and nothing else, and it is
strict: where a message is not exactly what that schema says, it declines the whole batch, and the codec, which can say
what is wrong, has the word. Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.compiled import compiled
from schemas.events import EXPLANATION_TYPES, STATUSES
from stream.archive.rows.slates import Fields, Int64s
from stream.avro import BAD, read_block, read_fixed, read_float_bits, read_int, read_long, read_string

Bytes = npt.NDArray[np.uint8]

SMALLEST_ENTRY: Final = 23
"""Bytes of an entry whose strings and lists are empty: how many a message can have at most follows from its length."""

SMALLEST_PAIR: Final = 5
"""The same of a SHAP value and of an attention weight: an empty string or a small number, and a float."""

_TYPES = len(EXPLANATION_TYPES)
_STATUSES = len(STATUSES)
_INT_LIMIT = 2**31


def decode_newest(bodies: Sequence[bytes | memoryview], offsets: Int64s) -> Fields | None:
    """Decode Avro bodies of the newest audit schema; ``offsets`` int64 [n] are theirs in the audit partition.

    Returns None if any of them is not such a body.
    """
    data = np.frombuffer(b"".join(bodies), np.uint8)
    n, size = len(bodies), len(data)
    ends = np.cumsum([len(body) for body in bodies], dtype=np.int64)
    starts = ends - np.array([len(body) for body in bodies], np.int64)
    head = np.empty((n, 32), np.uint8)  # request id, user, hash of the wording
    longs = np.empty((n, 2), np.int64)  # time, source offset
    ints = np.empty((n, 4), np.int32)  # source partition, float bits of the time taken, history, entries
    heads = np.empty((n, 4, 2), np.int64)  # region, model version, policy, source topic: where and how long
    most = size // SMALLEST_ENTRY + 1
    history = np.empty((size, 2), np.int64)
    item = np.empty((most, 2), np.int64)
    # position, two scores' bits, type, status, and the lengths of the three lists
    entry = np.empty((most, 8), np.int32)
    text_hash = np.empty((most, 8), np.uint8)
    feature = np.empty((size // SMALLEST_PAIR + 1, 2), np.int64)
    shap = np.empty(size // SMALLEST_PAIR + 1, np.int32)
    attention = np.empty((size // SMALLEST_PAIR + 1, 2), np.int32)
    cited = np.empty(size, np.int32)
    counts = _walk(
        data, starts, ends, head, longs, ints, heads, history, item, entry, text_hash, feature, shap, attention, cited
    )
    if counts[0] == BAD:
        return None
    past, rows, values, weights, citations = counts.tolist()
    strings = [
        _strings(data, places)
        for places in (*(heads[:, place] for place in range(4)), history[:past], item[:rows], feature[:values])
    ]
    try:
        for each in strings:
            each.validate(full=True)  # UTF-8
    except pa.ArrowInvalid:
        return None
    region, model_version, policy, source_topic_id, past_items, item_ids, features = strings
    entry = entry[:rows]
    return Fields(
        offset=offsets,
        request_id=head[:, :16].tobytes(),
        timestamp_ms=longs[:, 0].copy(),
        user_id_hash=head[:, 16:24].tobytes(),
        region=region,
        model_version=model_version,
        policy=policy,
        wording_hash=head[:, 24:].tobytes(),
        source_topic_id=source_topic_id,
        source_partition=ints[:, 0].copy(),
        source_offset=longs[:, 1].copy(),
        computation_time_ms=ints[:, 1].copy().view(np.float32),
        histories=ints[:, 2].copy(),
        history=past_items,
        entries=ints[:, 3].copy(),
        item_id=item_ids,
        position=entry[:, 0].copy(),
        ranking_score=entry[:, 1].copy().view(np.float32),
        reranking_score=entry[:, 2].copy().view(np.float32),
        explanation_type=entry[:, 3].copy(),
        status=entry[:, 4].copy(),
        explanation_text_hash=text_hash[:rows].tobytes(),
        shap=entry[:, 5].copy(),
        shap_feature=features,
        shap_value=shap[:values].view(np.float32),
        attention=entry[:, 6].copy(),
        attention_event=attention[:weights, 0].copy(),
        attention_weight=attention[:weights, 1].copy().view(np.float32),
        cited=entry[:, 7].copy(),
        cited_event=cited[:citations],
    )


def _strings(data: Bytes, places: Int64s) -> pa.StringArray:
    edges = np.zeros(len(places) + 1, np.int32)
    np.cumsum(places[:, 1], out=edges[1:])
    gathered = np.empty(int(edges[-1]), np.uint8)
    _gather(data, places, gathered)
    return pa.StringArray.from_buffers(len(places), pa.py_buffer(edges), pa.py_buffer(gathered))


@compiled
def _gather(data: Any, places: Any, out: Any) -> None:
    to = 0
    for number in range(places.shape[0]):
        start = places[number, 0]
        for at in range(start, start + places[number, 1]):
            out[to] = data[at]
            to += 1


@compiled
def _slate(data: Any, at: int, end: int, head: Any, longs: Any, ints: Any, heads: Any) -> Any:
    """Read a slate up to its history; return where that begins."""
    at = read_fixed(data, at, end, head[:16])
    longs[0], at = read_long(data, at, end)
    at = read_fixed(data, at, end, head[16:24])
    at = read_string(data, at, end, heads[0])
    at = read_string(data, at, end, heads[1])
    at = read_string(data, at, end, heads[2])
    at = read_fixed(data, at, end, head[24:])
    at = read_string(data, at, end, heads[3])
    ints[0], at = read_int(data, at, end, -_INT_LIMIT, _INT_LIMIT)
    longs[1], at = read_long(data, at, end)
    ints[1], at = read_float_bits(data, at, end)
    return at


@compiled
def _entry(data: Any, at: int, end: int, item: Any, row: Any, text_hash: Any) -> Any:
    """Read an entry up to its lists; return where they begin."""
    at = read_string(data, at, end, item)
    row[0], at = read_int(data, at, end, -_INT_LIMIT, _INT_LIMIT)
    row[1], at = read_float_bits(data, at, end)
    row[2], at = read_float_bits(data, at, end)
    row[3], at = read_int(data, at, end, 0, _TYPES)
    row[4], at = read_int(data, at, end, 0, _STATUSES)
    return read_fixed(data, at, end, text_hash)


@compiled
def _entry_lists(
    data: Any, at: int, end: int, row: Any, feature: Any, shap: Any, attention: Any, cited: Any, counts: Any
) -> Any:
    """Read the three lists of an entry; return where they end."""
    row[5] = row[6] = row[7] = 0
    count, at = read_block(data, at, end, SMALLEST_PAIR)
    while count > 0:
        row[5] += count
        for number in range(counts[2], counts[2] + count):
            at = read_string(data, at, end, feature[number])
            shap[number], at = read_float_bits(data, at, end)
        counts[2] += count
        count, at = read_block(data, at, end, SMALLEST_PAIR)
    count, at = read_block(data, at, end, SMALLEST_PAIR)
    while count > 0:
        row[6] += count
        for number in range(counts[3], counts[3] + count):
            attention[number, 0], at = read_int(data, at, end, -_INT_LIMIT, _INT_LIMIT)
            attention[number, 1], at = read_float_bits(data, at, end)
        counts[3] += count
        count, at = read_block(data, at, end, SMALLEST_PAIR)
    count, at = read_block(data, at, end, 1)
    while count > 0:
        row[7] += count
        for number in range(counts[4], counts[4] + count):
            cited[number], at = read_int(data, at, end, -_INT_LIMIT, _INT_LIMIT)
        counts[4] += count
        count, at = read_block(data, at, end, 1)
    return at


@compiled
def _walk(
    data: Any,
    starts: Any,
    ends: Any,
    head: Any,
    longs: Any,
    ints: Any,
    heads: Any,
    history: Any,
    item: Any,
    entry: Any,
    text_hash: Any,
    feature: Any,
    shap: Any,
    attention: Any,
    cited: Any,
) -> Any:
    """Read all messages; the numbers of past items, entries, SHAP values, weights and citations, or BAD first."""
    counts = np.zeros(5, np.int64)
    for number in range(starts.shape[0]):
        end = ends[number]
        at = _slate(data, starts[number], end, head[number], longs[number], ints[number], heads[number])
        ints[number, 2] = ints[number, 3] = 0
        count, at = read_block(data, at, end, 1)
        while count > 0:
            ints[number, 2] += count
            for place in range(counts[0], counts[0] + count):
                at = read_string(data, at, end, history[place])
            counts[0] += count
            count, at = read_block(data, at, end, 1)
        count, at = read_block(data, at, end, SMALLEST_ENTRY)
        while count > 0:
            ints[number, 3] += count
            for place in range(counts[1], counts[1] + count):
                at = _entry(data, at, end, item[place], entry[place], text_hash[place])
                at = _entry_lists(data, at, end, entry[place], feature, shap, attention, cited, counts)
            counts[1] += count
            count, at = read_block(data, at, end, SMALLEST_ENTRY)
        if at != end:
            counts[0] = BAD
            break
    return counts
