"""The verifier. Pure: chains and facts about objects in, findings out. It needs only read access to the archive.

Its rules:

 1. Every key below ``_commits/`` is the key of an entry, and its bytes are an entry in canonical form.
 2. An entry states what its key states: chain, partition, first offset.
 3. The numbers of an entry add up: each offset of ``[first, next)`` is a slate, a repeat, a rejected record or in a
    gap.
 4. A chain begins at offset 0, with no entry before.
 5. Each entry begins where the entry before it ends, and contains that entry's SHA-256.
 6. The watermark of archived source offsets never shrinks, and grows by what the entry archived.
 7. Every object that readers see (named by an entry or added by a change, and not removed by a change) exists, with the
    stated size, SHA-256 and number of rows.
 8. The key of an object states what its entry states: chain, partition, first offset of the entry, hash of the content.
 9. No object is named twice, neither by entries nor as added by changes.
10. No impression stands twice in a chain, by source offset and item, and the source offsets of an object are among
    those of its entry (only where the facts include them: this reads columns).
11. Every Parquet object is named by an entry or a change. A leftover, whose key has the first offset of an entry, the
    end of the chain, or the number of a change, is a notice until it is a day old, because a slow writer may still name
    it. An object that the next change of its place can name is always a notice.
12. A gap is a notice: retention deleted those offsets before the sink read them.
13. Every key below ``_changes/`` is the key of a change, its bytes are a change in canonical form, and the change
    states what its key states: date, region, number.
14. The changes of a date and region are numbered from 0 without gaps, and each contains the SHA-256 of the one before.
15. The numbers of a change add up, and its objects have the keys they must have (:mod:`stream.archive.log.changes`).
16. A change removes only objects that readers saw: objects that sinks committed there, or that changes added.
17. The rows of an object that a change added have the digest that the change states. It is the digest of the rows that
    the change removed, without the erased ones (only where the facts include it: this reads columns).
18. Rows expire only at their age. No change removed held rows; it knew all holds that were an hour old. Whether rows of
    a held user were removed is checked only where rows can be counted, and cannot always be decided
    (:mod:`stream.archive.proof.removals` says when).
19. An object that a change removed does not exist. For a day it is a notice if it does: tasks leave it to readers for a
    while, or crashed. After a day, somebody restored or kept it.
20. Every key below ``_holds/`` is the key of a hold record in canonical form. Records are numbered from 0, each
    contains the SHA-256 of the one before, and a release is of a hold in force.
21. The users of an object are in its partition modulo the number that its change states
    (:mod:`stream.archive.rows.partitioner`), so that a reader that skips the object misses no row (only where the facts
    include it: this reads columns).
22. Rows whose date is far from the time they were archived are a notice: a producer's clock was probably wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Literal

from stream.archive.log import changes as changelog
from stream.archive.log import commitlog
from stream.archive.log import holds as holdlog
from stream.archive.log.changes import Change, State
from stream.archive.log.commitlog import Chain, Entry, InvalidEntry, ObjectRef, Tail
from stream.archive.log.holds import Holds
from stream.archive.log.intervals import Intervals
from stream.archive.log.names import Place, object_name, segment_name
from stream.archive.log.sources import Source, Sources, adopted, home
from stream.archive.proof import removals
from stream.archive.proof.findings import Finding, ObjectFacts, Verdict

LEFTOVER_AGE_S: Final = 86_400.0
"""An object that no entry or change names at this age is a leftover. A slower writer would lose its objects."""


@dataclass(frozen=True, slots=True)
class _Named:
    """An object, and the entry or change that names it.

    ``sources`` are the source offsets that the object may have, ``content`` the stated digest of its rows, and
    ``archived_at_ms`` when its youngest rows were archived.
    """

    by: str
    ref: ObjectRef
    chain: Chain
    sources: Sources
    archived_at_ms: int
    content: str | None = None


@dataclass(slots=True)
class _Walk:
    """What was read of the chains so far."""

    found: list[Finding] = field(default_factory=list)
    named: dict[str, _Named] = field(default_factory=dict)
    removed: dict[str, Change] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    beginnings: dict[Chain, set[int]] = field(default_factory=dict)
    sources: dict[Chain, Sources] = field(default_factory=dict)
    states: dict[Place, State] = field(default_factory=dict)

    def live(self) -> list[_Named]:
        return [each for key, each in self.named.items() if key not in self.removed]


def verify(
    entries: Iterable[tuple[str, bytes]],
    facts: Callable[[ObjectRef], ObjectFacts | None],
    stored: Mapping[str, float] | None = None,
    *,
    changes: Iterable[tuple[str, bytes]] = (),
    holds: Iterable[tuple[str, bytes]] = (),
    now_ms: int | None = None,
    count_rows: removals.CountRows | None = None,
) -> Verdict:
    """Apply the rules.

    ``entries``, ``changes`` and ``holds`` are the keys below ``_commits/``, ``_changes/`` and ``_holds/`` with their
    bytes, in the order of the keys. ``facts`` looks at one object and returns None if it does not exist. ``stored`` is
    the age in seconds of every object outside ``_commits/``, by key; without it rules 11 and 19 are not applied.
    Without ``now_ms`` (since 1970), the findings of rule 19 are notices. ``count_rows`` counts the rows of users in an
    object; without it rule 18 does not check the holds on users.
    """
    walk = _Walk()
    count = _walk_entries(entries, walk)
    known = _walk_holds(holds, walk.found)
    _walk_changes(changes, known, walk)
    live = walk.live()
    archived: dict[Chain, dict[Source, Intervals]] = {}
    for each in live:
        archived[each.chain] = adopted(archived.get(each.chain, {}), each.sources)
        walk.found.extend(_object(each, facts(each.ref), archived[each.chain]))
    if count_rows is not None:
        walk.found.extend(removals.user_holds(walk.changes, known, count_rows))
    walk.found.extend(removals.implausible_dates((each.ref, each.archived_at_ms) for each in live))
    if stored is not None:
        walk.found.extend(_unreferenced(stored, walk))
        walk.found.extend(_undeleted(stored, walk, now_ms))
    rows = sum(each.ref.rows for each in live)
    erased = sum(state.erased for state in walk.states.values())
    return Verdict(tuple(walk.found), len(walk.beginnings), count, len(live), rows, len(walk.changes), erased)


def _walk_entries(entries: Iterable[tuple[str, bytes]], walk: _Walk) -> int:
    count = 0
    found = walk.found
    for chain, links in groupby(_decoded(entries, found), key=lambda link: link[1].chain):
        tail = Tail()
        walk.beginnings[chain] = {0}
        for key, entry, data in links:
            count += 1
            found.extend(Finding(3, "error", key, what) for what in commitlog.faults(entry))
            found.extend(_link(tail, key, entry))
            found.extend(Finding(6, "error", key, what) for what in commitlog.watermark_faults(tail, entry))
            found.extend(_names(key, entry, walk))
            found.extend(
                Finding(12, "notice", key, f"offsets {gap.first} to {gap.next - 1} {gap.reason} before the sink came")
                for gap in entry.gaps
            )
            tail = commitlog.tail_after(entry, data)
            walk.beginnings[chain] |= {entry.first, entry.next}
        walk.sources[chain] = tail.sources
    return count


def _walk_holds(records: Iterable[tuple[str, bytes]], found: list[Finding]) -> Holds:
    known = Holds()
    for key, data in records:
        try:
            record = holdlog.decode(data)
        except InvalidEntry as error:
            found.append(Finding(20, "error", key, str(error)))
            continue
        if key != holdlog.key_of(record.number):
            found.append(Finding(20, "error", key, f"holds the record {holdlog.key_of(record.number)}"))
            continue
        found.extend(Finding(20, "error", key, what) for what in holdlog.faults(known, record))
        known = known.after(record, data)
    return known


def _walk_changes(raw: Iterable[tuple[str, bytes]], known: Holds, walk: _Walk) -> None:
    for key, data in raw:
        try:
            place, number = changelog.parse_key(key)
            change = changelog.decode(data)
        except InvalidEntry as error:
            walk.found.append(Finding(13, "error", key, str(error)))
            continue
        if (change.place, change.number) != (place, number):
            walk.found.append(Finding(13, "error", key, f"holds the change {change.key}"))
            continue
        walk.changes.append(change)
        state = walk.states.get(place, State())
        walk.found.extend(Finding(14, "error", key, what) for what in changelog.link_faults(state, change))
        walk.found.extend(Finding(15, "error", key, what) for what in changelog.faults(change))
        walk.found.extend(_removed_objects(change, walk))
        archived_at_ms = {
            ref.key: walk.named[ref.key].archived_at_ms for ref in change.removed if ref.key in walk.named
        }
        walk.found.extend(removals.expiry(change, archived_at_ms))
        walk.found.extend(removals.place_holds(change, known))
        for ref, origins in changelog.lineage(change):
            if ref.key in walk.named:
                walk.found.append(Finding(9, "error", ref.key, f"is named by {walk.named[ref.key].by} and by {key}"))
            name = object_name(ref.key)
            chain = name.chain if name is not None else Chain("", 0)
            stated = change.content if len(change.added) == 1 else None
            youngest = max((archived_at_ms[each.key] for each in origins if each.key in archived_at_ms), default=0)
            walk.named[ref.key] = _Named(key, ref, chain, walk.sources.get(chain, {}), youngest, stated)
        walk.states[place] = state.after(change, data)


def _removed_objects(change: Change, walk: _Walk) -> Iterable[Finding]:
    for ref in change.removed:
        was = walk.named.get(ref.key)
        name = object_name(ref.key)
        if was is None or name is None or name.place != change.place or was.ref != ref:
            what = f"removes {ref.key}, which no earlier entry or change named so"
            yield Finding(16, "error", change.key, what)
        walk.removed[ref.key] = change


def _decoded(entries: Iterable[tuple[str, bytes]], found: list[Finding]) -> Iterable[tuple[str, Entry, bytes]]:
    for key, data in entries:
        try:
            chain, first = commitlog.parse_key(key)
            entry = commitlog.decode(data)
        except InvalidEntry as error:
            found.append(Finding(1, "error", key, str(error)))
            continue
        if (entry.chain, entry.first) != (chain, first):
            found.append(Finding(2, "error", key, f"holds the entry {entry.chain.key(entry.first)}"))
            continue
        yield key, entry, data


def _link(tail: Tail, key: str, entry: Entry) -> Iterable[Finding]:
    if tail.digest is None and (entry.first != 0 or entry.previous is not None):
        yield Finding(
            4,
            "error",
            key,
            f"is the first entry of its chain, but begins at offset {entry.first} or names an entry before it",
        )
        return
    yield from (Finding(5, "error", key, what) for what in commitlog.link_faults(tail, entry))


def _names(key: str, entry: Entry, walk: _Walk) -> Iterable[Finding]:
    for ref in entry.objects:
        name = segment_name(ref.key)
        if name is None or (name.chain, name.first) != (entry.chain, entry.first) or ref.sha256[:16] != name.digest:
            yield Finding(
                8, "error", ref.key, f"is not the key that {key} must give its object with SHA-256 {ref.sha256}"
            )
        if ref.key in walk.named:
            yield Finding(9, "error", ref.key, f"is named by {walk.named[ref.key].by} and by {key}")
        walk.named[ref.key] = _Named(key, ref, entry.chain, entry.sources, entry.written_at_ms)


def _object(named: _Named, fact: ObjectFacts | None, archived: dict[Source, Intervals]) -> Iterable[Finding]:
    key, ref = named.by, named.ref
    if fact is None:
        yield Finding(7, "error", ref.key, f"does not exist; {key} names it")
        return
    if fact.removed_by is not None:
        yield Finding(7, "notice", ref.key, f"was removed by {fact.removed_by} during this verification")
        return
    for what, stated, is_so in (
        ("SHA-256", ref.sha256, fact.sha256),
        ("bytes", ref.bytes, fact.size),
        ("rows", ref.rows, fact.rows),
    ):
        if is_so is not None and stated != is_so:
            yield Finding(7, "error", ref.key, f"{what}: {key} states {stated}, the object has {is_so}")
    if fact.repeated:
        yield Finding(10, "error", ref.key, f"{fact.repeated} rows have the source offset and item of another row")
    yield from _stated(named, fact)
    for source, offsets in (fact.sources or {}).items():
        kept = _kept_as(source, offsets, named.sources)
        had = archived.get(kept, Intervals())
        archived[kept] = had | offsets
        again = len(had) + len(offsets) - len(archived[kept])
        where = f"source offsets of partition {source.partition}"
        if again:
            yield Finding(10, "error", key, f"archives {again} {where} a second time")
        if not named.sources.get(kept, Intervals()).covers(offsets):
            yield Finding(10, "error", key, f"archives {where} that it does not name")


def _stated(named: _Named, fact: ObjectFacts) -> Iterable[Finding]:
    key, ref = named.by, named.ref
    if named.content is not None and fact.content is not None and named.content != fact.content:
        yield Finding(17, "error", ref.key, f"its rows have the digest {fact.content}, {key} states {named.content}")
    if ref.modulus is not None and fact.divisor is not None and fact.divisor % ref.modulus:
        what = f"{key} states that all its users are in its partition modulo {ref.modulus}; some are not"
        yield Finding(21, "error", ref.key, what)


def _kept_as(source: Source, offsets: Intervals, sources: Sources) -> Source:
    kept = home(source, sources)
    if kept in sources:
        return kept
    # The rows have no topic id, and the partition has two topics by now: the offsets belong to the first topic.
    same = (each for each, held in sources.items() if each.partition == source.partition and held.covers(offsets))
    return next(same, kept)


def _unreferenced(stored: Mapping[str, float], walk: _Walk) -> Iterable[Finding]:
    for key, age_s in sorted(stored.items()):
        if key in walk.named or not key.endswith(".parquet"):
            continue
        fate = _fate(key, walk)
        if fate == "open":
            yield Finding(
                11, "notice", key, "is named by no change: a running task wrote it, or the next run will use it"
            )
        elif fate == "left" and age_s < LEFTOVER_AGE_S:
            yield Finding(11, "notice", key, "is named by no entry: a slow writer wrote it, or one that crashed today")
        elif fate == "left":
            what = (
                f"is named by no entry and {age_s / 3600:.0f} h old: a crash left it; `whyrec archive sweep` deletes it"
            )
            yield Finding(11, "error", key, what, leftover=True)
        else:
            yield Finding(11, "error", key, "is named by no entry, and whyrec never gives an object this key")


def _fate(key: str, walk: _Walk) -> Literal["open", "left", "foreign"]:
    """Say whether a task may still name an unreferenced object, a crash left it, or whyrec never wrote it."""
    name = object_name(key)
    if name is None:
        return "foreign"
    hot = key.removeprefix(name.tier)
    if name.tier and hot in walk.named:
        return "left" if hot in walk.removed else "open"
    if name.number is None:
        ours = not name.tier and name.first in walk.beginnings.get(name.chain, {0})
        return "left" if ours else "foreign"
    number = walk.states.get(name.place, State()).number
    if name.number == number:
        return "open"
    return "left" if name.number < number else "foreign"


def _undeleted(stored: Mapping[str, float], walk: _Walk, now_ms: int | None) -> Iterable[Finding]:
    waiting: dict[str, int] = {}
    for key, change in walk.removed.items():
        if key not in stored:
            continue
        if now_ms is None or now_ms - change.written_at_ms < LEFTOVER_AGE_S * 1000:
            waiting[change.place.prefix] = waiting.get(change.place.prefix, 0) + 1
        else:
            what = f"was {change.kind} more than a day ago ({change.key}); `whyrec archive sweep` deletes it"
            yield Finding(19, "error", key, what, leftover=True)
    for prefix, objects in waiting.items():
        yield Finding(19, "notice", prefix, f"{objects} objects that were removed here are yet to be deleted")
