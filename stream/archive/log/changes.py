"""The change log: one chain of changes for each date and region, each change a maintenance transaction. Pure.

Only sinks write to the commit chains. Compaction, tiering, erasure and expiry write changes. A chain of changes belongs
to one date and region, so tasks at different places never compete with each other or with a sink::

    objects that readers see at a place  =  committed objects - removed objects + added objects

A change names its objects with their hashes and contains the SHA-256 of the change before it. Its key contains its
number, so that only one of two writers can create it. Its numbers add up: rows removed = rows added + ``erased``.
``content`` is the digest (:mod:`stream.archive.rows.content`) of the added rows, which are the removed rows without the
erased ones. A change records how many rows were erased, and nothing that leads to a person: ``case`` is the number
under which the reason is on file. A compacted object may state a ``modulus``, which tells which users it can hold
(:mod:`stream.archive.rows.partitioner`): readers that look for another user need not open it.

Format 1 had no ``modulus``. Changes of format 1 are read, and their chains are continued in format 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, get_args
from urllib.parse import unquote

from stream.archive.log import canonical
from stream.archive.log.commitlog import InvalidEntry, ObjectRef, digest
from stream.archive.log.names import CHANGES, COLD, PLACE, Place, is_date, object_name

FORMAT: Final = 2

Kind = Literal["compacted", "moved", "erased", "expired"]
"""``compacted``: the same rows in fewer objects. ``moved``: the same objects in the cold tier. ``erased``: the rows of
one user were removed. ``expired``: rows at the end of their retention were removed."""

_KEY = re.compile(rf"{CHANGES}{PLACE}(?P<number>\d{{8}})\.json")


class InvalidChange(InvalidEntry):
    """The bytes are not a change, or the change contradicts itself or the change before it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change. The module's docstring explains its numbers.

    ``holds`` is the number of hold records (:mod:`stream.archive.log.holds`) that the writer had read.
    ``written_at_ms`` is in milliseconds since 1970.
    """

    place: Place
    number: int
    previous: str | None
    kind: Kind
    removed: tuple[ObjectRef, ...]
    added: tuple[ObjectRef, ...]
    content: str | None
    erased: int
    holds: int
    case: str
    who: str
    written_at_ms: int
    format: int = FORMAT

    @property
    def key(self) -> str:
        """The key of the change."""
        return self.place.key(self.number)


@dataclass(frozen=True, slots=True)
class State:
    """A place after its changes so far.

    ``number`` is the number of the next change and ``digest`` the SHA-256 of the last one. ``removed`` and ``added``
    are objects by key; an added object that was removed again is only in ``removed``. ``origins`` gives, for each added
    object, the keys of the committed objects that its rows come from. ``erased`` counts rows.
    """

    number: int = 0
    digest: str | None = None
    removed: Mapping[str, Change] = field(default_factory=lambda: MappingProxyType({}))
    added: Mapping[str, ObjectRef] = field(default_factory=lambda: MappingProxyType({}))
    origins: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    erased: int = 0

    def after(self, change: Change, data: bytes) -> State:
        """Return the state after one more change; ``data`` are the bytes of the change."""
        removed = {ref.key: change for ref in change.removed}
        kept = {key: ref for key, ref in self.added.items() if key not in removed}
        origins = {key: self.origins[key] for key in kept}
        for ref, sources in lineage(change):
            origins[ref.key] = frozenset().union(*(self.origins.get(each.key, {each.key}) for each in sources))
        return State(
            change.number + 1,
            digest(data),
            {**self.removed, **removed},
            kept | {ref.key: ref for ref in change.added},
            origins,
            self.erased + change.erased,
        )

    def live(self, committed: Iterable[ObjectRef]) -> list[ObjectRef]:
        """Return the objects that readers see: the committed ones that no change removed, and the added ones."""
        return [*(ref for ref in committed if ref.key not in self.removed), *self.added.values()]


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one maintenance transaction does to a place. :func:`append` makes the change that records it."""

    kind: Kind
    removed: tuple[ObjectRef, ...]
    added: tuple[ObjectRef, ...]
    content: str | None = None
    erased: int = 0
    case: str = ""


def append(state: State, place: Place, transaction: Transaction, *, holds: int, who: str, written_at_ms: int) -> Change:
    """Make the change that continues a chain.

    Raises:
        InvalidChange: the change contradicts itself, or removes an object that was removed before.

    """
    change = Change(
        place=place,
        number=state.number,
        previous=state.digest,
        kind=transaction.kind,
        removed=transaction.removed,
        added=transaction.added,
        content=transaction.content,
        erased=transaction.erased,
        holds=holds,
        case=transaction.case,
        who=who,
        written_at_ms=written_at_ms,
    )
    for fault in (*faults(change), *link_faults(state, change)):
        raise InvalidChange(f"{change.key}: {fault}")
    return change


def lineage(change: Change) -> list[tuple[ObjectRef, tuple[ObjectRef, ...]]]:
    """Return each added object with the removed objects that its rows come from."""
    if change.kind == "moved" and len(change.added) == len(change.removed):
        return [(added, (removed,)) for added, removed in zip(change.added, change.removed, strict=True)]
    return [(added, change.removed) for added in change.added]


def faults(change: Change) -> list[str]:
    """Return the contradictions within a change; an empty list if the change is consistent."""
    found: list[str] = []
    removed, added = (sum(ref.rows for ref in refs) for refs in (change.removed, change.added))
    if removed != added + change.erased or change.erased < 0:
        found.append(f"removes {removed} rows, but adds {added} and erases {change.erased}")
    if not change.removed:
        found.append("removes no object")
    keys = [ref.key for ref in (*change.removed, *change.added)]
    if len(set(keys)) < len(keys):
        found.append("names an object twice")
    if change.erased and change.kind in ("compacted", "moved"):
        found.append(f"erases {change.erased} rows, though it is a change of kind {change.kind}")
    if change.kind == "moved":
        if list(change.added) != [replace(ref, key=COLD + ref.key) for ref in change.removed]:
            found.append("adds other objects to the cold tier than it removes from the hot tier")
        return found
    if (change.content is None) == bool(change.added):
        found.append("states no digest of the rows that it adds, or states a digest and adds no object")
    for ref in change.added:
        name = object_name(ref.key)
        if name is None or (name.place, name.number, name.digest) != (change.place, change.number, ref.sha256[:16]):
            found.append(f"adds {ref.key}, which is not the key of its object with SHA-256 {ref.sha256}")
    return found


def link_faults(state: State, change: Change) -> list[str]:
    """Return the reasons why a change does not continue a chain; an empty list if it does."""
    found: list[str] = []
    if change.number != state.number:
        found.append(f"has number {change.number}, expected {state.number}")
    if change.previous != state.digest:
        found.append(f"follows a change with SHA-256 {change.previous}, but the change before it has {state.digest}")
    again = [ref.key for ref in change.removed if ref.key in state.removed]
    if again:
        found.append(f"removes objects that were removed before: {', '.join(again)}")
    return found


def encode(change: Change) -> bytes:
    """Write a change as canonical JSON."""
    return canonical.encode(
        {
            "format": change.format,
            "date": change.place.date,
            "region": change.place.region,
            "number": change.number,
            "previous": change.previous,
            "kind": change.kind,
            "removed": [_document(ref, change.format) for ref in change.removed],
            "added": [_document(ref, change.format) for ref in change.added],
            "content": change.content,
            "erased": change.erased,
            "holds": change.holds,
            "case": change.case,
            "who": change.who,
            "written_at_ms": change.written_at_ms,
        }
    )


def decode(data: bytes) -> Change:
    """Read a change. :func:`encode` of the result gives the same bytes.

    Raises:
        InvalidChange: the bytes are not JSON, lack a field, are not canonical, or have an unknown format.

    """
    return canonical.decode(data, range(1, FORMAT + 1), _change, encode, what="change", invalid=InvalidChange)


def parse_key(key: str) -> tuple[Place, int]:
    """Return the place and the number in the key of a change.

    Raises:
        InvalidChange: the key is not the key of a change.

    """
    match = _KEY.fullmatch(key)
    if match is not None:
        place = Place(match["date"], unquote(match["region"]))
        if place.key(int(match["number"])) == key and is_date(place.date):
            return place, int(match["number"])
    raise InvalidChange(f"{key} is not the key of a change; expected _changes/date=<day>/region=<name>/<8 digits>.json")


def is_change_key(key: str) -> bool:
    """Say whether a key is the key of a change. A bucket may hold other objects too."""
    return _KEY.fullmatch(key) is not None


def _document(ref: ObjectRef, form: int) -> dict[str, Any]:
    stated = {} if form == 1 else {"modulus": ref.modulus}
    return {"key": ref.key, "sha256": ref.sha256, "bytes": ref.bytes, "rows": ref.rows, **stated}


def _ref(document: dict[str, Any]) -> ObjectRef:
    modulus = document.get("modulus")
    if modulus is not None and (not isinstance(modulus, int) or modulus < 2):
        raise InvalidChange(f"modulus {modulus!r}; expected null, or an integer of at least 2")
    return ObjectRef(document["key"], document["sha256"], document["bytes"], document["rows"], modulus)


def _change(document: dict[str, Any]) -> Change:
    if document["kind"] not in get_args(Kind):
        raise InvalidChange(f"kind {document['kind']!r}; expected one of {', '.join(get_args(Kind))}")
    return Change(
        place=Place(document["date"], document["region"]),
        number=document["number"],
        previous=document["previous"],
        kind=document["kind"],
        removed=tuple(map(_ref, document["removed"])),
        added=tuple(map(_ref, document["added"])),
        content=document["content"],
        erased=document["erased"],
        holds=document["holds"],
        case=document["case"],
        who=document["who"],
        written_at_ms=document["written_at_ms"],
        format=document["format"],
    )
