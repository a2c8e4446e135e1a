"""Reading the archive by its commit entries and changes. An object that they do not name is not part of the archive.

A maintenance task may remove an object after a reader listed it. Reading it then raises :class:`ArchiveChanged`, and
:func:`again` lists the objects once more. Tasks keep removed objects for an hour, so this is rare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from stream.archive.log import changes, commitlog, holds
from stream.archive.log.changes import Change, State
from stream.archive.log.commitlog import Entry, ObjectRef
from stream.archive.log.names import CHANGES, Place, object_name, segment_name
from stream.archive.objects import ObjectMissing, Store, get_each
from stream.archive.rows.slates import SCHEMA
from stream.errors import ArchiveError

T = TypeVar("T")


class ArchiveChanged(ArchiveError):
    """A change removed an object after it was listed; list the objects again."""


def raw_entries(store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield every key below ``_commits/`` with its bytes, in the order of the keys."""
    yield from get_each(store, (info.key for info in store.list(commitlog.COMMITS)))


def raw_changes(store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield every key below ``_changes/`` with its bytes, in the order of the keys."""
    yield from get_each(store, (info.key for info in store.list(CHANGES)))


def raw_holds(store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield every key below ``_holds/`` with its bytes, in the order of the keys."""
    yield from get_each(store, (info.key for info in store.list(holds.HOLDS)))


def entries(store: Store, topic: str = "") -> Iterator[Entry]:
    """Yield the commit entries of all chains, or of the chains of one topic.

    Raises:
        InvalidEntry: an entry cannot be read; verify the archive.

    """
    listed = store.list(f"{commitlog.COMMITS}{topic}/" if topic else commitlog.COMMITS)
    for _, data in get_each(store, (info.key for info in listed if commitlog.is_entry_key(info.key))):
        yield commitlog.decode(data)


def state(store: Store, place: Place) -> State:
    """Return the state of one date and region after all its changes.

    Raises:
        InvalidChange: a change cannot be read; verify the archive.

    """
    return _state(store, [info.key for info in store.list(place.prefix)])


def states(
    store: Store, *, since: str | None = None, until: str | None = None, region: str | None = None
) -> dict[Place, State]:
    """Return the :func:`state` of every place with changes, filtered like :func:`objects`."""
    keys: dict[Place, list[str]] = {}
    for info in store.list(CHANGES, after=f"{CHANGES}date={since}" if since else ""):
        if until and info.key >= f"{CHANGES}date={until}0":  # `0` is the character after `/`
            break
        if changes.is_change_key(info.key):
            place, _ = changes.parse_key(info.key)
            if not region or place.region == region:
                keys.setdefault(place, []).append(info.key)
    return {place: _state(store, found) for place, found in keys.items()}


def objects(
    store: Store, *, since: str | None = None, until: str | None = None, region: str | None = None
) -> Iterator[ObjectRef]:
    """Yield the objects that together have each archived impression once, of both tiers and in no particular order.

    ``since`` and ``until`` are dates YYYY-MM-DD, both included.

    Raises:
        InvalidEntry: an entry or a change cannot be read; verify the archive.

    """
    return (ref for ref, _ in archived_objects(store, since=since, until=until, region=region))


def archived_objects(
    store: Store, *, since: str | None = None, until: str | None = None, region: str | None = None
) -> Iterator[tuple[ObjectRef, int]]:
    """Yield the objects of :func:`objects`, each with when its youngest rows were archived (ms since 1970)."""
    # Changes are read first: an entry written meanwhile is in none of them, and a change written meanwhile is not seen.
    changed = states(store, since=since, until=until, region=region)
    removed_at_ms: dict[str, int] = {}
    for entry in entries(store):
        for ref in entry.objects:
            name = segment_name(ref.key)
            if name is None:
                continue
            if (since and name.date < since) or (until and name.date > until) or (region and name.region != region):
                continue
            found = changed.get(Place(name.date, name.region))
            if found is None or ref.key not in found.removed:
                yield ref, entry.written_at_ms
            else:
                removed_at_ms[ref.key] = entry.written_at_ms
    for found in changed.values():
        for key, ref in found.added.items():
            yield ref, max((removed_at_ms.get(origin, 0) for origin in found.origins[key]), default=0)


def rows(
    store: Store, refs: Iterable[ObjectRef], columns: list[str], seen: Callable[[ObjectRef], None] | None = None
) -> pa.RecordBatchReader:
    """Stream columns of objects, one row group in memory at a time. ``seen`` is called before each object is read.

    Raises:
        ArchiveChanged: a change removed an object meanwhile; see :func:`again`.

    """
    schema = pa.schema([SCHEMA.field(column) for column in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        for ref in refs:
            if seen is not None:
                seen(ref)
            try:
                with opened(store, ref) as file:
                    parquet = pq.ParquetFile(file, pre_buffer=True)
                    present = [name for name in columns if name in parquet.schema_arrow.names]
                    for batch in parquet.iter_batches(columns=present):
                        yield pa.RecordBatch.from_arrays([_column(batch, field) for field in schema], schema=schema)
            except FileNotFoundError as error:  # S3 may delete an object between two reads of it
                raise _why_missing(store, ref) or error from None

    return pa.RecordBatchReader.from_batches(schema, batches())


def again(read: Callable[[], T]) -> T:
    """Call a function that lists and reads; call it once more if a change removed an object in between."""
    try:
        return read()
    except ArchiveChanged:
        return read()


def listed(store: Store, ref: ObjectRef, read: Callable[[str], T]) -> T:
    """Call ``read`` (the store's ``get`` or ``open``) with the key of an object that was listed.

    Raises:
        ArchiveChanged: a change has removed the object since.
        ObjectMissing: the object does not exist, and no change removed it; verify the archive.

    """
    try:
        return read(ref.key)
    except ObjectMissing as error:
        raise _why_missing(store, ref) or error from None


def opened(store: Store, ref: ObjectRef) -> BinaryIO:
    """Open an object that was listed; raises as :func:`listed`."""
    return listed(store, ref, store.open)


def removed_since(store: Store, ref: ObjectRef) -> Change | None:
    """Return the change that has removed an object since it was listed, if any."""
    name = object_name(ref.key)
    return None if name is None else state(store, name.place).removed.get(ref.key)


def _why_missing(store: Store, ref: ObjectRef) -> ArchiveChanged | None:
    change = removed_since(store, ref)
    if change is None:
        return None
    return ArchiveChanged(f"{ref.key} was {change.kind} just before it was read (change {change.key}); run it again")


def _state(store: Store, keys: Iterable[str]) -> State:
    found = State()
    for _, data in get_each(store, filter(changes.is_change_key, keys)):
        found = found.after(changes.decode(data), data)
    return found


def _column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    if field.name in batch.schema.names:
        return batch.column(field.name)
    return pa.nulls(batch.num_rows, field.type)
