"""Audit messages to slates: the framing of a message changes nothing, and no message that is unreadable is dropped."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from fastavro import schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import FINGERPRINT_HEADER, Codec
from schemas.json_form import to_json
from schemas.versions import schema, schema_fingerprint
from stream.archive.writing.decode import Decoder, Record
from tests.archive.slates_of import audit
from tests.strategies import audits

CODEC = Codec()


def body(record: Any) -> bytes:
    return CODEC.encode("audit", record, "explanation-audit").value


def message(offset: int, value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> Record:
    framing = CODEC.encode("audit", audit(0), "explanation-audit").headers
    return Record(0, offset, None, value, framing if headers is None else headers)


def in_json(offset: int, record: Any) -> Record:
    return message(offset, to_json(record).encode(), [])


def decoded(messages: list[Record]) -> tuple[Any, list[tuple[int, str]]]:
    """Decode messages: the columns of their slates, and offset and error of the messages that are unreadable."""
    slates, unreadable = Decoder(CODEC).decode(messages)
    columns = (slates.offset, slates.source_topic, slates.source_partition, slates.source_offset, slates.rows)
    # Compared as text, since NaN is not equal to itself.
    found = repr([slates.table.to_pydict(), *(column.tolist() for column in columns)])
    return found, [(each.record.offset, each.error) for each in unreadable]


def storable(record: Any) -> Any:
    """Give a drawn record a date, a region and a history with which it can be archived."""
    history = ["first", *record["history"]]
    entries = [
        {
            **entry,
            "attention_top_2": [
                {**weight, "event": weight["event"] % len(history)} for weight in entry["attention_top_2"]
            ],
            "cited": [event % len(history) for event in entry["cited"]],
        }
        for entry in record["entries"]
    ]
    return {**record, "timestamp_ms": 0, "region": "EU", "history": history, "entries": entries}


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(audits | audits.map(storable), max_size=5), st.data())
def test_avro_and_json_give_the_same_slates_and_errors(records: list[Any], data: st.DataObject) -> None:
    avro = [message(offset, body(record)) for offset, record in enumerate(records)]
    json_ = [in_json(offset, record) for offset, record in enumerate(records)]
    mixed = [data.draw(st.sampled_from(pair)) for pair in zip(avro, json_, strict=True)]
    assert decoded(avro) == decoded(json_) == decoded(mixed)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(audits.map(storable), st.data())
def test_a_damaged_message_leaves_its_neighbours_alone(record: Any, data: st.DataObject) -> None:
    damaged = bytearray(body(record))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    odd = bytes(damaged[: data.draw(st.integers(0, len(damaged)))]) + data.draw(st.binary(max_size=2))
    alone, _ = Decoder(CODEC).decode([message(1, odd)])
    slates, unreadable = Decoder(CODEC).decode(
        [message(0, body(audit(0))), message(1, odd), message(2, body(audit(2)))]
    )
    assert slates.offset.tolist() == [0, *alone.offset.tolist(), 2]
    assert [each.record.value for each in unreadable] == [odd] * (1 - len(alone))
    assert len(slates.table) == 4 + len(alone.table)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"first-past", b"first-\xff\xfe\xfd\xfc"),
        (b"the-feature", b"the-featur\x80"),
        (bytes(8) + b"\x02\x04", bytes(8) + b"\x08\x04"),
        (bytes(8) + b"\x02\x04", bytes(8) + b"\x02\x08"),
        (bytes(8) + b"\x02\x04", bytes(8) + b"\x01\x04"),
        (b"\xaa\xaa\x0f", b"\xaa\xaa\xaa\xaa\xaa\x0f"),
    ],
    ids=["UTF-8 of an item", "UTF-8 of a feature", "type 4", "status 4", "type -1", "position of 35 bits"],
)
def test_a_value_outside_its_type_is_unreadable(was: bytes, becomes: bytes) -> None:
    record = audit(5, items=1)
    record["history"][0] = "first-past"
    entry = record["entries"][0]
    entry.update(ranking_score=0.0, reranking_score=0.0, explanation_type="category_match", status="generic")
    entry.update(position=125_589, shap_top_3=[{"feature": "the-feature", "value": 0.0}])
    sound = body(record)
    assert sound.count(was) == 1
    hostile = sound.replace(was, becomes)
    slates, unreadable = Decoder(CODEC).decode([message(0, sound), message(1, hostile), message(2, sound + b"\0")])
    assert slates.offset.tolist() == [0]
    assert [each.record.value for each in unreadable] == [hostile, sound + b"\0"]


def test_every_truncation_is_unreadable() -> None:
    complete = body(audit(5))
    for length in range(len(complete)):
        slates, unreadable = Decoder(CODEC).decode([message(0, complete[:length]), message(1, complete)])
        assert (slates.offset.tolist(), [each.record.offset for each in unreadable]) == ([1], [0])


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
    assert decoded([message(0, head + blocks)]) == decoded([message(0, plain)])


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
    assert "larger than its type" in found[18]
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
