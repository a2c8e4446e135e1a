"""Reading the archive as it must be read: by its commit entries. An object that no entry names does not exist."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream.archive import commitlog
from stream.archive.commitlog import Entry, ObjectRef
from stream.archive.intervals import Intervals
from stream.archive.objects import ObjectMissing, Store
from stream.archive.segment import parse_key
from stream.archive.slates import SCHEMA
from stream.archive.verify import ObjectFacts

_IDENTITY: Final = ["source_partition", "source_offset", "item_id"]


def raw_entries(store: Store) -> Iterator[tuple[str, bytes]]:
    """Return every key below ``_commits/`` with its bytes, in the order of the keys."""
    for info in store.list(commitlog.COMMITS):
        yield info.key, store.get(info.key)


def entries(store: Store, topic: str = "") -> Iterator[Entry]:
    """Return the commit entries of all chains, or of one topic's.

    Raises:
        InvalidEntry: one can't be read; verify the archive.

    """
    for info in store.list(f"{commitlog.COMMITS}{topic}/" if topic else commitlog.COMMITS):
        if commitlog.is_entry_key(info.key):
            yield commitlog.decode(store.get(info.key))


def objects(
    store: Store, *, since: str | None = None, until: str | None = None, region: str | None = None
) -> Iterator[ObjectRef]:
    """Return the archived objects; ``since`` and ``until`` are dates YYYY-MM-DD, both included."""
    for entry in entries(store):
        for ref in entry.objects:
            name = parse_key(ref.key)
            if name is None:
                continue
            if (since and name.date < since) or (until and name.date > until) or (region and name.region != region):
                continue
            yield ref


def rows(
    store: Store, refs: Iterable[ObjectRef], columns: list[str], seen: Callable[[ObjectRef], None] | None = None
) -> pa.RecordBatchReader:
    """Stream columns of objects, one row group in memory at a time; ``seen`` is called as each object begins."""
    schema = pa.schema([SCHEMA.field(column) for column in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        for ref in refs:
            if seen is not None:
                seen(ref)
            with store.open(ref.key) as file:
                for batch in pq.ParquetFile(file, pre_buffer=True).iter_batches(columns=columns):
                    yield pa.RecordBatch.from_arrays([batch.column(name) for name in columns], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def facts_of(store: Store, *, deep: bool = False) -> Callable[[ObjectRef], ObjectFacts | None]:
    """Return what the verifier asks: a look at one object. ``deep`` reads the rows' identities too."""

    def look(ref: ObjectRef) -> ObjectFacts | None:
        try:
            data = store.get(ref.key)
        except ObjectMissing:
            return None
        digest = hashlib.sha256(data).hexdigest()
        if digest != ref.sha256:
            return ObjectFacts(digest, len(data))
        file = pq.ParquetFile(pa.BufferReader(data))
        if not deep:
            return ObjectFacts(digest, len(data), file.metadata.num_rows)
        identities = file.read(columns=_IDENTITY)
        repeated = identities.num_rows - identities.group_by(_IDENTITY).aggregate([]).num_rows
        return ObjectFacts(digest, len(data), identities.num_rows, _sources(identities), repeated)

    return look


def _sources(identities: pa.Table) -> dict[int, Intervals]:
    found: dict[int, Intervals] = {}
    for partition in pc.unique(identities["source_partition"]).to_pylist():
        here = identities.filter(pc.equal(identities["source_partition"], partition))
        found[partition] = Intervals.of_offsets(np.asarray(here["source_offset"].to_numpy(), np.int64))
    return found
