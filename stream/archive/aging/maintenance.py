"""Maintenance transactions: how compaction, tiering, erasure and expiry change the objects of a date and region.

A task takes the :class:`Inventory` of a place, writes new objects, commits the change that names them, and deletes the
objects that changes removed, in this order. After a crash between two of these steps readers see the place either as it
was before or as it is after. The next run writes the same objects again, under the same keys, and deletes what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain as chained
from typing import Final, Literal, NamedTuple

import pyarrow as pa

from stream.archive.aging import compact
from stream.archive.aging.compact import DamagedObject
from stream.archive.aging.policy import storage_class
from stream.archive.log import changes, commitlog, holds
from stream.archive.log.changes import Change, State, Transaction
from stream.archive.log.commitlog import ObjectRef
from stream.archive.log.holds import Holds, Record
from stream.archive.log.names import COLD, ObjectName, Place, object_name
from stream.archive.objects import ObjectExists, ObjectMissing, Store, get_each
from stream.archive.reading import reader
from stream.errors import ArchiveError

_PARALLEL_READS: Final = 8
"""S3 takes tens of milliseconds for a read, and a day has thousands of small objects."""

_CACHED_ENTRIES: Final = 20_000
"""Enough for the entries of one day: an entry names objects of all regions, and the regions are worked on in turn."""


class _Commit(NamedTuple):
    """What maintenance needs of a commit entry."""

    objects: tuple[ObjectRef, ...]
    written_at_ms: int


class Contended(ArchiveError):
    """Another task committed a change of the same place first. Its change stands; this one was not made."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The objects of a place when a task begins.

    ``live`` are the objects that readers see, with what their keys say. ``removed`` are the keys of objects that a
    change removed and nobody has deleted yet, with that change. ``unreferenced`` are the objects that no entry or
    change names: a crashed task left them, or a running one is about to name them.
    """

    place: Place
    state: State
    live: tuple[tuple[ObjectName, ObjectRef], ...]
    removed: Mapping[str, Change]
    unreferenced: tuple[ObjectName, ...]


def list_places(
    store: Store, *, since: str | None = None, until: str | None = None, region: str | None = None
) -> dict[Place, list[ObjectName]]:
    """List the objects of both tiers by date and region, in that order. Days are YYYY-MM-DD, both included."""
    found: dict[Place, list[ObjectName]] = {}
    for info in chained(store.list("date="), store.list(f"{COLD}date=")):
        name = object_name(info.key)
        if name is None:
            continue
        place = name.place
        if (since and place.date < since) or (until and place.date > until) or (region and place.region != region):
            continue
        found.setdefault(place, []).append(name)
    return dict(sorted(found.items()))


class Maintenance:
    """Reads places and commits transactions on them. Each commit entry is read once for all the places it names.

    ``who`` is recorded in each change. ``clock`` returns seconds since 1970.
    """

    def __init__(self, store: Store, *, who: str, clock: Callable[[], float]) -> None:
        self.store = store
        self._who = who
        self._clock = clock
        self._entry = lru_cache(maxsize=_CACHED_ENTRIES)(self._read_entry)

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def inventory(self, place: Place, names: Iterable[ObjectName]) -> Inventory:
        """Classify the objects of a place; ``names`` are all that were listed there.

        Raises:
            DamagedObject: an object that a change added is missing.
            InvalidEntry: an entry or a change cannot be read.

        """
        state = reader.state(self.store, place)
        listed = {name.key: name for name in names}
        committed_names = [name for name in listed.values() if name.number is None and not name.tier]
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            committed = [ref for ref in pool.map(self._committed, committed_names) if ref is not None]
        live = [(name, ref) for ref in state.live(committed) if (name := object_name(ref.key)) is not None]
        # The listing may be older than the change that added an object.
        missing = [ref.key for _, ref in live if ref.key not in listed and not self._exists(ref.key)]
        if missing:
            raise DamagedObject(f"{', '.join(missing)} should exist and does not; run `whyrec archive verify`")
        removed = {key: state.removed[key] for key in listed if key in state.removed}
        referenced = {ref.key for _, ref in live} | removed.keys()
        unreferenced = tuple(name for key, name in listed.items() if key not in referenced)
        return Inventory(place, state, tuple(live), removed, unreferenced)

    def archived_at_ms(self, inventory: Inventory, ref: ObjectRef) -> int:
        """Return when the youngest rows of a live object were archived, in milliseconds since 1970.

        Raises:
            DamagedObject: a commit entry that the rows come from does not exist.
            InvalidEntry: such an entry cannot be read.

        """
        keys = [self._entry_key(key) for key in inventory.state.origins.get(ref.key, {ref.key})]
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            entries = list(pool.map(self._entry, keys))
        for key, entry in zip(keys, entries, strict=True):
            if entry is None:
                raise DamagedObject(f"{ref.key} has rows of {key}, which does not exist; run `whyrec archive verify`")
        return max(entry.written_at_ms for entry in entries if entry is not None)

    def read(self, ref: ObjectRef) -> bytes:
        """Read an object of an inventory.

        Raises:
            ArchiveChanged: a change has removed the object meanwhile.

        """
        return reader.listed(self.store, ref, self.store.get)

    def read_tables(self, refs: Sequence[ObjectRef]) -> list[pa.Table]:
        """Read all rows of several objects, reading ahead; raises as :meth:`read` and :func:`compact.table_of`."""
        by_key = {ref.key: ref for ref in refs}
        try:
            return [compact.table_of(by_key[key], data) for key, data in get_each(self.store, by_key)]
        except ObjectMissing:
            return [compact.table_of(ref, self.read(ref)) for ref in refs]  # raises with the reason

    def write(self, ref: ObjectRef, data: bytes, storage_class: str | None = None) -> None:
        """Store a new object and read it back.

        Raises:
            DamagedObject: the store returns other bytes.
            Contended: another task wrote the same object and removed it again.

        """
        self.store.put(ref.key, data, storage_class)
        try:
            compact.checked(ref, self.store.get(ref.key))
        except ObjectMissing:
            raise Contended(f"another task removed {ref.key} before this one could name it; run again") from None

    def commit(self, inventory: Inventory, transaction: Transaction, known: Holds) -> Inventory:
        """Record a transaction as the next change of its place, and return the inventory after it.

        ``known`` are the holds that the task heeded. From the moment the change exists, readers see its result.

        Raises:
            Contended: another task's change has this number; the objects written for this transaction are deleted.

        """
        change = changes.append(
            inventory.state,
            inventory.place,
            transaction,
            holds=len(known.records),
            who=self._who,
            written_at_ms=int(self._clock() * 1000),
        )
        data = changes.encode(change)
        try:
            self.store.put_if_absent(change.key, data)
        except ObjectExists:
            # Two tasks with the same transaction write the same objects: those that a change names, or may name, stay.
            state = reader.state(self.store, inventory.place)
            for ref in transaction.added:
                name = object_name(ref.key)
                if name is not None and self._is_abandoned(name, inventory, state):
                    self.store.delete(ref.key)
            place = inventory.place
            raise Contended(
                f"{place.date} {place.region}: another task committed {change.key} first; run again"
            ) from None
        removed = {ref.key for ref in transaction.removed}
        added = [(name, ref) for ref in transaction.added if (name := object_name(ref.key)) is not None]
        return Inventory(
            inventory.place,
            inventory.state.after(change, data),
            (*(each for each in inventory.live if each[1].key not in removed), *added),
            {**inventory.removed, **dict.fromkeys(removed, change)},
            inventory.unreferenced,
        )

    def remove_rows(
        self,
        inventory: Inventory,
        name: ObjectName,
        ref: ObjectRef,
        table: pa.Table,
        keep: compact.Bools,
        kind: Literal["erased", "expired"],
        known: Holds,
        *,
        case: str = "",
    ) -> tuple[ObjectRef | None, Inventory]:
        """Replace an object by one with only some of its rows, or by none if no row is kept.

        ``table`` are the rows of the object, and ``keep`` (bool [rows]) is true for those that stay.

        Raises:
            DamagedObject, Contended: as :meth:`write` and :meth:`commit`; nothing was changed.

        """
        added: tuple[ObjectRef, ...] = ()
        content = None
        if keep.any():
            made = compact.without(table, keep, name, inventory.state.number, ref.modulus)
            self.write(made.ref, made.data, storage_class(name.tier))
            added, content = (made.ref,), made.content
        transaction = Transaction(kind, (ref,), added, content, int((~keep).sum()), case)
        return (added[0] if added else None), self.commit(inventory, transaction, known)

    def delete_removed(self, inventory: Inventory, grace_s: float) -> list[ObjectRef]:
        """Delete the objects that changes removed ``grace_s`` seconds ago or earlier, and the abandoned ones.

        Returns the deleted objects; of abandoned ones only the key is known.
        """
        due_ms = (self._clock() - grace_s) * 1000
        deleted = [
            ref
            for key, change in inventory.removed.items()
            for ref in change.removed
            if ref.key == key and change.written_at_ms <= due_ms
        ]
        deleted += [
            ObjectRef(name.key, "", 0, 0)
            for name in inventory.unreferenced
            if self._is_abandoned(name, inventory, inventory.state)
        ]
        for ref in deleted:
            self.store.delete(ref.key)
        return deleted

    def holds(self) -> Holds:
        """Read all hold records; raises as :func:`read_holds`."""
        return read_holds(self.store)

    def _is_abandoned(self, name: ObjectName, inventory: Inventory, state: State) -> bool:
        """Say whether no entry or change can name an unreferenced object any more."""
        if name.key in state.added or name.key in state.removed:
            return False  # another task wrote and named the object after the inventory was taken
        hot = name.key.removeprefix(name.tier)
        if name.tier and hot in state.removed:
            return True  # a copy of a removed object: the change that would name it can no longer be committed
        if name.tier and any(ref.key == hot for _, ref in inventory.live):
            return False  # a copy that another task may be moving now
        if name.number is not None:
            return name.number < state.number
        return self._entry(self._entry_key(name.key)) is not None

    def _committed(self, name: ObjectName) -> ObjectRef | None:
        """Return the object as its commit entry names it; None if the entry does not exist or names other objects."""
        entry = self._entry(self._entry_key(name.key))
        return next((ref for ref in (entry.objects if entry else ()) if ref.key == name.key), None)

    def _entry_key(self, key: str) -> str:
        """Return the key of the commit entry to which the key of a committed object points."""
        name = object_name(key)
        if name is None or name.first is None:
            raise DamagedObject(f"{key} is not the key of a committed object; run `whyrec archive verify`")
        return name.chain.key(name.first)

    def _read_entry(self, key: str) -> _Commit | None:
        try:
            entry = commitlog.decode(self.store.get(key))
        except ObjectMissing:
            return None
        return _Commit(entry.objects, entry.written_at_ms)

    def _exists(self, key: str) -> bool:
        return any(info.key == key for info in self.store.list(key))


def read_holds(store: Store) -> Holds:
    """Read all hold records.

    Raises:
        InvalidHold: a record cannot be read.

    """
    found = Holds()
    for info in store.list(holds.HOLDS):
        if holds.is_record_key(info.key):
            data = store.get(info.key)
            found = found.after(holds.decode(data), data)
    return found


def append_hold(store: Store, make: Callable[[Holds], Record]) -> Record:
    """Append the record of a hold or a release, after any record that another writer appends meanwhile.

    ``make`` receives the holds so far and returns the next record.

    Raises:
        InvalidHold: the record contradicts the records before it.

    """
    while True:
        record = make(read_holds(store))
        try:
            store.put_if_absent(holds.key_of(record.number), holds.encode(record))
        except ObjectExists:
            continue
        return record
