"""Events from files: JSON lines, Parquet, or an Avro container file, in batches as columns of the newest version.

Columns and fields that an event does not have are ignored, and fields that have a default may be missing, so that
tables of other teams can be read as they are. A time may be a timestamp of any unit.
"""

from __future__ import annotations

import datetime as dt
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.avro_types import Node, event_node
from schemas.columnar import from_records
from schemas.errors import InvalidEvent, UndecodableEvent
from schemas.events import EventName
from schemas.json_form import from_json

BATCH: Final = 1_000
"""Events in a batch."""

_PARQUET: Final = b"PAR1"
_AVRO: Final = b"Obj\x01"


@dataclass(frozen=True, slots=True)
class Part:
    """Some events of a file. places: line or row of each, from 1; errors: why others cannot be read, by place."""

    batch: pa.RecordBatch
    places: list[int]
    errors: dict[int, str]


def read_events(event: EventName, source: BinaryIO) -> Iterator[Part]:
    """Read the events of an open file, whose first bytes say which format it has; the file need not be seekable.

    Raises:
        UndecodableEvent: the file is of none of the formats, or is damaged.

    """
    start = source.read(len(_PARQUET))
    if start in (_PARQUET, _AVRO):
        content = io.BytesIO(start + source.read())
        records = _parquet(content) if start == _PARQUET else _avro(content)
        yield from _parts(event, ((place, record) for place, record in enumerate(records, start=1)))
        return
    yield from _parts(event, _json_lines(event, start, source))


def read_file(event: EventName, path: Path) -> Iterator[Part]:
    """Read the events of a file; raises as :func:`read_events` does, with the name of the file."""
    with path.open("rb") as source:
        try:
            yield from read_events(event, source)
        except UndecodableEvent as error:
            raise UndecodableEvent(f"{path}: {error}") from error


def _parts(event: EventName, records: Iterator[tuple[int, dict[str, Any] | str]]) -> Iterator[Part]:
    """Turn records into batches; a text stands for the reason why a record could not be read."""
    node = event_node(event)
    while some := list(islice(records, BATCH)):
        errors = {place: record for place, record in some if isinstance(record, str)}
        kept = [(place, _fitted(record, node)) for place, record in some if not isinstance(record, str)]
        try:
            yield Part(from_records(event, [record for _, record in kept]), [place for place, _ in kept], errors)
            continue
        except InvalidEvent:
            pass
        sound = []
        for place, record in kept:
            try:
                from_records(event, [record])
                sound.append((place, record))
            except InvalidEvent as error:
                errors[place] = str(error)
        yield Part(from_records(event, [record for _, record in sound]), [place for place, _ in sound], errors)


def _json_lines(event: EventName, start: bytes, source: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield each line's record, or why it is none. One event over several lines is read as well."""
    first = start + source.readline()
    if first.strip() == b"{":
        yield 1, _record(event, first + source.read())
        return
    for place, line in enumerate((first, *source) if b"\n" in first or first else (), start=1):
        if line.strip():
            yield place, _record(event, line)


def _record(event: EventName, line: bytes) -> dict[str, Any] | str:
    try:
        return from_json(event, line)
    except UndecodableEvent as error:
        return str(error)


def _parquet(content: BinaryIO) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(content).iter_batches(BATCH):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UndecodableEvent(
            f"expected Parquet, as the first bytes say, got {error}: write the file again"
        ) from error


def _avro(content: BinaryIO) -> Iterator[dict[str, Any]]:
    try:
        for record in fastavro.reader(content):
            if not isinstance(record, dict):
                raise UndecodableEvent(f"expected records in the Avro file, got {type(record).__name__}")
            yield record
    except (ValueError, EOFError, KeyError, TypeError) as error:
        raise UndecodableEvent(
            f"expected an Avro container file, as the first bytes say, got {type(error).__name__} {error}: write the "
            "file again"
        ) from error


def _fitted(value: Any, node: Node) -> Any:
    """Leave out what an event does not have, and turn times, missing numbers and arrays into its types."""
    if node.kind == "record" and isinstance(value, dict):
        there = {child.name: child for child in node.children}
        return {name: _fitted(each, there[name]) for name, each in value.items() if name in there}
    if node.kind == "array" and isinstance(value, list):
        return [_fitted(each, node.children[0]) for each in value]
    if node.kind == "long" and isinstance(value, dt.datetime):
        whole = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        return round(whole.timestamp() * 1000)
    if value is None and node.kind in ("float", "double") and not node.nullable:
        return math.nan
    if value is None and node.kind == "array":
        return []
    return value
