"""Avro to Arrow and back: the same bytes and records as fastavro, and nothing accepted that fastavro refuses."""

from __future__ import annotations

import copy
import io
from typing import Any

import pyarrow as pa
import pytest
from fastavro import schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import columnar
from schemas.codec import FINGERPRINT_HEADER, Codec
from schemas.errors import InvalidEvent, UndecodableEvent
from schemas.events import EventName
from schemas.json_form import to_json
from schemas.versions import schema, schema_fingerprint
from tests.strategies import EVENTS, same

Record = dict[str, Any]

CODEC = Codec()
COLUMNAR: tuple[EventName, ...] = ("impression", "explanation", "audit")


def body(event: EventName, record: Record) -> bytes:
    return CODEC.encode(event, record, "topic").value


def headers(event: EventName) -> list[tuple[str, bytes]]:
    return [(FINGERPRINT_HEADER, schema_fingerprint(event).encode())]


@pytest.mark.parametrize("event", COLUMNAR)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_records_and_bytes_are_those_of_fastavro(event: EventName, data: st.DataObject) -> None:
    records = data.draw(st.lists(EVENTS[event], max_size=4))
    bodies = [body(event, record) for record in records]
    expected = [CODEC.decode(event, each, headers(event)) for each in bodies]
    decoded = columnar.decode(event, bodies)
    assert decoded.rows == list(range(len(bodies)))
    assert all(map(same, columnar.to_records(event, decoded.batch), expected))
    assert columnar.encode(event, decoded.batch) == bodies
    assert columnar.encode(event, columnar.from_records(event, expected)) == bodies


@pytest.mark.parametrize("event", COLUMNAR)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_damaged_messages_are_refused_as_fastavro_refuses_them(event: EventName, data: st.DataObject) -> None:
    messages = []
    for record in data.draw(st.lists(EVENTS[event], min_size=1, max_size=3)):
        value = bytearray(body(event, record))
        for _ in range(data.draw(st.integers(0, 3))):
            value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.just(len(value)) | st.integers(0, len(value)))
        messages.append((bytes(value[:cut]) + data.draw(st.binary(max_size=1)), headers(event)))
    decoded = CODEC.decode_batch(event, messages)
    assert sorted([*decoded.rows, *decoded.errors]) == list(range(len(messages)))
    records = dict(zip(decoded.rows, columnar.to_records(event, decoded.batch), strict=True))
    for place, message in enumerate(messages):
        try:
            expected = CODEC.decode(event, *message)
        except UndecodableEvent:
            assert place in decoded.errors
        else:
            assert place in decoded.errors or same(records[place], expected)


def impression(**change: Any) -> Record:
    return {
        "request_id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427", "timestamp_ms": 1_750_000_000_000,
        "user_id_hash": "0123456789abcdef", "region": "EU", "locale": "en", "feature_set": "f", "model_version": "m@1",
        "session": [
            {"item_id": f"past{number}", "engagement": "view", "timestamp_ms": number} for number in range(4)
        ],
        "user_features": [1.0, 2.0, 3.0, 4.0],
        "context_features": [],
        "items": [
            {
                "item_id": f"item{number}", "position": number + 1, "ranking_score": 0.5, "reranking_score": 0.25,
                "item_features": [0.5],
            }
            for number in range(4)
        ],
        "detail": False,
    } | change  # fmt: skip


def explanation(**change: Any) -> Record:
    evidence = {
        "history": [],
        "features": [],
        "personal_share": None,
        "category_match": None,
        "residual": None,
        "basis": None,
    }
    item = {
        "item_id": "item0",
        "position": 1,
        "type": "watch_history",
        "status": "verified",
        "mismatch": None,
        "text": "",
        "basis_text": "",
        "evidence": evidence,
        "detail": None,
    }
    return {
        "request_id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427", "timestamp_ms": 1, "user_id_hash": "0", "region": "EU",
        "locale": "en", "model_version": "m@1", "policy": "evidence", "produced_at_ms": 2, "ablations": [],
        "items": [item | change],
    }  # fmt: skip


def written(kind: Any, value: Any) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, kind, value)
    return out.getvalue()


@pytest.mark.parametrize("sized", [False, True])
def test_arrays_may_come_in_several_blocks_with_or_without_their_size(*, sized: bool) -> None:
    record = impression()
    kinds = {field["name"]: field["type"] for field in schema("impression")["fields"]}

    def blocks(name: str) -> bytes:
        out = b""
        for part in (record[name][:2], record[name][2:]):
            content = b"".join(written(kinds[name]["items"], each) for each in part)
            size = written("long", len(content)) if sized else b""
            out += written("long", -len(part) if sized else len(part)) + size + content
        return out + b"\0"

    split = {"session", "user_features", "items"}
    value = b"".join(blocks(name) if name in split else written(kind, record[name]) for name, kind in kinds.items())
    assert value != body("impression", record)
    decoded = columnar.decode("impression", [value])
    assert columnar.encode("impression", decoded.batch) == [body("impression", record)]


def test_an_int_beyond_32_bits_is_not_cut_to_32_bits() -> None:
    kinds = {field["name"]: field["type"] for field in schema("impression")["fields"]}
    wide = copy.deepcopy(kinds["items"])
    next(field for field in wide["items"]["fields"] if field["name"] == "position")["type"] = "long"
    items = [impression()["items"][0] | {"position": 2**31}]
    record = impression(items=items)
    value = b"".join(written(wide if name == "items" else kind, record[name]) for name, kind in kinds.items())
    assert columnar.decode("impression", [value]).rows == []
    [error] = CODEC.decode_batch("impression", [(value, headers("impression"))]).errors.values()
    assert "larger than its type" in error


def test_messages_of_any_framing_keep_their_order() -> None:
    newest = [impression(region=region) for region in ("A", "B", "C")]
    version_1 = {name: value for name, value in impression(region="V1").items() if name != "detail"}
    messages = [
        (body("impression", newest[0]), headers("impression")),
        (to_json(impression(region="J")).encode(), []),
        (b"neither", []),
        (body("impression", newest[1]), headers("impression")),
        (None, []),
        (
            written(schema("impression", 1), version_1),
            [(FINGERPRINT_HEADER, schema_fingerprint("impression", 1).encode())],
        ),
        (body("impression", newest[2]) + b"\0", headers("impression")),
        (body("impression", newest[2]), headers("impression")),
        (b"", [(FINGERPRINT_HEADER, None)]),
    ]
    decoded = CODEC.decode_batch("impression", messages)  # type: ignore[arg-type]
    assert decoded.batch.column("region").to_pylist() == ["A", "J", "B", "V1", "C"]
    assert decoded.rows == [0, 1, 3, 5, 7]
    assert sorted(decoded.errors) == [2, 4, 6, 8]


def test_an_empty_batch_has_the_columns_of_its_event() -> None:
    for event in COLUMNAR:
        assert columnar.decode(event, []).batch.schema == columnar.arrow_schema(event)
        assert columnar.encode(event, columnar.from_records(event, [])) == []


def test_a_column_that_is_left_out_has_its_default() -> None:
    batch = columnar.from_records("impression", [impression(detail=True)])
    without: pa.RecordBatch = batch.drop_columns(["detail"])
    [value] = columnar.encode("impression", without)
    assert value == body("impression", impression(detail=False))


def test_a_slice_of_a_batch_is_encoded_like_its_rows() -> None:
    records = [impression(region=region, items=impression()["items"][:size]) for size, region in enumerate("ABCD")]
    batch = columnar.from_records("impression", records)
    assert columnar.encode("impression", batch.slice(1, 2)) == [body("impression", record) for record in records[1:3]]


def test_a_symbol_that_the_schema_lacks_is_named() -> None:
    with pytest.raises(InvalidEvent, match="guessed"):
        columnar.from_records("explanation", [explanation(status="guessed")])


@pytest.mark.parametrize("byte", [1, 99])
def test_an_index_outside_an_enum_is_damage_wherever_it_is_read(byte: int) -> None:
    value = bytearray(body("explanation", explanation()))
    at = value.index(b"item0") + len("item0") + 1
    assert value[at] == 0, "the index of the type"
    value[at] = byte  # -1 and -50, zigzag
    messages = [(body("explanation", explanation()), headers("explanation")), (bytes(value), headers("explanation"))]
    decoded = CODEC.decode_batch("explanation", messages)
    assert decoded.rows == [0]
    assert list(decoded.errors) == [1]
    assert decoded.batch.num_rows == 1
