"""Finding rows: of the objects that can hold them, only the row groups that can, each in one read.

The footer of an object tells the least and the greatest value of each column in each row group. Compacted objects are
sorted by user, so one user's rows can be in one group or two neighbours. Of a group that can hold rows the columns that
decide are read first, which are small, and only if they do decide so the others, which lie side by side, in one read.
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
"""Bytes of a row group that are read at once: another request costs more."""

_FOOTER_BYTES: Final = 16 * 1024
_FOOTER_BYTES_PER_GROUP: Final = 2_800
"""Measured: 2,530 for 24 columns with their minima and maxima."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Days YYYY-MM-DD, both included, and regions (all, if none is named)."""

    since: str
    until: str
    regions: tuple[str, ...] = ()

    def holds(self, place: Place) -> bool:
        """Say whether a place is in it."""
        return self.since <= place.date <= self.until and (not self.regions or place.region in self.regions)


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows: those of the scope for which all that is not None is so.

    ``user`` is 16 hexadecimal digits, ``request`` a UUID or 32 of them. ``partition`` narrows to one partition of the
    audit topic. Where impressions are keyed by user, a user's rows are in one; compacted objects mostly tell which, and
    for the others whoever knows it may say so.
    """

    scope: Scope
    user: str | None = None
    request: str | None = None
    item: str | None = None
    type: str | None = None
    partition: int | None = None

    def values(self) -> dict[str, bytes | str]:
        """Return what each column has to be, as it is stored."""
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
        """Say whether an object of the scope can hold such rows, by its name and what its change states of it."""
        name = object_name(ref.key)
        if name is None:
            return True
        if self.partition is not None and name.chain.partition != self.partition:
            return False
        return self.user is None or partitioner.can_hold(self.user, name.chain.partition, ref.modulus)


@dataclass(slots=True)
class Reads:
    """How often the store was asked for part of an object, and for how many bytes in all."""

    count: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size: int) -> None:
        """Count one read."""
        with self._lock:
            self.count += 1
            self.bytes += size


class Counted(RawIOBase):
    """A file that tells what is read of it; its last ``tail`` bytes are fetched at once, when the first is needed."""

    def __init__(self, file: BinaryIO, reads: Reads, tail: int = 0) -> None:
        super().__init__()
        self._file = file
        self._reads = reads
        self._size = file.seek(0, os.SEEK_END)
        self._tail_from = max(0, self._size - tail) if tail else self._size
        self._tail = b""
        file.seek(0)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read anywhere."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read, and count it unless it is in the tail that was fetched before."""
        place = self._file.tell()
        if place >= self._tail_from and place < self._size:
            if not self._tail:
                self._file.seek(self._tail_from)
                self._tail = self._file.read(self._size - self._tail_from)
                self._reads.add(len(self._tail))
            begin = place - self._tail_from
            data = self._tail[begin:] if size < 0 else self._tail[begin : begin + size]
            self._file.seek(place + len(data))
            return data
        data = self._file.read(size)
        if data:
            self._reads.add(len(data))
        return data

    def close(self) -> None:
        """Close the file beneath too."""
        if not self.closed:
            self._file.close()
        super().close()


@dataclass(frozen=True, slots=True)
class Found:
    """What one object gave: rows, and how many row groups of how many were read for them."""

    ref: ObjectRef
    rows: int
    groups_read: int
    groups: int


def rows(
    store: Store,
    refs: Iterable[ObjectRef],
    query: Query,
    reads: Reads,
    told: Callable[[Found], None] = lambda _: None,
) -> Iterator[pa.Table]:
    """Yield the rows asked for, in tables of :data:`stream.archive.rows.slates.SCHEMA`; ``told`` hears of every object.

    Raises:
        ArchiveChanged: an object was removed by a change meanwhile; take a new snapshot.

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
            told(Found(ref, found, len(numbers), parquet.num_row_groups))


def _can_hold(group: Any, wanted: dict[str, bytes | str]) -> bool:
    for place in range(group.num_columns):
        column = group.column(place)
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
    """Guess the size of a footer, in bytes: what it tells of each row group of a compacted object, and some more."""
    return min(ref.bytes, _FOOTER_BYTES + ref.rows * _FOOTER_BYTES_PER_GROUP // COMPACTED.rows_per_group)
