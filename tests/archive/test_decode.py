"""Audit messages to columns: the quick reader and the codec agree on everything, and nothing unreadable is dropped."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from fastavro import schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import FINGERPRINT_HEADER, Codec
from schemas.json_form import to_json
from schemas.versions import schema, schema_fingerprint
from stream.archive.rows.segment import placeable
from stream.archive.rows.slates import arrange, fields_of, unsound
from stream.archive.writing.avro import decode_newest
from stream.archive.writing.decode import Decoder, Record
from tests.archive.slates_of import audit
from tests.strategies import audits

CODEC = Codec()


def body(record: Any) -> bytes:
    return CODEC.encode("audit", record, "explanation-audit").value


def message(offset: int, value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> Record:
    framing = CODEC.encode("audit", audit(0), "explanation-audit").headers
    return Record(0, offset, None, value, framing if headers is None else headers)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(audits, max_size=5))
def test_the_quick_reader_reads_what_the_codec_reads(records: list[Any]) -> None:
    offsets = np.arange(len(records), dtype=np.int64)
    quick = decode_newest([body(record) for record in records], offsets)
    assert quick is not None
    slow = fields_of(records, offsets)
    assert unsound(quick).tolist() == unsound(slow).tolist()
    if not unsound(slow).any():
        # Bytes, since NaN is not equal to itself.
        assert arrange(quick).table.to_pydict().__repr__() == arrange(slow).table.to_pydict().__repr__()


@settings(max_examples=200, deadline=None)
@given(audits, st.data())
def test_the_quick_reader_declines_what_the_codec_cannot_read(record: Any, data: st.DataObject) -> None:
    damaged = bytearray(body(record))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))] + data.draw(st.binary(max_size=2))
    quick = decode_newest([bytes(damaged)], np.zeros(1, np.int64))
    slates, unreadable = Decoder(CODEC).decode([message(0, bytes(damaged))])
    assert len(slates) + len(unreadable) == 1
    if quick is not None and not unsound(quick).any() and placeable(quick.timestamp_ms, quick.region).all():
        assert not unreadable


def test_every_truncation_is_declined() -> None:
    whole = body(audit(5))
    assert decode_newest([whole], np.zeros(1, np.int64)) is not None
    for length in range(len(whole)):
        assert decode_newest([whole[:length]], np.zeros(1, np.int64)) is None
        assert decode_newest([body(audit(1)), whole[:length]], np.arange(2)) is None


def test_arrays_in_several_blocks_and_with_sizes_are_read() -> None:
    one = audit(5, items=1)
    plain = body(one)
    empty = body({**one, "history": [], "entries": []})
    head = empty[:-2]
    assert plain.startswith(head)

    def block(items: bytes, count: int) -> bytes:
        # A negative count announces the block's size in bytes.
        return _long(-count) + _long(len(items)) + items

    past = [_string(name) for name in one["history"]]
    entry = plain[len(head) + len(_long(2)) + len(b"".join(past)) + 1 + 1 : -1]
    blocks = block(past[0], 1) + block(past[1], 1) + b"\x00" + block(entry, 1) + b"\x00"
    quick = decode_newest([head + blocks], np.zeros(1, np.int64))
    usual = decode_newest([plain], np.zeros(1, np.int64))
    assert quick is not None
    assert usual is not None
    assert arrange(quick).table.equals(arrange(usual).table)
    assert CODEC.decode("audit", head + blocks, message(0, b"").headers) == CODEC.decode(
        "audit", plain, message(0, b"").headers
    )


def test_good_and_bad_messages_are_told_apart_and_keep_their_offsets() -> None:
    dangling = audit(2)
    dangling["entries"][0]["cited"] = [7]
    misplaced = audit(3, region="x" * 300)
    undated = audit(4)
    undated["timestamp_ms"] = 2**62
    records = [
        message(10, body(audit(0))),
        message(11, b"\x01\x02"),
        message(12, body(dangling)),
        message(13, body(misplaced)),
        message(14, body(undated)),
        message(15, None),
        message(16, b"anything", []),
        message(17, to_json(audit(6)).encode(), []),
        message(18, _with_a_position_of_33_bits()),
        message(19, body(audit(1))),
    ]
    slates, unreadable = Decoder(CODEC).decode(records)
    assert slates.offset.tolist() == [10, 17, 19]
    assert slates.source_offset.tolist() == [0, 6, 1]
    found = {each.record.offset: each.error for each in unreadable}
    assert sorted(found) == [11, 12, 13, 14, 15, 16, 18]
    assert "outside the history" in found[12]
    assert "name no folder" in found[13]
    assert "name no folder" in found[14]
    assert "larger than its Avro type" in found[18]
    assert [each.record for each in unreadable] == [records[offset - 10] for offset in sorted(found)]


def test_records_of_the_first_version_are_archived_beside_newer_ones() -> None:
    out = io.BytesIO()
    schemaless_writer(out, schema("audit", 1), audit(1))
    older = message(1, out.getvalue(), [(FINGERPRINT_HEADER, schema_fingerprint("audit", 1).encode())])
    slates, unreadable = Decoder(CODEC).decode([message(0, body(audit(0))), older])
    assert unreadable == []
    assert slates.source_offset.tolist() == [0, 1]
    rows = slates.table.to_pylist()
    assert [(row["policy"], row["wording_hash"], row["source_topic_id"]) for row in (rows[0], rows[2])] == [
        ("evidence", b"wordhash", "id-1"),
        ("", bytes(8), ""),
    ]


@pytest.mark.parametrize("odd", [message(1, b"x", [("avro-fingerprint", None)]), message(1, b'{"\\ud800": 1}', [])])  # type: ignore[list-item]
def test_no_message_however_odd_stops_the_archive(odd: Record) -> None:
    slates, unreadable = Decoder(CODEC).decode([message(0, body(audit(0))), odd])
    assert slates.offset.tolist() == [0]
    assert [each.record for each in unreadable] == [odd]


@pytest.mark.parametrize("count", [0, 1, 700])
def test_any_number_of_messages_can_be_decoded(count: int) -> None:
    slates, unreadable = Decoder(CODEC).decode([message(n, body(audit(n, items=n % 3))) for n in range(count)])
    assert (len(slates), unreadable) == (count, [])
    assert slates.rows.tolist() == [n % 3 for n in range(count)]


def _long(value: int) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, "long", value)
    return out.getvalue()


def _string(value: str) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, "string", value)
    return out.getvalue()


def _with_a_position_of_33_bits() -> bytes:
    changed = json.loads(json.dumps(schema("audit")))
    entries = next(field for field in changed["fields"] if field["name"] == "entries")
    next(field for field in entries["type"]["items"]["fields"] if field["name"] == "position")["type"] = "long"
    record = audit(5)
    record["entries"][0]["position"] = 2**32
    out = io.BytesIO()
    schemaless_writer(out, changed, record)
    return out.getvalue()
