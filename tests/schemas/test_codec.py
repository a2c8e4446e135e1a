"""What is written can be read again, in every framing; what is not ours is refused with a reason."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastavro import schemaless_reader
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import FINGERPRINT_HEADER, Codec
from schemas.errors import InvalidEvent, UndecodableEvent
from schemas.events import EVENT_NAMES, EventName
from schemas.json_form import from_json, to_json
from schemas.versions import VERSIONS, schema, schema_fingerprint
from tests.strategies import EVENTS, same

GOLDEN = Path(__file__).parent / "golden"
CODEC = Codec()
PLAIN = [(FINGERPRINT_HEADER, schema_fingerprint("impression").encode())]
VERSIONED = [(event, version) for event in EVENT_NAMES for version in VERSIONS[event]]


@pytest.mark.parametrize("event", EVENT_NAMES)
@given(data=st.data())
def test_a_record_survives_plain_avro(event: EventName, data: st.DataObject) -> None:
    record = data.draw(EVENTS[event])
    encoded = CODEC.encode(event, record, "any-topic")
    assert same(CODEC.decode(event, encoded.value, encoded.headers), record)


@pytest.mark.parametrize("event", EVENT_NAMES)
@given(data=st.data())
def test_a_record_survives_json(event: EventName, data: st.DataObject) -> None:
    record = data.draw(EVENTS[event])
    assert same(CODEC.decode(event, to_json(record).encode()), record)


@pytest.mark.parametrize(("event", "version"), VERSIONED)
def test_golden_bytes_of_every_version_are_still_read(event: EventName, version: int) -> None:
    value = (GOLDEN / f"{event}.v{version}.avro").read_bytes()
    expected = from_json(event, (GOLDEN / f"{event}.v{version}.json").read_bytes())
    fingerprint = (GOLDEN / f"{event}.v{version}.fingerprint").read_text().strip()
    assert same(CODEC.decode(event, value, [(FINGERPRINT_HEADER, fingerprint.encode())]), expected)


@pytest.mark.parametrize("event", EVENT_NAMES)
def test_golden_bytes_of_the_newest_version_are_still_written(event: EventName) -> None:
    stem = GOLDEN / f"{event}.v{VERSIONS[event][-1]}"
    record = from_json(event, stem.with_suffix(f"{stem.suffix}.json").read_bytes())
    encoded = CODEC.encode(event, record, "any-topic")
    assert encoded.value == stem.with_suffix(f"{stem.suffix}.avro").read_bytes()


@pytest.mark.parametrize(("event", "version"), VERSIONED)
def test_a_published_schema_never_changes(event: EventName, version: int) -> None:
    assert schema_fingerprint(event, version) == (GOLDEN / f"{event}.v{version}.fingerprint").read_text().strip()


@pytest.mark.parametrize("event", EVENT_NAMES)
@given(data=st.data())
def test_truncated_avro_is_refused(event: EventName, data: st.DataObject) -> None:
    encoded = CODEC.encode(event, data.draw(EVENTS[event]), "any-topic")
    cut = data.draw(st.integers(0, len(encoded.value) - 1))
    with pytest.raises(UndecodableEvent):
        CODEC.decode(event, encoded.value[:cut], encoded.headers)


@given(value=st.binary(max_size=200), declared=st.booleans())
def test_arbitrary_bytes_are_refused_or_read_but_never_crash(value: bytes, *, declared: bool) -> None:
    headers = PLAIN if declared else None
    try:
        record = CODEC.decode("impression", value, headers)
    except UndecodableEvent:
        return
    assert same(CODEC.decode("impression", CODEC.encode("impression", record, "t").value, PLAIN), record)


def test_bytes_after_the_record_are_refused() -> None:
    record = from_json("impression", (GOLDEN / "impression.v1.json").read_bytes())
    encoded = CODEC.encode("impression", record, "any-topic")
    with pytest.raises(UndecodableEvent, match="1 bytes follow"):
        CODEC.decode("impression", encoded.value + b"\x00", encoded.headers)


def test_an_unknown_fingerprint_is_named() -> None:
    with pytest.raises(UndecodableEvent, match="unknown schema fingerprint b'0123456789abcdef'"):
        CODEC.decode("impression", b"H", [(FINGERPRINT_HEADER, b"0123456789abcdef")])


def test_the_confluent_framing_without_a_registry_says_what_to_set() -> None:
    with pytest.raises(UndecodableEvent, match="WHYREC_SCHEMA_REGISTRY_URL"):
        CODEC.decode("impression", b"\x00\x00\x00\x00\x01rest")


@pytest.mark.parametrize("value", [b"", None, b"\x07garbage", b"[1, 2]", b'"text"'])
def test_what_has_no_framing_of_ours_is_refused(value: bytes | None) -> None:
    with pytest.raises(UndecodableEvent):
        CODEC.decode("impression", value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"region": None}, "region"),
        ({"extra": 1}, "extra"),
        ({"items": "none"}, "items"),
        ({"timestamp_ms": "2026-01-01T00:00:00+02:00"}, "timestamp_ms"),
        ({"session": [{"item_id": "a", "engagement": 3, "timestamp_ms": 1}]}, "engagement"),
    ],
)
def test_json_of_another_shape_is_refused_by_field(change: dict[str, object], named: str) -> None:
    record = json.loads((GOLDEN / "impression.v1.json").read_bytes()) | change
    with pytest.raises(UndecodableEvent, match=named):
        CODEC.decode("impression", json.dumps(record).encode())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timestamp_ms": 1.5}, "Impression.timestamp_ms is 1.5; expected long"),
        ({"user_features": None}, "Impression.user_features is null; expected array"),
        ({"region": ["x" * 1000]}, f'Impression.region is ["{"x" * 78}…; expected string'),
        (
            {"session": [{"item_id": "a", "engagement": 3, "timestamp_ms": 1}]},
            "SessionEvent.engagement is 3; expected string",
        ),
    ],
)
def test_a_misfit_is_said_in_the_words_of_json_and_in_short(change: dict[str, object], said: str) -> None:
    record = json.loads((GOLDEN / "impression.v1.json").read_bytes()) | change
    with pytest.raises(UndecodableEvent) as refused:
        CODEC.decode("impression", json.dumps(record).encode())
    assert str(refused.value) == f"JSON does not fit impression.v3.avsc: {said}"


@pytest.mark.parametrize(
    "value", [b'{"\\ud800": 1}', b'{"timestamp_ms": "\\ud800"}', b'{"region": "\xed\xa0\x80"}', b'{"region": "\xff"}']
)
def test_json_that_is_no_text_is_refused_in_words_that_can_be_written(value: bytes) -> None:
    with pytest.raises(UndecodableEvent, match="not JSON") as refused:
        CODEC.decode("impression", value)
    assert str(refused.value).encode()


def test_json_that_repeats_a_field_is_refused_by_field() -> None:
    value = (GOLDEN / "impression.v1.json").read_bytes()
    twice = value.replace(b'"position"', b'"position": 9, "position"', 1)
    assert twice != value
    with pytest.raises(UndecodableEvent, match=r"'position' more than once; send each field once"):
        CODEC.decode("impression", twice)


@pytest.mark.parametrize("depth", [900, 100_000])
def test_json_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    record = json.loads((GOLDEN / "impression.v1.json").read_bytes())
    nested = json.dumps(record | {"region": 0}).replace('"region": 0', f'"region": {"[" * depth}{"]" * depth}')
    with pytest.raises(UndecodableEvent, match="nested too deeply"):
        CODEC.decode("impression", nested.encode())


def test_an_error_shows_only_the_beginning_of_long_names() -> None:
    record = json.loads((GOLDEN / "impression.v1.json").read_bytes()) | {"x" * 100_000: 1}
    with pytest.raises(UndecodableEvent, match="Impression has no field xxx") as refused:
        CODEC.decode("impression", json.dumps(record).encode())
    assert len(str(refused.value)) < 400


def test_truncated_avro_says_so_the_same_each_time() -> None:
    value = (GOLDEN / "impression.v3.avro").read_bytes()[:-3]
    headers = [(FINGERPRINT_HEADER, schema_fingerprint("impression").encode())]
    [error] = CODEC.decode_batch("impression", [(value, headers)]).errors.values()
    assert error.startswith("truncated Avro")
    assert error.endswith(f"its {len(value)} bytes end within a field")


def test_a_header_without_a_value_names_no_schema() -> None:
    headers: Any = [(FINGERPRINT_HEADER, None)]
    [error] = CODEC.decode_batch("impression", [(b"value", headers)]).errors.values()
    assert "unknown schema fingerprint" in error


def test_json_without_a_field_is_refused_by_field() -> None:
    record = json.loads((GOLDEN / "impression.v1.json").read_bytes())
    del record["user_features"]
    with pytest.raises(UndecodableEvent, match="user_features"):
        CODEC.decode("impression", json.dumps(record).encode())


def test_a_record_of_another_shape_is_not_written() -> None:
    with pytest.raises(InvalidEvent, match=r"impression\.v3\.avsc"):
        CODEC.encode("impression", {"request_id": 7}, "any-topic")


@pytest.mark.parametrize("event", EVENT_NAMES)
def test_every_record_says_what_it_is(event: EventName) -> None:
    assert schema(event)["doc"]


# From version 3 on the engagement of an impression is text, which no reader of an enum understands.
@pytest.mark.parametrize(("event", "known"), [pair for pair in VERSIONED if pair[0] != "impression" or pair[1] > 2])
def test_a_reader_of_any_version_reads_what_the_newest_writes(event: EventName, known: int) -> None:
    newest = VERSIONS[event][-1]
    record = from_json(event, (GOLDEN / f"{event}.v{known}.json").read_bytes())
    value = CODEC.encode(event, record, "any-topic").value
    read = schemaless_reader(BytesIO(value), schema(event, newest), schema(event, known))
    whole = CODEC.decode(event, value, [(FINGERPRINT_HEADER, schema_fingerprint(event).encode())])
    assert same(read, cut(whole, schema(event, known)))


def cut(value: Any, node: Any) -> Any:
    """What is left of a record where a schema knows fewer fields."""
    if isinstance(value, dict) and isinstance(node, dict):
        return {field["name"]: cut(value[field["name"]], field["type"]) for field in node["fields"]}
    if isinstance(value, dict):
        return cut(value, next(each for each in node if isinstance(each, dict)))
    if isinstance(value, list):
        return [cut(each, node["items"]) for each in value]
    return value


def test_an_impression_of_version_1_asks_for_no_detail() -> None:
    fingerprint = (GOLDEN / "impression.v1.fingerprint").read_text().strip()
    plain = [(FINGERPRINT_HEADER, fingerprint.encode())]
    assert CODEC.decode("impression", (GOLDEN / "impression.v1.avro").read_bytes(), plain)["detail"] is False
    assert CODEC.decode("impression", (GOLDEN / "impression.v1.json").read_bytes())["detail"] is False
