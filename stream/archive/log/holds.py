"""Legal holds: rows that neither erasure nor expiry may remove. Pure.

A hold names a user, days, a region, or several of these, and covers the rows that match all of them. Holds and releases
are records of one chain, ``_holds/<8 digits>.json``. No record is ever deleted, each contains the SHA-256 of the record
before it, and the id of a hold is its number. A record contains the hash of the held user as it is, because tasks must
find that user's rows; it remains after the release, as the reason why the rows were kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from stream.archive.log import canonical
from stream.archive.log.commitlog import InvalidEntry, digest
from stream.archive.log.names import Place

FORMAT: Final = 1
HOLDS: Final = "_holds/"
_KEY = re.compile(rf"{HOLDS}(?P<number>\d{{8}})\.json")


class InvalidHold(InvalidEntry):
    """The bytes are not a hold record, or the record contradicts the records before it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a hold covers; None is no restriction. Days are YYYY-MM-DD, both included; a user has 16 hex digits."""

    user: str | None = None
    since: str | None = None
    until: str | None = None
    region: str | None = None

    def reaches(self, place: Place) -> bool:
        """Say whether the hold can cover rows of this place."""
        early = self.since is not None and place.date < self.since
        late = self.until is not None and place.date > self.until
        return not early and not late and self.region in (None, place.region)

    def __str__(self) -> str:
        parts = [f"user {self.user}"] if self.user else []
        parts += [f"region {self.region}"] if self.region else []
        parts += [f"since {self.since}"] if self.since else []
        parts += [f"until {self.until}"] if self.until else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Record:
    """A hold, which has a ``scope``, or the release of the hold with number ``releases``."""

    number: int
    previous: str | None
    scope: Scope | None
    releases: int | None
    why: str
    who: str
    written_at_ms: int


@dataclass(frozen=True, slots=True)
class Holds:
    """All hold records so far, and the SHA-256 of the last one."""

    records: tuple[Record, ...] = ()
    digest: str | None = None

    def after(self, record: Record, data: bytes) -> Holds:
        """Return the records with one more; ``data`` are its bytes."""
        return Holds((*self.records, record), digest(data))

    def first(self, count: int) -> Holds:
        """Return the holds as they were after the first ``count`` records."""
        return Holds(self.records[:count])

    def in_force(self) -> list[tuple[int, Scope]]:
        """Return the numbers and scopes of the holds that no record releases."""
        released = {record.releases for record in self.records}
        return [(each.number, each.scope) for each in self.records if each.scope and each.number not in released]

    def hold_everything(self, place: Place) -> bool:
        """Say whether every row of this place is held, whatever its user."""
        return any(scope.user is None and scope.reaches(place) for _, scope in self.in_force())

    def held_users(self, place: Place) -> frozenset[str]:
        """Return the users that a hold in force names and whose rows in this place it covers."""
        return frozenset(self.user_holds(place).values())

    def user_holds(self, place: Place) -> dict[int, str]:
        """Return the holds in force that cover the rows of one user in this place: the user by number of the hold."""
        return {number: scope.user for number, scope in self.in_force() if scope.user and scope.reaches(place)}


def hold(holds: Holds, scope: Scope, *, why: str, who: str, written_at_ms: int) -> Record:
    """Make the record of a new hold.

    Raises:
        InvalidHold: the scope has no restriction, so the hold would cover the whole archive.

    """
    return _checked(holds, Record(len(holds.records), holds.digest, scope, None, why, who, written_at_ms))


def release(holds: Holds, number: int, *, why: str, who: str, written_at_ms: int) -> Record:
    """Make the record that ends a hold.

    Raises:
        InvalidHold: no hold of this number is in force.

    """
    return _checked(holds, Record(len(holds.records), holds.digest, None, number, why, who, written_at_ms))


def faults(holds: Holds, record: Record) -> list[str]:
    """Return the reasons why a record does not continue the chain; an empty list if it does."""
    found: list[str] = []
    if record.number != len(holds.records):
        found.append(f"has number {record.number}, expected {len(holds.records)}")
    if record.previous != holds.digest:
        found.append(f"follows a record with SHA-256 {record.previous}, but the record before it has {holds.digest}")
    if (record.scope is None) == (record.releases is None):
        found.append("is neither a hold nor a release, or is both")
    if record.scope == Scope():
        found.append("would hold the whole archive; name a user, days or a region")
    in_force = dict(holds.in_force())
    if record.releases is not None and record.releases not in in_force:
        known = ", ".join(map(str, in_force)) or "none"
        found.append(f"releases hold {record.releases}, which is not in force; those in force: {known}")
    return found


def key_of(number: int) -> str:
    """Return the key of the record with this number."""
    return f"{HOLDS}{number:08d}.json"


def is_record_key(key: str) -> bool:
    """Say whether a key is the key of a hold record."""
    return _KEY.fullmatch(key) is not None


def encode(record: Record) -> bytes:
    """Write a record as canonical JSON."""
    scope = record.scope
    return canonical.encode(
        {
            "format": FORMAT,
            "number": record.number,
            "previous": record.previous,
            "scope": scope and {"user": scope.user, "since": scope.since, "until": scope.until, "region": scope.region},
            "releases": record.releases,
            "why": record.why,
            "who": record.who,
            "written_at_ms": record.written_at_ms,
        }
    )


def decode(data: bytes) -> Record:
    """Read a record. :func:`encode` of the result gives the same bytes.

    Raises:
        InvalidHold: the bytes are not JSON, lack a field, are not canonical, or have an unknown format.

    """
    formats = range(FORMAT, FORMAT + 1)
    return canonical.decode(data, formats, _record, encode, what="record of a hold", invalid=InvalidHold)


def _record(document: dict[str, Any]) -> Record:
    scope = document["scope"]
    return Record(
        document["number"],
        document["previous"],
        None if scope is None else Scope(scope["user"], scope["since"], scope["until"], scope["region"]),
        document["releases"],
        document["why"],
        document["who"],
        document["written_at_ms"],
    )


def _checked(holds: Holds, record: Record) -> Record:
    for fault in faults(holds, record):
        raise InvalidHold(f"the record {fault}")
    return record
