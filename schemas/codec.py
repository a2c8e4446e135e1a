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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import to_parsing_canonical_form

from schemas import columnar
from schemas.errors import InvalidEvent, UndecodableEvent, WhyrecError
from schemas.events import EventName
from schemas.json_form import from_json
from schemas.registry import Registry
from schemas.versions import VERSIONS, parsed, resolvable, schema, schema_fingerprint

FINGERPRINT_HEADER: Final = "avro-fingerprint"
_MAGIC: Final = b"\x00"
_CONFLUENT_HEAD: Final = 5

Headers = Iterable[tuple[str, bytes]] | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message's value and the headers that say how to read it."""

    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class DecodedMessages:
    """Messages as columns.

    batch: the records of the newest version, in the order of the messages; rows: the message of each record; errors:
    why a message is no such record, by message.
    """

    batch: pa.RecordBatch
    rows: list[int]
    errors: dict[int, str]


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
            schemaless_writer(buffer, parsed(event), record)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise InvalidEvent(f"not a record of {event}.v{VERSIONS[event][-1]}.avsc: {error}") from error
        return Encoded(buffer.getvalue(), headers)

    def encode_batch(self, event: EventName, batch: pa.RecordBatch, topic: str) -> list[Encoded]:
        """Encode columns, as ``schemas.columnar`` has them, for a topic: one message for each row.

        Raises:
            RegistryUnavailable, IncompatibleSchema: from the registry, where there is one.

        """
        prefix, headers = self._framing(event, topic)
        return [Encoded(prefix + body, headers) for body in columnar.encode(event, batch)]

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

    def decode_batch(self, event: EventName, messages: Sequence[tuple[bytes | None, Headers]]) -> DecodedMessages:
        """Decode messages' values and headers into columns of the newest version.

        Messages of the newest version are decoded together; any other (an older version, JSON) by itself, as
        :meth:`decode` does.

        Raises:
            RegistryUnavailable: a schema's id could not be looked up now; nothing is decoded.

        """
        newest = [
            (row, body)
            for row, (value, headers) in enumerate(messages)
            if (body := self._newest_body(event, value, headers)) is not None
        ]
        together = columnar.decode(event, [body for _, body in newest])
        rows = [newest[place][0] for place in together.rows]
        decoded = set(rows)
        records: list[tuple[int, dict[str, Any]]] = []
        errors: dict[int, str] = {}
        for row, (value, headers) in enumerate(messages):
            if row in decoded:
                continue
            try:
                records.append((row, self.decode(event, value, headers)))
            except UndecodableEvent as error:
                errors[row] = str(error)
            except (WhyrecError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 (no message, however odd, may stop the others)
                errors[row] = f"{type(error).__name__}: {error}"
        if not records:
            return DecodedMessages(together.batch, rows, errors)
        parts = [together.batch]
        refused = {row for row, _ in newest} - decoded
        for found, part in _columns(event, records, errors):
            rows += found
            parts.append(part)
        for row in refused.intersection(rows):
            # fastavro counts a negative index from the end of an enum's symbols, and takes any byte for a boolean.
            errors[row] = "damaged Avro: the index of an enum or a boolean is outside its range"
        order = [place for place in np.argsort(rows).tolist() if rows[place] not in errors]
        batch = pa.concat_batches(parts).take(pa.array(order, pa.int64()))
        return DecodedMessages(batch, [rows[place] for place in order], errors)

    def _newest_body(self, event: EventName, value: bytes | None, headers: Headers) -> bytes | None:
        """Return the Avro body of a message of the newest version; None for every other message.

        With a registry, None until :meth:`decode` has met the schema's id once.
        """
        try:
            declared = next((bytes(v) for k, v in headers or () if k == FINGERPRINT_HEADER), None)
        except (TypeError, ValueError):
            return None
        if declared is not None:
            newest = declared == schema_fingerprint(event).encode()
            return value if newest and value else None
        if not value or len(value) < _CONFLUENT_HEAD or value[:1] != _MAGIC:
            return None
        key = (event, int.from_bytes(value[1:_CONFLUENT_HEAD], "big"))
        newest = key in self._by_id and self._by_id[key] is None
        return value[_CONFLUENT_HEAD:] if newest else None

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


def _columns(
    event: EventName, records: Sequence[tuple[int, Mapping[str, Any]]], errors: dict[int, str]
) -> list[tuple[list[int], pa.RecordBatch]]:
    """Turn records into columns, together where that can be done; of those that cannot, note the error by row."""
    try:
        return [([row for row, _ in records], columnar.from_records(event, [record for _, record in records]))]
    except InvalidEvent as error:
        if len(records) == 1:
            errors[records[0][0]] = str(error)
            return []
    return [part for record in records for part in _columns(event, [record], errors)]


def _decode_plain(event: EventName, value: bytes, declared: bytes) -> dict[str, Any]:
    for version in reversed(VERSIONS[event]):
        if declared.decode("ascii", "replace") == schema_fingerprint(event, version):
            return _read(event, memoryview(value), _unless_newest(event, parsed(event, version)))
    raise UndecodableEvent(
        f"unknown schema fingerprint {declared[:32]!r}; expected one of {event}.avsc, "
        f"the newest of which is {schema_fingerprint(event)}"
    )


def _read(event: EventName, body: memoryview, writer: Any | None) -> dict[str, Any]:
    buffer = io.BytesIO(body)
    newest = parsed(event)
    try:
        if writer is None:
            record = schemaless_reader(buffer, newest, None)
        else:
            record = schemaless_reader(buffer, writer, resolvable(newest, writer))
    except Exception as error:  # fastavro's compiled reader raises many kinds; each means the same here
        raise UndecodableEvent(f"truncated or damaged Avro: {type(error).__name__} {error}") from error
    if buffer.tell() != len(body):
        raise UndecodableEvent(f"{len(body) - buffer.tell()} bytes follow the end of the record; is it another schema?")
    if not isinstance(record, dict):
        raise UndecodableEvent(f"expected a record, got {type(record).__name__}")
    return record


def _unless_newest(event: EventName, written: Any) -> Any | None:
    """Nothing where writer and reader agree: resolution costs time, and there is nothing to resolve."""
    same = to_parsing_canonical_form(written) == to_parsing_canonical_form(parsed(event))
    return None if same else written
