"""A snapshot: the objects that readers see at one moment, and the ends of the unbroken chains that name them.

The same snapshot can be taken again later from the ends of the chains. That is how a receipt is verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stream.archive.log import changes, commitlog
from stream.archive.log.changes import State
from stream.archive.log.commitlog import InvalidEntry, ObjectRef, Tail
from stream.archive.log.names import CHANGES, Place, segment_name
from stream.archive.objects import Store, get_each
from stream.archive.proof.digests import End
from stream.archive.reading.pull import Scope


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The objects that readers see in a scope, in the order of their keys, and the ends of the chains, by prefix."""

    objects: tuple[ObjectRef, ...]
    chains: Mapping[str, End]


def take(store: Store, scope: Scope, ends: Mapping[str, End] | None = None) -> Snapshot:
    """Take a snapshot of a scope; with ``ends``, the snapshot at the time when the chains ended there.

    Raises:
        InvalidEntry: a chain is broken, or does not reach its end of ``ends`` any more; verify the archive.

    """
    # Changes are read first: an entry written meanwhile is in none of them, and a change written meanwhile is not seen.
    states, changed = _changes(store, scope, ends)
    committed: dict[Place, list[ObjectRef]] = {}
    chains: dict[str, End] = dict(changed)
    tails: dict[str, Tail] = {}
    for key, data in _raw(store, commitlog.COMMITS):
        chain, first = commitlog.parse_key(key)
        if ends is not None and (chain.prefix not in ends or first >= ends[chain.prefix].next):
            continue
        entry = commitlog.decode(data)
        for fault in commitlog.link_faults(tails.get(chain.prefix, Tail()), entry):
            raise InvalidEntry(f"{key}: {fault}; run `whyrec archive verify`")
        tails[chain.prefix] = commitlog.tail_after(entry, data)
        chains[chain.prefix] = End(entry.next, commitlog.digest(data))
        for ref in entry.objects:
            name = segment_name(ref.key)
            if name is not None and scope.contains(place := Place(name.date, name.region)):
                committed.setdefault(place, []).append(ref)
    for prefix, end in (ends or {}).items():
        if chains.get(prefix) != end:
            raise InvalidEntry(
                f"{prefix} no longer has the entry that ended at {end.next}; run `whyrec archive verify`"
            )
    places = sorted({*committed, *states})
    live = [ref for place in places for ref in states.get(place, State()).live(committed.get(place, []))]
    return Snapshot(tuple(sorted(live, key=lambda ref: ref.key)), chains)


def _changes(store: Store, scope: Scope, ends: Mapping[str, End] | None) -> tuple[dict[Place, State], dict[str, End]]:
    states: dict[Place, State] = {}
    chains: dict[str, End] = {}
    for key, data in _raw(store, CHANGES, scope):
        place, number = changes.parse_key(key)
        if ends is not None and (place.prefix not in ends or number >= ends[place.prefix].next):
            continue
        change = changes.decode(data)
        state = states.get(place, State())
        for fault in changes.link_faults(state, change):
            raise InvalidEntry(f"{key}: {fault}; run `whyrec archive verify`")
        states[place] = state.after(change, data)
        chains[place.prefix] = End(number + 1, hashlib.sha256(data).hexdigest())
    return states, chains


def _raw(store: Store, prefix: str, scope: Scope | None = None) -> Iterator[tuple[str, bytes]]:
    names = []
    for info in store.list(prefix, f"{prefix}date={scope.since}" if scope is not None else ""):
        if scope is not None and info.key >= f"{prefix}date={scope.until}0":  # `0` is the character after `/`
            break
        known = changes.is_change_key(info.key) if scope is not None else commitlog.is_entry_key(info.key)
        if known and (scope is None or scope.contains(changes.parse_key(info.key)[0])):
            names.append(info.key)
    yield from get_each(store, names)
