"""Rules 18 and 22 of the verifier: was a change allowed to remove its rows, and are the dates of rows plausible? Pure.

**Expiry.** Rows expire only at the age that :mod:`stream.archive.aging.policy` states, counted from the later of their
event's day and their archiving. Releases before 2027 counted from the event's day alone, so changes written before then
are held to that; a change that claims to be older than the entries of the rows that it removed is not.

**Holds on a place.** A hold without a user covers every row of the places it reaches. The chains alone show whether a
change removed rows of such a place, so this check needs no object.

**Holds on a user.** A change does not record whose rows it removed; only the objects before and after it tell.
Therefore

- where the objects that a change removed still exist, with the SHA-256 that the change states, the verifier counts the
  held user's rows in them and in the objects that the change added. Fewer rows afterwards are proof of a violation;
- where they do not exist any more, which is the rule, since an erasure deletes them at once, nobody can tell from the
  archive whose rows they had. The verifier cannot prove a violation then, nor that there was none. It says so in a
  notice for each hold, with the number of rows in question. An auditor who has a copy from before, such as a noncurrent
  version of a versioned bucket, can put it beside the archive and verify again;
- where the removed objects stated a modulus that excludes the held user, the change is proven not to concern the hold.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stream.archive.aging.policy import TIERS, age_days, days_since, is_implausible
from stream.archive.log import holds as holdlog
from stream.archive.log.changes import Change
from stream.archive.log.commitlog import ObjectRef
from stream.archive.log.holds import Holds
from stream.archive.log.names import Place, object_name
from stream.archive.proof.findings import Finding
from stream.archive.rows import partitioner

HOLD_KNOWN_MS: Final = 3_600_000
"""A task that removes rows reads the holds moments before; an hour allows for clocks that differ."""

AGE_BY_ARCHIVING_SINCE_MS: Final = int(dt.datetime(2027, 1, 1, tzinfo=dt.UTC).timestamp() * 1000)
"""From here on a change that expires rows must have counted their age from their archiving too."""

CountRows = Callable[[ObjectRef, frozenset[str]], Mapping[str, int] | None]
"""Counts the rows of each user in an object; None if no object with the stated SHA-256 exists."""


def expiry(change: Change, archived_at_ms: Mapping[str, int]) -> Iterator[Finding]:
    """Check the age of the rows that a change expired; ``archived_at_ms`` is when each object's youngest rows were."""
    if change.kind != "expired":
        return
    limit = TIERS["cold"].until_days
    written_s = change.written_at_ms / 1000
    days = days_since(change.place, written_s)
    if days < limit:
        yield Finding(18, "error", change.key, f"expires rows {days:.0f} days after their day; expected {limit}")
        return
    known = [archived_at_ms[ref.key] for ref in change.removed if ref.key in archived_at_ms]
    if not known:
        return
    youngest = max(known)
    age = age_days(change.place, youngest, written_s)
    if age < limit and (change.written_at_ms >= AGE_BY_ARCHIVING_SINCE_MS or change.written_at_ms < youngest):
        what = f"expires rows {age:.0f} days after they were archived; expected {limit}"
        yield Finding(18, "error", change.key, what)


def place_holds(change: Change, known: Holds) -> Iterator[Finding]:
    """Check that a change that removed rows knew the holds of its time, and that none covered the whole place."""
    if change.kind not in ("erased", "expired"):
        return
    if known.first(change.holds).hold_everything(change.place):
        yield Finding(18, "error", change.key, "removes rows that were held")
    if change.holds > len(known.records):
        what = f"knew {change.holds} hold records, but only {len(known.records)} exist"
        yield Finding(18, "error", change.key, what)
        return
    for record in known.records[change.holds :]:
        if record.written_at_ms < change.written_at_ms - HOLD_KNOWN_MS:
            what = f"did not know {holdlog.key_of(record.number)}, which was recorded before"
            yield Finding(18, "error", change.key, what)
            return


def user_holds(changes: Iterable[Change], known: Holds, count: CountRows) -> Iterator[Finding]:
    """Check that no change removed rows of a user whose rows were held then; see the module's docstring."""
    unproven: dict[int, tuple[int, int]] = {}
    for change in changes:
        if change.kind not in ("erased", "expired"):
            continue
        held = known.first(change.holds).user_holds(change.place)
        users = frozenset(held.values())
        if not users:
            continue
        before = _Count.of(change.removed, users, count)
        after = _Count.of(change.added, users, count) if any(before.rows.values()) else _Count({})
        for number, user in held.items():
            lost = before.rows[user] - after.rows.get(user, 0)
            if lost > 0 and user not in after.unknown:
                what = f"removes {lost} rows of the user of {holdlog.key_of(number)}, which was in force"
                yield Finding(18, "error", change.key, what)
            elif user in before.unknown or (lost > 0 and user in after.unknown):
                changed, rows = unproven.get(number, (0, 0))
                unproven[number] = changed + 1, rows + change.erased
    for number, (changed, rows) in sorted(unproven.items()):
        what = (
            f"{changed} changes removed {rows} rows where this hold applies; the objects that had them no longer "
            "exist, so the archive cannot show whether rows of the held user were among them"
        )
        yield Finding(18, "notice", holdlog.key_of(number), what)


def implausible_dates(live: Iterable[tuple[ObjectRef, int]]) -> Iterator[Finding]:
    """Report the places with objects whose rows were archived long after, or before, the day of their events.

    ``live`` are the objects that readers see, each with the time of its youngest rows' archiving, in milliseconds.
    """
    found: dict[Place, list[tuple[ObjectRef, int]]] = {}
    for ref, archived_at_ms in live:
        name = object_name(ref.key)
        if name is not None and is_implausible(name.place, archived_at_ms):
            found.setdefault(name.place, []).append((ref, archived_at_ms))
    for place, objects in sorted(found.items()):
        last = dt.datetime.fromtimestamp(max(at for _, at in objects) / 1000, dt.UTC).date().isoformat()
        rows = sum(ref.rows for ref, _ in objects)
        what = (
            f"{len(objects)} objects with {rows} rows have an implausible date: they were archived up to {last}; "
            "check the clocks of the producers. Their rows age from their archiving"
        )
        yield Finding(22, "notice", place.folder, what)


@dataclass(frozen=True, slots=True)
class _Count:
    """Rows by user in the objects that exist, and the users who may have rows in objects that do not exist."""

    rows: Mapping[str, int]
    unknown: frozenset[str] = frozenset()

    @classmethod
    def of(cls, refs: Iterable[ObjectRef], users: frozenset[str], count: CountRows) -> _Count:
        rows = dict.fromkeys(users, 0)
        unknown: set[str] = set()
        for ref in refs:
            name = object_name(ref.key)
            possible = frozenset(
                user for user in users if name is None or partitioner.can_hold(user, name.chain.partition, ref.modulus)
            )
            found = count(ref, possible) if possible else {}
            if found is None:
                unknown |= possible
                continue
            for user, number in found.items():
                rows[user] += number
        return cls(rows, frozenset(unknown))
