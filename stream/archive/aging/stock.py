"""What is at a date and region now, and how a task changes it: objects first, then the change, then the removals.

A crash between any two steps leaves an archive that readers see as it was before, or as it is after. Whoever runs next
makes the same object again (it has the same name), and removes what was to be removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain as chained
from typing import Final, Literal

import pyarrow as pa

from stream.archive.aging import compact
from stream.archive.aging.compact import DamagedObject
from stream.archive.aging.policy import storage_class
from stream.archive.log import changes, commitlog, holds
from stream.archive.log.changes import Change, Done, State
from stream.archive.log.commitlog import ObjectRef
from stream.archive.log.holds import Holds, Record
from stream.archive.log.names import COLD, ObjectName, Place, object_name
from stream.archive.objects import ObjectExists, ObjectMissing, Store, get_each
from stream.archive.reading import reader
from stream.errors import ArchiveError

_ENTRIES_AT_ONCE: Final = 8
"""S3 answers in tens of milliseconds, and a day has thousands of small objects."""

_ENTRIES_KEPT: Final = 20_000
"""Those of a day: an entry is about all regions, and they are gone through one after the other."""


class Contended(ArchiveError):
    """Another task changed the same date and region at the same time; its change stands, and this one was dropped."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What a task finds at a place.

    ``live`` are the objects that readers see, with what their names say; ``lingering`` the keys of objects that a
    change removed and that still exist, with that change; ``unclaimed`` the names of those that nobody names: a crash
    left them, or somebody is about to.
    """

    place: Place
    state: State
    live: tuple[tuple[ObjectName, ObjectRef], ...]
    lingering: Mapping[str, Change]
    unclaimed: tuple[ObjectName, ...]


def places(
    store: Store, *, since: str | None = None, until: str | None = None, region: str | None = None
) -> dict[Place, list[ObjectName]]:
    """List the objects of both tiers by date and region, in that order; days are YYYY-MM-DD, both included."""
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


class Warehouse:
    """Takes stock of places and changes them; reads each commit entry once for all regions that it is about."""

    def __init__(self, store: Store, *, who: str, clock: Callable[[], float]) -> None:
        self.store = store
        self._who = who
        self._clock = clock
        self._named_by = lru_cache(maxsize=_ENTRIES_KEPT)(self._read_entry)

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def stock(self, place: Place, names: Iterable[ObjectName]) -> Stock:
        """Find out what the objects with these names, all that were listed at a place, are to readers.

        Raises:
            DamagedObject: an object that a change added is missing.
            InvalidEntry: an entry or a change can't be read; verify the archive.

        """
        state = reader.state(self.store, place)
        listed = {name.key: name for name in names}
        sinks = [name for name in listed.values() if name.number is None and not name.tier]
        with ThreadPoolExecutor(_ENTRIES_AT_ONCE) as pool:
            committed = [ref for ref in pool.map(self._committed, sinks) if ref is not None]
        live = [(name, ref) for ref in state.live(committed) if (name := object_name(ref.key)) is not None]
        missing = [ref.key for _, ref in live if ref.key not in listed]
        if missing:
            # Listed before the change that added it, perhaps.
            missing = [key for key in missing if not self._exists(key)]
        if missing:
            raise DamagedObject(f"{', '.join(missing)} should exist and does not; run `whyrec archive verify`")
        lingering = {key: state.removed[key] for key in listed if key in state.removed}
        known = {ref.key for _, ref in live} | lingering.keys()
        unclaimed = tuple(name for key, name in listed.items() if key not in known)
        return Stock(place, state, tuple(live), lingering, unclaimed)

    def get(self, ref: ObjectRef) -> bytes:
        """Read an object that readers saw when stock was taken.

        Raises:
            ArchiveChanged: a change has removed it since.

        """
        return reader.listed(self.store, ref, self.store.get)

    def tables(self, refs: Sequence[ObjectRef]) -> list[pa.Table]:
        """Read all rows of objects, some of them ahead; raises as :meth:`get` and :func:`compact.table_of` do."""
        by_key = {ref.key: ref for ref in refs}
        try:
            return [compact.table_of(by_key[key], data) for key, data in get_each(self.store, by_key)]
        except ObjectMissing:
            return [compact.table_of(ref, self.get(ref)) for ref in refs]  # the first that is missing says why

    def put(self, ref: ObjectRef, data: bytes, storage_class: str | None = None) -> None:
        """Store a new object, and read it back.

        Raises:
            DamagedObject: the store gives back something else.
            Contended: another task made the same object before, and has done more since.

        """
        self.store.put(ref.key, data, storage_class)
        try:
            compact.checked(ref, self.store.get(ref.key))
        except ObjectMissing:
            raise Contended(f"another task was quicker with {ref.key}; run again") from None

    def enter(self, stock: Stock, done: Done, known: Holds) -> Stock:
        """Record what was done, and return what readers see from now on.

        Raises:
            Contended: another task's change was first; the objects made for this one are deleted.

        """
        change = changes.append(
            stock.state,
            stock.place,
            done,
            holds=len(known.records),
            who=self._who,
            written_at_ms=int(self._clock() * 1000),
        )
        data = changes.encode(change)
        try:
            self.store.put_if_absent(change.key, data)
        except ObjectExists:
            # Two that do the same make the same object: what the winner names, or another may yet, must stay.
            state = reader.state(self.store, stock.place)
            for ref in done.added:
                name = object_name(ref.key)
                if name is not None and self._is_dead(name, stock, state):
                    self.store.delete(ref.key)
            raise Contended(
                f"{stock.place.date} {stock.place.region}: another task was first with change {change.key}; run again"
            ) from None
        removed = {ref.key for ref in done.removed}
        added = [(name, ref) for ref in done.added if (name := object_name(ref.key)) is not None]
        return Stock(
            stock.place,
            stock.state.after(change, data),
            (*(each for each in stock.live if each[1].key not in removed), *added),
            {**stock.lingering, **dict.fromkeys(removed, change)},
            stock.unclaimed,
        )

    def withdraw(
        self,
        stock: Stock,
        name: ObjectName,
        ref: ObjectRef,
        table: pa.Table,
        keep: compact.Bools,
        kind: Literal["erased", "expired"],
        held: Holds,
        *,
        case: str = "",
    ) -> tuple[ObjectRef | None, Stock]:
        """Replace an object (``table`` are its rows) by one of only the rows to ``keep``, or by none if it keeps none.

        Raises:
            DamagedObject, Contended: as above; nothing was changed.

        """
        added: tuple[ObjectRef, ...] = ()
        content = None
        if keep.any():
            made = compact.without(table, keep, name, stock.state.number, ref.modulus)
            self.put(made.ref, made.data, storage_class(name.tier))
            added, content = (made.ref,), made.content
        done = Done(kind, (ref,), added, content, int((~keep).sum()), case)
        return (added[0] if added else None), self.enter(stock, done, held)

    def clear(self, stock: Stock, grace_s: float) -> list[ObjectRef]:
        """Delete what changes removed ``grace_s`` seconds ago, and what nobody can name any more; return it."""
        due_ms = (self._clock() - grace_s) * 1000
        cleared = [
            ref
            for key, change in stock.lingering.items()
            for ref in change.removed
            if ref.key == key and change.written_at_ms <= due_ms
        ]
        cleared += [
            ObjectRef(name.key, "", 0, 0) for name in stock.unclaimed if self._is_dead(name, stock, stock.state)
        ]
        for ref in cleared:
            self.store.delete(ref.key)
        return cleared

    def _is_dead(self, name: ObjectName, stock: Stock, state: State) -> bool:
        """Say whether an object that nobody named never will be: the entry or the change that could is another's."""
        if name.key in state.added or name.key in state.removed:
            return False  # made again and named since stock was taken
        hot = name.key.removeprefix(name.tier)
        if name.tier and hot in state.removed:
            return True  # a copy, and whoever was moving it cannot enter that any more
        if name.tier and any(ref.key == hot for _, ref in stock.live):
            return False  # a copy that somebody may be moving now
        if name.number is not None:
            return name.number < state.number
        return self._named_by(name.chain.key(name.first or 0)) is not None

    def holds(self) -> Holds:
        """Read all records of holds.

        Raises:
            InvalidHold: one can't be read; verify the archive.

        """
        return read_holds(self.store)

    def _committed(self, name: ObjectName) -> ObjectRef | None:
        """Return the object as the entry that its name points to knows it; None if that does not name it."""
        named = self._named_by(name.chain.key(name.first or 0))
        return next((ref for ref in named or () if ref.key == name.key), None)

    def _read_entry(self, key: str) -> tuple[ObjectRef, ...] | None:
        try:
            return commitlog.decode(self.store.get(key)).objects
        except ObjectMissing:
            return None

    def _exists(self, key: str) -> bool:
        return any(info.key == key for info in self.store.list(key))


def read_holds(store: Store) -> Holds:
    """Read all records of holds.

    Raises:
        InvalidHold: one can't be read; verify the archive.

    """
    found = Holds()
    for info in store.list(holds.HOLDS):
        if holds.is_record_key(info.key):
            data = store.get(info.key)
            found = found.after(holds.decode(data), data)
    return found


def enter_hold(store: Store, make: Callable[[Holds], Record]) -> Record:
    """Record a hold or a release; if somebody else recorded another meanwhile, after that one.

    Raises:
        InvalidHold: it does not make sense after the records there are.

    """
    while True:
        record = make(read_holds(store))
        try:
            store.put_if_absent(holds.key_of(record.number), holds.encode(record))
        except ObjectExists:
            continue
        return record
