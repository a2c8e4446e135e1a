"""Bytes to record and back.

Three framings are read, one is written:

=================  ===========================================================================  =====================
framing            how it is recognised                                                         written
=================  ===========================================================================  =====================
Confluent          first byte 0, then the schema's id as 4 bytes, big-endian                    with a registry
plain Avro         header ``avro-fingerprint``: the schema's CRC-64-AVRO, 16 hex characters     without one
JSON               first character ``{``; the record's shape, bytes as hex, null for NaN        never
=================  ===========================================================================  =====================
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form
from fastavro.validation import ValidationError, validate

from schemas.errors import InvalidEvent, UndecodableEvent
from schemas.events import EventName
from schemas.registry import Registry

FINGERPRINT_HEADER: Final = "avro-fingerprint"
VERSIONS: Final[dict[EventName, tuple[int, ...]]] = {
    "impression": (1, 2),
    "explanation": (1, 2),
    "audit": (1, 2),
    "dead_letter": (1,),
}
"""Every version ever written, oldest first; the last is the one we write, and all are read."""

_MAGIC = b"\x00"
_CONFLUENT_HEAD = 5
_GLIMPSE = 80
"""Characters of a wrong value that an error shows."""

Headers = Iterable[tuple[str, bytes]] | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message's value and the headers that say how to read it."""

    value: bytes
    headers: list[tuple[str, bytes]]


@cache
def schema(event: EventName, version: int | None = None) -> dict[str, Any]:
    """Return the Avro schema of an event as JSON, by default its newest version; shared, so not to be changed."""
    number = VERSIONS[event][-1] if version is None else version
    found: dict[str, Any] = json.loads(files("schemas").joinpath(f"avro/{event}.v{number}.avsc").read_text("utf-8"))
    return found


@cache
def schema_fingerprint(event: EventName, version: int | None = None) -> str:
    """CRC-64-AVRO of the schema's parsing canonical form (Avro specification, "Schema Fingerprints"), 16 hex."""
    return str(fingerprint(to_parsing_canonical_form(schema(event, version)), "CRC-64-AVRO"))


class Codec:
    """Encode and decode events; with a registry in the Confluent wire format, without one as plain Avro."""

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry
        self._by_id: dict[tuple[EventName, int], Any] = {}

    def encode(self, event: EventName, record: Mapping[str, Any], topic: str) -> Encoded:
        """Encode a record for a topic.

        Raises:
            InvalidEvent: the record does not have the schema's shape.
            RegistryUnavailable, IncompatibleSchema: from the registry, where there is one.

        """
        prefix, headers = self._framing(event, topic)
        buffer = io.BytesIO()
        buffer.write(prefix)
        try:
            schemaless_writer(buffer, _parsed(event), record)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise InvalidEvent(f"not a record of {event}.v{VERSIONS[event][-1]}.avsc: {error}") from error
        return Encoded(buffer.getvalue(), headers)

    def frame(self, event: EventName, body: bytes, topic: str) -> Encoded:
        """Frame a record that is Avro already, of the newest schema.

        Raises:
            RegistryUnavailable, IncompatibleSchema: from the registry, where there is one.

        """
        prefix, headers = self._framing(event, topic)
        return Encoded(prefix + body, headers)

    def decode(self, event: EventName, value: bytes | None, headers: Headers = None) -> dict[str, Any]:
        """Decode a message's value into a record of the newest version.

        Raises:
            UndecodableEvent: no framing of ours, an unknown schema, a truncated or over-long body.
            RegistryUnavailable: the schema's id could not be looked up now.

        """
        if not value:
            raise UndecodableEvent("the message has no value; expected an event")
        # The header decides before the bytes do: plain Avro may well begin with a zero or a brace.
        declared = next((bytes(v) for k, v in headers or () if k == FINGERPRINT_HEADER), None)
        if declared is not None:
            return _decode_plain(event, value, declared)
        if value[:1] == _MAGIC:
            return self._decode_confluent(event, value)
        if value.lstrip()[:1] == b"{":
            return from_json(event, value)
        raise UndecodableEvent(
            f"expected the Confluent wire format, plain Avro with the header {FINGERPRINT_HEADER}, or JSON; "
            f"got {len(value)} bytes that begin with {value[:8].hex()}"
        )

    def newest_body(self, event: EventName, value: bytes | None, headers: Headers = None) -> memoryview | None:
        """Return the Avro body of a message written with the newest schema, for a reader that knows only that one.

        None for every other message, and with a registry until :meth:`decode` has met the schema's id once.
        """
        declared = next((bytes(v) for k, v in headers or () if k == FINGERPRINT_HEADER), None)
        if declared is not None:
            newest = declared == schema_fingerprint(event).encode()
            return memoryview(value) if newest and value else None
        if not value or len(value) < _CONFLUENT_HEAD or value[:1] != _MAGIC:
            return None
        key = (event, int.from_bytes(value[1:_CONFLUENT_HEAD], "big"))
        newest = key in self._by_id and self._by_id[key] is None
        return memoryview(value)[_CONFLUENT_HEAD:] if newest else None

    def _framing(self, event: EventName, topic: str) -> tuple[bytes, list[tuple[str, bytes]]]:
        if self._registry is None:
            return b"", [(FINGERPRINT_HEADER, schema_fingerprint(event).encode())]
        return _MAGIC + self._registry.id_of(topic, schema(event)).to_bytes(4, "big"), []

    def _decode_confluent(self, event: EventName, value: bytes) -> dict[str, Any]:
        if self._registry is None:
            raise UndecodableEvent(
                "the value is in the Confluent wire format, but no schema registry is configured; "
                "set WHYREC_SCHEMA_REGISTRY_URL"
            )
        if len(value) < _CONFLUENT_HEAD:
            raise UndecodableEvent(f"expected a schema id of 4 bytes after the first; got {len(value)} bytes in all")
        schema_id = int.from_bytes(value[1:_CONFLUENT_HEAD], "big")
        key = (event, schema_id)
        if key not in self._by_id:
            written = self._registry.schema_of(schema_id)
            if written.get("name") != schema(event)["name"]:
                raise UndecodableEvent(f"schema id {schema_id} is of {written.get('name')}; expected {event}")
            self._by_id[key] = _unless_newest(event, parse_schema(written))
        return _read(event, memoryview(value)[_CONFLUENT_HEAD:], self._by_id[key])


def read_newest(event: EventName, body: bytes | memoryview) -> dict[str, Any]:
    """Read the Avro body of a record of the newest version, without any framing.

    Raises:
        UndecodableEvent: a truncated or over-long body.

    """
    return _read(event, memoryview(body), None)


def from_json(event: EventName, value: bytes) -> dict[str, Any]:
    """Read a record from JSON of the schema's shape; bytes are hex strings, null in a list of numbers is NaN.

    A field that has a default may be missing, so that JSON of an older version is read too.

    Raises:
        UndecodableEvent: not JSON, a missing or an extra field, or a value of another type.

    """
    try:
        text = value.decode()
        record = json.loads(text)
        if "\\u" in text:
            # An escape may be half of a character, which can be neither written in UTF-8 nor told to anybody.
            json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UndecodableEvent(f"not JSON: {error}") from error
    try:
        record = _from_plain(record, _parsed(event))
        validate(record, _parsed(event), strict=True)
    except ValidationError as error:
        reasons = "; ".join(map(_misfit, error.errors)) or str(error)
        raise UndecodableEvent(f"JSON does not fit {event}.v{VERSIONS[event][-1]}.avsc: {reasons}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UndecodableEvent(f"JSON does not fit {event}.v{VERSIONS[event][-1]}.avsc: {error}") from error
    return dict(record)


def to_json(record: Mapping[str, Any]) -> str:
    """Write a record as JSON that :func:`from_json` reads back: bytes as hex, NaN as null."""
    return json.dumps(_to_plain(record), ensure_ascii=False, allow_nan=False)


def _decode_plain(event: EventName, value: bytes, declared: bytes) -> dict[str, Any]:
    for version in reversed(VERSIONS[event]):
        if declared.decode("ascii", "replace") == schema_fingerprint(event, version):
            return _read(event, memoryview(value), _unless_newest(event, _parsed(event, version)))
    raise UndecodableEvent(
        f"unknown schema fingerprint {declared[:32]!r}; expected one of {event}.avsc, "
        f"the newest of which is {schema_fingerprint(event)}"
    )


def _read(event: EventName, body: memoryview, writer: Any | None) -> dict[str, Any]:
    buffer = io.BytesIO(body)
    newest = _parsed(event)
    try:
        record = schemaless_reader(buffer, newest if writer is None else writer, None if writer is None else newest)
    except Exception as error:  # fastavro's compiled reader raises many kinds; each means the same here
        raise UndecodableEvent(f"truncated or damaged Avro: {type(error).__name__} {error}") from error
    if buffer.tell() != len(body):
        raise UndecodableEvent(f"{len(body) - buffer.tell()} bytes follow the end of the record; is it another schema?")
    if not isinstance(record, dict):
        raise UndecodableEvent(f"expected a record, got {type(record).__name__}")
    return record


@cache
def _parsed(event: EventName, version: int | None = None) -> Any:
    parsed = parse_schema(schema(event, version))
    _as_bytes(parsed)
    return parsed


def _as_bytes(node: Any) -> None:
    """Turn defaults of bytes, which JSON writes as text (Avro specification, "Complex Types"), into what they mean."""
    for field in node["fields"] if isinstance(node, dict) and node["type"] == "record" else ():
        default, kind = field.get("default"), field["type"]
        if isinstance(default, str) and (kind == "bytes" or (isinstance(kind, dict) and kind["type"] == "fixed")):
            field["default"] = default.encode("latin-1")
        _as_bytes(kind["items"] if isinstance(kind, dict) and kind["type"] == "array" else kind)


def _unless_newest(event: EventName, written: Any) -> Any | None:
    """Nothing where writer and reader agree: resolution costs time, and there is nothing to resolve."""
    same = to_parsing_canonical_form(written) == to_parsing_canonical_form(_parsed(event))
    return None if same else written


def _from_plain(value: Any, node: Any) -> Any:
    if isinstance(node, list):
        return _from_union(value, node)
    kind = node["type"] if isinstance(node, dict) else node
    if kind == "record" and isinstance(value, dict):
        types = {field["name"]: field["type"] for field in node["fields"]}
        # As Avro has it: what an older version did not know has its default.
        defaults = {field["name"]: field["default"] for field in node["fields"] if "default" in field}
        if extra := sorted(value.keys() - types.keys()):
            raise ValueError(f"{_short(node['name'])} has no field {', '.join(extra)}; expected {', '.join(types)}")
        if missing := [name for name in types if name not in value and name not in defaults]:
            raise ValueError(f"{_short(node['name'])} lacks {', '.join(missing)}; expected {', '.join(types)}")
        given = defaults | {name: _from_plain(child, types[name]) for name, child in value.items()}
        return {name: given[name] for name in types}
    if kind == "array" and isinstance(value, list):
        if node["items"] in ("float", "double"):
            return [math.nan if child is None else child for child in value]
        return [_from_plain(child, node["items"]) for child in value]
    if kind in ("bytes", "fixed") and isinstance(value, str):
        return bytes.fromhex(value)
    return math.nan if value is None and kind in ("float", "double") else value


def _from_union(value: Any, nodes: list[Any]) -> Any:
    """Read by the branch that an object is; every other value is its own, and null is null here, not NaN."""
    records = [node for node in nodes if isinstance(node, dict) and node["type"] == "record"]
    return _from_plain(value, records[0]) if isinstance(value, dict) and records else value


def _misfit(reason: Any) -> str:
    """Say which field of JSON is not as the schema has it: what is there, at most a glimpse of it, and what should be.

    ``reason`` is one of fastavro's, with a datum, a schema and a field.
    """
    wanted = reason.schema
    if isinstance(wanted, dict):
        wanted = wanted.get("name", wanted["type"])
        if isinstance(reason.schema.get("symbols"), list):
            wanted = f"one of {', '.join(reason.schema['symbols'])}"
    there = json.dumps(_to_plain(reason.datum), ensure_ascii=False)
    if len(there) > _GLIMPSE:
        there = f"{there[:_GLIMPSE]}…"
    return f"{_short(reason.field)} is {there}; expected {_short(wanted)}"


def _short(name: Any) -> str:
    return str(name).removeprefix("whyrec.")


def _to_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _to_plain(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_to_plain(child) for child in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
