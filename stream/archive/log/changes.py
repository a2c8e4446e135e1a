"""The change log: what was done to archived objects later, one chain of changes for each date and region. Pure.

Sinks own the commit chains, and nothing else writes there. Whoever compacts, moves, erases or expires writes here, and
since a chain belongs to one date and one region, such tasks never contend with each other or with a sink::

    what readers see of a date and region  =  committed objects - removed + added

A change names its objects with their hashes, and holds the SHA-256 of the change before it. Its name is its number, so
that of two writers one wins. Its numbers add up: rows removed = rows added + ``erased``. ``content`` is the digest
(:mod:`stream.archive.rows.content`) of the rows added, which are the rows removed without those erased. Of what was
erased a change keeps the count and nothing that leads to a person: ``case`` is the number under which the reason is on
file. An object that was compacted may state its ``modulus``: in which partition its users are, so that readers who look
for another need not open it (:mod:`stream.archive.rows.partitioner`).

Format 1 stated no ``modulus``. Its changes are read, and their chains continued in format 2.
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
"""``compacted``: the same rows in fewer objects. ``moved``: the same objects in the cold tier. ``erased``: without the
rows of one user. ``expired``: without the rows that were kept long enough."""

_KEY = re.compile(rf"{CHANGES}{PLACE}(?P<number>\d{{8}})\.json")


class InvalidChange(InvalidEntry):
    """Bytes that are no change of ours, or a change that contradicts itself or the one before it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change; see the module's text for what its numbers mean.

    ``holds`` is how many records of legal holds (:mod:`stream.archive.log.holds`) its writer knew of.
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
        """Where it lies."""
        return self.place.key(self.number)


@dataclass(frozen=True, slots=True)
class State:
    """What the changes so far have made of a place: the next number, the last digest, objects by key."""

    number: int = 0
    digest: str | None = None
    removed: Mapping[str, Change] = field(default_factory=lambda: MappingProxyType({}))
    added: Mapping[str, ObjectRef] = field(default_factory=lambda: MappingProxyType({}))
    erased: int = 0

    def after(self, change: Change, data: bytes) -> State:
        """Return the state once this change (and ``data``, its bytes) is the last."""
        gone = {ref.key: change for ref in change.removed}
        kept = {key: ref for key, ref in self.added.items() if key not in gone}
        return State(
            change.number + 1,
            digest(data),
            {**self.removed, **gone},
            kept | {ref.key: ref for ref in change.added},
            self.erased + change.erased,
        )

    def live(self, committed: Iterable[ObjectRef]) -> list[ObjectRef]:
        """Return what readers see: of the objects that sinks committed here those still valid, and those added."""
        return [*(ref for ref in committed if ref.key not in self.removed), *self.added.values()]


@dataclass(frozen=True, slots=True)
class Done:
    """What a task did, to be recorded."""

    kind: Kind
    removed: tuple[ObjectRef, ...]
    added: tuple[ObjectRef, ...]
    content: str | None = None
    erased: int = 0
    case: str = ""


def append(state: State, place: Place, done: Done, *, holds: int, who: str, written_at_ms: int) -> Change:
    """Make the change that continues a chain.

    Raises:
        InvalidChange: it contradicts itself, or removes what was removed before.

    """
    change = Change(
        place=place,
        number=state.number,
        previous=state.digest,
        kind=done.kind,
        removed=done.removed,
        added=done.added,
        content=done.content,
        erased=done.erased,
        holds=holds,
        case=done.case,
        who=who,
        written_at_ms=written_at_ms,
    )
    for fault in (*faults(change), *link_faults(state, change)):
        raise InvalidChange(f"{change.key}: {fault}")
    return change


def faults(change: Change) -> list[str]:
    """Say what in a change contradicts itself; nothing, if it is sound."""
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
            found.append("adds other objects to the cold tier than it removes from the hot one")
        return found
    if (change.content is None) == bool(change.added):
        found.append("states no digest of the rows that it adds, or one though it adds none")
    for ref in change.added:
        name = object_name(ref.key)
        if name is None or (name.place, name.number, name.digest) != (change.place, change.number, ref.sha256[:16]):
            found.append(f"adds {ref.key}, which is not how it would name its object with SHA-256 {ref.sha256}")
    return found


def link_faults(state: State, change: Change) -> list[str]:
    """Say why a change does not continue a chain; nothing, if it does."""
    found: list[str] = []
    if change.number != state.number:
        found.append(f"has number {change.number}, expected {state.number}")
    if change.previous != state.digest:
        found.append(f"follows a change with SHA-256 {change.previous}, but the one before it has {state.digest}")
    again = [ref.key for ref in change.removed if ref.key in state.removed]
    if again:
        found.append(f"removes what was removed before: {', '.join(again)}")
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
    """Read a change back; :func:`encode` of the result gives the same bytes.

    Raises:
        InvalidChange: not JSON, another format, a missing field, or not canonical.

    """
    return canonical.decode(data, range(1, FORMAT + 1), _change, encode, what="change", invalid=InvalidChange)


def parse_key(key: str) -> tuple[Place, int]:
    """Return the place and the number that a change's key names.

    Raises:
        InvalidChange: no change of ours has such a key.

    """
    match = _KEY.fullmatch(key)
    if match is not None:
        place = Place(match["date"], unquote(match["region"]))
        if place.key(int(match["number"])) == key and is_date(place.date):
            return place, int(match["number"])
    raise InvalidChange(f"{key} is no key of a change; expected _changes/date=<day>/region=<name>/<8 digits>.json")


def is_change_key(key: str) -> bool:
    """Say whether a key is a change's; people leave other things in buckets."""
    return _KEY.fullmatch(key) is not None


def _document(ref: ObjectRef, form: int) -> dict[str, Any]:
    stated = {} if form == 1 else {"modulus": ref.modulus}
    return {"key": ref.key, "sha256": ref.sha256, "bytes": ref.bytes, "rows": ref.rows, **stated}


def _ref(document: dict[str, Any]) -> ObjectRef:
    modulus = document.get("modulus")
    if modulus is not None and (not isinstance(modulus, int) or modulus < 2):
        raise InvalidChange(f"modulus {modulus!r}; expected none, or a whole number from 2 on")
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
