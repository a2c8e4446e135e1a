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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import to_parsing_canonical_form

from schemas import columnar
from schemas.avro_types import Node, writer_node
from schemas.errors import InvalidEvent, UndecodableEvent, WhyrecError
from schemas.events import EventName
from schemas.json_form import from_json
from schemas.registry import Registry
from schemas.versions import VERSIONS, parsed, resolvable, schema, schema_fingerprint

FINGERPRINT_HEADER: Final = "avro-fingerprint"
_MAGIC: Final = b"\x00"
_CONFLUENT_HEAD: Final = 5
_TRUNCATED: Final = "truncated Avro, or Avro of another schema than the message names: its {} bytes end within a field"
_DAMAGED: Final = "damaged Avro, or Avro of another schema than the message names"

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


@dataclass(frozen=True, slots=True)
class _Writer:
    """The schema that messages were written with, as fastavro reads it and as ``schemas.columnar`` does.

    schema: None where it is the newest version; node: None where only fastavro can read it.
    """

    schema: Any | None
    node: Node | None


@dataclass(frozen=True, slots=True)
class _Framed:
    """The body of a message and the schema that wrote it, None for JSON."""

    body: bytes
    writer: _Writer | None


class Codec:
    """Encode and decode events; with a registry in the Confluent wire format, without one as plain Avro."""

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry
        self._by_id: dict[tuple[EventName, int], _Writer] = {}

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
        return _read(event, self._framed(event, value, headers))

    def decode_batch(self, event: EventName, messages: Sequence[tuple[bytes | None, Headers]]) -> DecodedMessages:
        """Decode messages' values and headers into columns of the newest version.

        Avro messages of one schema are decoded together. JSON, and Avro of a schema that ``schemas.columnar`` cannot
        read, is decoded by itself, as :meth:`decode` does.

        Raises:
            RegistryUnavailable: a schema's id could not be looked up now; nothing is decoded.

        """
        errors: dict[int, str] = {}
        framed: dict[int, _Framed] = {}
        together: dict[Node, list[int]] = {}
        for row, (value, headers) in enumerate(messages):
            with _noting(errors, row):
                framed[row] = message = self._framed(event, value, headers)
                if message.writer is not None and message.writer.node is not None:
                    together.setdefault(message.writer.node, []).append(row)
        rows: list[int] = []
        parts: list[pa.RecordBatch] = []
        for node, alike in together.items():
            decoded = columnar.decode(event, [framed[row].body for row in alike], node)
            rows += [alike[place] for place in decoded.rows]
            parts.append(decoded.batch)
        if len(rows) < len(messages):
            refused = {row for alike in together.values() for row in alike}.difference(rows)
            records: list[tuple[int, dict[str, Any]]] = []
            for row in sorted(framed.keys() - set(rows)):
                with _noting(errors, row):
                    records.append((row, _read(event, framed[row])))
            for found, part in _columns(event, records, errors):
                rows += found
                parts.append(part)
            for row in refused.intersection(rows):
                # fastavro counts a negative index from the end, and takes any byte for a boolean.
                errors[row] = f"{_DAMAGED}: an index or a boolean is outside its range"
        if not parts:
            parts.append(columnar.from_records(event, []))
        batch = parts[0] if len(parts) == 1 else pa.concat_batches(parts)
        if len(parts) > 1:
            order = [place for place in np.argsort(rows).tolist() if rows[place] not in errors]
            batch, rows = batch.take(pa.array(order, pa.int64())), [rows[place] for place in order]
        return DecodedMessages(batch, rows, errors)

    def _framed(self, event: EventName, value: bytes | None, headers: Headers) -> _Framed:
        """Find where a message's body begins and what wrote it.

        Raises:
            UndecodableEvent: no framing of ours, or an unknown schema.
            RegistryUnavailable: the schema's id could not be looked up now.

        """
        if not value:
            raise UndecodableEvent("the message has no value; expected an event")
        # The header decides before the bytes do: plain Avro may well begin with a zero or a brace.
        for name, declared in headers or ():
            if name == FINGERPRINT_HEADER:
                return _Framed(value, _plain_writer(event, bytes(declared or b"")))
        if value[:1] == _MAGIC:
            if len(value) < _CONFLUENT_HEAD and self._registry is not None:
                raise UndecodableEvent(
                    f"expected a schema id of 4 bytes after the first; got {len(value)} bytes in all"
                )
            return _Framed(value[_CONFLUENT_HEAD:], self._registered_writer(event, value[1:_CONFLUENT_HEAD]))
        if value.lstrip()[:1] == b"{":
            return _Framed(value, None)
        raise UndecodableEvent(
            f"expected the Confluent wire format, plain Avro with the header {FINGERPRINT_HEADER}, or JSON; "
            f"got {len(value)} bytes that begin with {value[:8].hex()}"
        )

    def _framing(self, event: EventName, topic: str) -> tuple[bytes, list[tuple[str, bytes]]]:
        if self._registry is None:
            return b"", [(FINGERPRINT_HEADER, schema_fingerprint(event).encode())]
        return _MAGIC + self._registry.id_of(topic, schema(event)).to_bytes(4, "big"), []

    def _registered_writer(self, event: EventName, schema_id: bytes) -> _Writer:
        """Return the schema that the registry has by an id of 4 bytes."""
        key = (event, int.from_bytes(schema_id, "big"))
        if key in self._by_id:
            return self._by_id[key]
        if self._registry is None:
            raise UndecodableEvent(
                "the value is in the Confluent wire format, but no schema registry is configured; "
                "set WHYREC_SCHEMA_REGISTRY_URL"
            )
        written = self._registry.schema_of(key[1])
        name = written.get("name") if isinstance(written, dict) else written
        if name != schema(event)["name"]:
            raise UndecodableEvent(f"schema id {key[1]} is of {name}; expected {event}")
        return self._by_id.setdefault(key, _writer(event, written))


@contextmanager
def _noting(errors: dict[int, str], row: int) -> Iterator[None]:
    """Note why a message cannot be decoded, by its row; what no message causes is raised."""
    try:
        yield
    except UndecodableEvent as error:
        errors[row] = str(error)
    except (WhyrecError, MemoryError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 (no message, however odd, may stop the others)
        errors[row] = f"{type(error).__name__}: {error}"


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


@cache
def _writer_of_version(event: EventName, version: int) -> _Writer:
    return _writer(event, schema(event, version))


def _writer(event: EventName, written: Any) -> _Writer:
    """Prepare to read what was written with a schema."""
    tree = parse_schema(written)
    # Where writer and reader agree there is nothing to resolve, and resolution costs time.
    is_newest = to_parsing_canonical_form(tree) == to_parsing_canonical_form(parsed(event))
    return _Writer(None if is_newest else tree, writer_node(event, schema(event) if is_newest else written))


def _plain_writer(event: EventName, declared: bytes) -> _Writer:
    for version in reversed(VERSIONS[event]):
        if declared == schema_fingerprint(event, version).encode():
            return _writer_of_version(event, version)
    raise UndecodableEvent(
        f"unknown schema fingerprint {declared[:32]!r}; expected one of {event}.avsc, "
        f"the newest of which is {schema_fingerprint(event)}"
    )


def _read(event: EventName, message: _Framed) -> dict[str, Any]:
    """Read one message into a record of the newest version."""
    if message.writer is None:
        return from_json(event, message.body)
    body, buffer, newest = message.body, io.BytesIO(message.body), parsed(event)
    written = message.writer.schema
    try:
        if written is None:
            record = schemaless_reader(buffer, newest, None)
        else:
            record = schemaless_reader(buffer, written, resolvable(newest, written))
    except EOFError as error:
        raise UndecodableEvent(_TRUNCATED.format(len(body))) from error
    except Exception as error:  # fastavro's compiled reader raises many kinds; each means the same here
        raise UndecodableEvent(f"{_DAMAGED}: {type(error).__name__} {error}") from error
    if buffer.tell() != len(body):
        raise UndecodableEvent(f"{len(body) - buffer.tell()} bytes follow the end of the record; is it another schema?")
    if not isinstance(record, dict):
        raise UndecodableEvent(f"expected a record, got {type(record).__name__}")
    return record
