"""Finding rows: of the objects that can hold them, only the row groups that can, each in one read.

The footer of an object tells the least and the greatest value of each column in each row group. Compacted objects are
sorted by user, so one user's rows are in one group or two neighbours. The columns of a group lie side by side, and are
fetched together.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import RawIOBase
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream.archive import changes, reader
from stream.archive.commitlog import ObjectRef
from stream.archive.objects import Store
from stream.archive.segment import current
from stream.archive.slates import SCHEMA
from stream.archive.snapshot import Scope


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows: those of the scope for which all that is not None is so.

    ``user`` is 16 hexadecimal digits, ``request`` a UUID or 32 of them. ``partition`` narrows to one partition of the
    audit topic: where impressions are keyed by user, a user's rows are in one, and whoever knows which may say so.
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
        """Say whether an object of the scope can hold such rows, by its name."""
        name = changes.object_name(ref.key)
        return self.partition is None or name is None or name.chain.partition == self.partition


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
    """A file that tells what is read of it."""

    def __init__(self, file: BinaryIO, reads: Reads) -> None:
        super().__init__()
        self._file = file
        self._reads = reads

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
        """Read, and count it."""
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
    """Yield the rows asked for, in tables of :data:`stream.archive.slates.SCHEMA`; ``told`` hears of every object.

    Raises:
        ArchiveChanged: an object was removed by a change meanwhile; take a new snapshot.

    """
    wanted = query.values()
    for ref in refs:
        with Counted(reader.listed(store, ref, store.open), reads) as file:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            numbers = [n for n in range(parquet.num_row_groups) if _can_hold(parquet.metadata.row_group(n), wanted)]
            found = 0
            for number in numbers:
                table = _only(parquet.read_row_group(number, use_threads=False), wanted)
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


def _only(table: pa.Table, wanted: dict[str, bytes | str]) -> pa.Table:
    for name, value in wanted.items():
        column = table[name].combine_chunks()
        values = column.storage if isinstance(column, pa.ExtensionArray) else column
        table = table.filter(pc.equal(values, pa.scalar(value, values.type)))
    return table
