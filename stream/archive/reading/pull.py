"""Finding rows with few reads: only the row groups that can have them are read, of the objects that can have them.

The footer of an object states the minimum and maximum of each column in each row group. Compacted objects are sorted by
user, so the rows of one user are in one row group or in two adjacent ones. Of a large row group, the columns of the
query are read first; they are small. Only if rows match are the other columns read, which lie side by side, in one
read.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import RawIOBase
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream.archive.log.commitlog import ObjectRef
from stream.archive.log.names import Place, object_name
from stream.archive.objects import Store
from stream.archive.reading import reader
from stream.archive.rows import partitioner
from stream.archive.rows.segment import COMPACTED, current
from stream.archive.rows.slates import SCHEMA

_SMALL: Final = 128 * 1024
"""Bytes of a row group that is read completely: a separate read of the query's columns would cost more."""

_FOOTER_BYTES: Final = 16 * 1024
_FOOTER_BYTES_PER_GROUP: Final = 2_800
"""Measured: 2,530 for 24 columns with minimum and maximum."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Days YYYY-MM-DD, both included, and regions; an empty tuple is all regions."""

    since: str
    until: str
    regions: tuple[str, ...] = ()

    def contains(self, place: Place) -> bool:
        """Say whether a place is in the scope."""
        return self.since <= place.date <= self.until and (not self.regions or place.region in self.regions)


@dataclass(frozen=True, slots=True)
class Query:
    """The rows to find: those of the scope that match every field that is not None.

    ``user`` is 16 hexadecimal digits, ``request`` a UUID or 32 hexadecimal digits. ``partition`` restricts the search
    to one partition of the audit topic. Where impressions are keyed by user, all rows of a user are in one partition.
    Most compacted objects tell which users they can hold; for other objects a caller who knows the partition can name
    it.
    """

    scope: Scope
    user: str | None = None
    request: str | None = None
    item: str | None = None
    type: str | None = None
    partition: int | None = None

    def values(self) -> dict[str, bytes | str]:
        """Return the required value of each column, as the column stores it."""
        found: dict[str, bytes | str] = {}
        if self.user is not None:
            found["user_id_hash"] = bytes.fromhex(self.user)
        if self.request is not None:
            found["request_id"] = uuid.UUID(self.request).bytes
        if self.item is not None:
            found["item_id"] = self.item
        if self.type is not None:
            found["explanation_type"] = self.type
        return found

    def reaches(self, ref: ObjectRef) -> bool:
        """Say whether an object of the scope can have matching rows, by its key and its stated modulus."""
        name = object_name(ref.key)
        if name is None:
            return True
        if self.partition is not None and name.chain.partition != self.partition:
            return False
        return self.user is None or partitioner.can_hold(self.user, name.chain.partition, ref.modulus)


@dataclass(slots=True)
class Reads:
    """The number of reads from the store, and their bytes in all."""

    count: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size: int) -> None:
        """Count one read."""
        with self._lock:
            self.count += 1
            self.bytes += size


class Counted(RawIOBase):
    """A file that counts its reads. Its last ``tail`` bytes are read together when one of them is first needed."""

    def __init__(self, file: BinaryIO, reads: Reads, tail: int = 0) -> None:
        super().__init__()
        self._file = file
        self._reads = reads
        self._size = file.seek(0, os.SEEK_END)
        self._tail_from = max(0, self._size - tail) if tail else self._size
        self._tail = b""
        file.seek(0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position in the file, and return it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in the file."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read bytes, and count the read unless it is served from the tail."""
        position = self._file.tell()
        if self._tail_from <= position < self._size:
            if not self._tail:
                self._file.seek(self._tail_from)
                self._tail = self._file.read(self._size - self._tail_from)
                self._reads.add(len(self._tail))
            begin = position - self._tail_from
            data = self._tail[begin:] if size < 0 else self._tail[begin : begin + size]
            self._file.seek(position + len(data))
            return data
        data = self._file.read(size)
        if data:
            self._reads.add(len(data))
        return data

    def close(self) -> None:
        """Close the underlying file too."""
        if not self.closed:
            self._file.close()
        super().close()


@dataclass(frozen=True, slots=True)
class ObjectResult:
    """The result of searching one object: matching rows, row groups read, and row groups in all."""

    ref: ObjectRef
    rows: int
    groups_read: int
    groups: int


def rows(
    store: Store,
    refs: Iterable[ObjectRef],
    query: Query,
    reads: Reads,
    on_object: Callable[[ObjectResult], None] = lambda _: None,
) -> Iterator[pa.Table]:
    """Yield the matching rows as tables of :data:`stream.archive.rows.slates.SCHEMA`.

    ``reads`` counts the reads; ``on_object`` is called after each object.

    Raises:
        ArchiveChanged: a change removed an object meanwhile; take a new snapshot.

    """
    wanted = query.values()
    for ref in refs:
        with Counted(reader.listed(store, ref, store.open), reads, _tail(ref)) as file:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            numbers = [n for n in range(parquet.num_row_groups) if _can_hold(parquet.metadata.row_group(n), wanted)]
            found = 0
            for number in numbers:
                large = parquet.metadata.row_group(number).total_byte_size > _SMALL
                if wanted and large and not _mask(_group(parquet, number, list(wanted)), wanted).any():
                    continue
                table = _group(parquet, number)
                table = table.filter(pa.array(_mask(table, wanted)))
                found += table.num_rows
                if table.num_rows:
                    yield current(table).cast(SCHEMA)
            on_object(ObjectResult(ref, found, len(numbers), parquet.num_row_groups))


def _can_hold(group: Any, wanted: dict[str, bytes | str]) -> bool:
    for index in range(group.num_columns):
        column = group.column(index)
        value = wanted.get(column.path_in_schema)
        if value is None or not column.is_stats_set or not column.statistics.has_min_max:
            continue
        if not column.statistics.min <= value <= column.statistics.max:
            return False
    return True


def _mask(table: pa.Table, wanted: dict[str, bytes | str]) -> npt.NDArray[np.bool_]:
    found = np.ones(table.num_rows, np.bool_)
    for name, value in wanted.items():
        column = table[name].combine_chunks()
        values = column.storage if isinstance(column, pa.ExtensionArray) else column
        found &= np.asarray(pc.equal(values, pa.scalar(value, values.type)).to_numpy(zero_copy_only=False), np.bool_)
    return found


def _group(parquet: pq.ParquetFile, number: int, columns: list[str] | None = None) -> pa.Table:
    return parquet.read_row_group(number, columns=columns, use_threads=False)


def _tail(ref: ObjectRef) -> int:
    """Estimate the size of a footer in bytes, generously: its size grows with the row groups of a compacted object."""
    return min(ref.bytes, _FOOTER_BYTES + ref.rows * _FOOTER_BYTES_PER_GROUP // COMPACTED.rows_per_group)
