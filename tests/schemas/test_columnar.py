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
from schemas.registry import Registry
from schemas.versions import schema, schema_fingerprint
from tests.strategies import EVENTS, same

Record = dict[str, Any]

CODEC = Codec()
COLUMNAR: tuple[EventName, ...] = ("impression", "explanation", "audit")


def body(event: EventName, record: Record) -> bytes:
    return CODEC.encode(event, record, "topic").value


def headers(event: EventName, version: int | None = None) -> list[tuple[str, bytes]]:
    return [(FINGERPRINT_HEADER, schema_fingerprint(event, version).encode())]


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
            headers("impression", 1),
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


class OneSchema(Registry):
    """A registry that knows one schema, by the id 7."""

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

    def schema_of(self, schema_id: int) -> dict[str, Any]:
        assert schema_id == 7
        return self._known


def newer_schema() -> dict[str, Any]:
    """Return the schema of a producer that knows a field more, between two that we know."""
    newer = copy.deepcopy(schema("impression"))
    newer["fields"].insert(4, {"name": "device", "type": ["null", "string"], "default": None})
    return newer


def framings() -> dict[str, tuple[Codec, dict[str, Any], tuple[bytes, list[tuple[str, bytes]]]]]:
    """Name a codec, the schema that a message is written with, and what stands before and beside its body."""
    version_1, version_2, newest = (schema("impression", version) for version in (1, 2, 3))
    confluent: tuple[bytes, list[tuple[str, bytes]]] = b"\0\0\0\0\7", []
    return {
        "version 1": (CODEC, version_1, (b"", headers("impression", 1))),
        "version 2": (CODEC, version_2, (b"", headers("impression", 2))),
        "version 3": (CODEC, newest, (b"", headers("impression"))),
        "version 1 in a registry": (Codec(OneSchema(version_1)), version_1, confluent),
        "version 2 in a registry": (Codec(OneSchema(version_2)), version_2, confluent),
        "version 3 in a registry": (Codec(OneSchema(newest)), newest, confluent),
        "a newer version in a registry": (Codec(OneSchema(newer_schema())), newer_schema(), confluent),
    }


FOREIGN_FIELDS: dict[str, tuple[Any, Any]] = {
    "a union with null in second place": (["string", "null"], "tv"),
    "a union of three types": (["null", "int", "string"], "tv"),
    "a map": ({"type": "map", "values": "string"}, {"room": "kitchen"}),
    "bytes": ("bytes", b"tv"),
    "null": ("null", None),
    "a record without fields": ({"type": "record", "name": "Nothing", "fields": []}, {}),
    "a date": ({"type": "int", "logicalType": "date"}, 20_000),
    "a record in a record": (
        {"type": "record", "name": "A", "fields": [
            {"name": "b", "type": {"type": "record", "name": "B", "fields": [{"name": "c", "type": "string"}]}}
        ]},
        {"b": {"c": "tv"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["device", "end_of_record", "items_"])
@pytest.mark.parametrize("field", FOREIGN_FIELDS)
def test_a_field_of_a_newer_producer_is_passed_over(field: str, name: str) -> None:
    kind, value = FOREIGN_FIELDS[field]
    newer = copy.deepcopy(schema("impression"))
    newer["fields"].insert(4, {"name": name, "type": kind})
    message = b"\0\0\0\0\7" + written(newer, impression() | {name: value})
    decoded = Codec(OneSchema(newer)).decode_batch("impression", [(message, [])] * 2)
    assert decoded.errors == {}
    assert columnar.to_records("impression", decoded.batch) == [impression()] * 2


@pytest.mark.parametrize("known", ["string", ["null", "string"], {"type": "string"}])
def test_a_schema_that_is_no_record_is_another_event(known: Any) -> None:
    with pytest.raises(UndecodableEvent, match=r"schema id 7 is of .*; expected impression"):
        Codec(OneSchema(known)).decode("impression", b"\0\0\0\0\7value")


def cut_to(kind: dict[str, Any], record: Record) -> Record:
    return {field["name"]: record.get(field["name"]) for field in kind["fields"]}


@pytest.mark.parametrize("framing", framings())
def test_the_messages_of_any_schema_are_read_together_as_each_is_read_alone(framing: str) -> None:
    codec, kind, (head, beside) = framings()[framing]
    records = [impression(region=region, session=impression()["session"][:size]) for size, region in enumerate("ABC")]
    messages = [(head + written(kind, cut_to(kind, record)), beside) for record in records]
    decoded = codec.decode_batch("impression", messages)
    assert decoded.errors == {}
    assert columnar.to_records("impression", decoded.batch) == records
    assert [codec.decode("impression", *message) for message in messages] == records


@pytest.mark.parametrize("byte", [1, 9, 10, 99])
@pytest.mark.parametrize("framing", [name for name in framings() if "version 1" in name or "version 2" in name])
def test_an_index_outside_an_enum_is_damage_in_any_schema(framing: str, byte: int) -> None:
    codec, kind, (head, beside) = framings()[framing]
    good = head + written(kind, cut_to(kind, impression()))
    at = good.index(b"past0") + len("past0")
    assert good[at] == 0, "the index of the engagement"
    bad = good[:at] + bytes([byte]) + good[at + 1 :]  # -1, -5, 5 and -50, zigzag
    decoded = codec.decode_batch("impression", [(bad, beside), (good, beside), (bad, beside)])
    assert decoded.rows == [1]
    assert list(decoded.errors) == [0, 2]
    assert all("damaged Avro" in error for error in decoded.errors.values())
    assert columnar.to_records("impression", decoded.batch) == [impression()]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timestamp_ms": 2**63}, "impression.timestamp_ms is 9223372036854775808"),
        ({"user_features": [0.5, -1e39]}, "impression.user_features[] is -1e+39"),
        ({"user_features": [10**400]}, "impression.user_features[] has a whole number of more than 308 digits"),
        ({"timestamp_ms": 10**5000}, "impression.timestamp_ms is a value of int"),
    ],
)
def test_a_number_that_does_not_fit_is_named_by_its_field(change: Record, said: str) -> None:
    with pytest.raises(InvalidEvent, match="larger than its type") as refused:
        columnar.from_records("impression", [impression(), impression(**change)])
    assert said in str(refused.value)
