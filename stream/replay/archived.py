"""The archived rows of one recommendation request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from stream.archive.log.commitlog import ObjectRef
from stream.archive.objects import Store
from stream.archive.reading import reader
from stream.archive.rows.slates import SCHEMA


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """Topic, partition and offset of an impression on Kafka; topic_id is empty where the archive has none."""

    topic_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class ArchivedSlate:
    """The archived rows of one impression event, by position: the columns of a segment, None for an absent value."""

    source: Source
    rows: list[dict[str, Any]]

    def common(self, column: str) -> Any:
        """Return the value of a column that is the same in every row of the slate."""
        return self.rows[0][column]


def slates_of(
    store: Store, request: UUID, refs: Iterable[ObjectRef], seen: Callable[[ObjectRef], None] | None = None
) -> list[ArchivedSlate]:
    """Return the archived slates of a request, ordered by source; there are several where the request was sent again.

    Of objects without rows of the request, only the column of request ids is read. ``seen`` is called before each
    object is read.
    """
    groups: dict[Source, list[dict[str, Any]]] = {}
    for ref in refs:
        if seen is not None:
            seen(ref)
        if _holds(store, ref, request):
            for batch in reader.rows(store, [ref], SCHEMA.names):
                for row in batch.filter(_is(batch, request)).to_pylist():
                    source = Source(row["source_topic_id"] or "", row["source_partition"], row["source_offset"])
                    groups.setdefault(source, []).append(row)
    return [
        ArchivedSlate(source, sorted(rows, key=lambda row: row["position"])) for source, rows in sorted(groups.items())
    ]


def _holds(store: Store, ref: ObjectRef, request: UUID) -> bool:
    return any(pc.any(_is(batch, request)).as_py() for batch in reader.rows(store, [ref], ["request_id"]))


def _is(rows: pa.RecordBatch, request: UUID) -> pa.Array:
    column = rows.column("request_id")
    return pc.equal(column.cast(pa.binary(16)), pa.scalar(request.bytes, pa.binary(16)))
