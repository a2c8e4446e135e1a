"""The verifier. Pure: entries and facts about objects in, findings out; it needs read access to the archive only.

Its rules:

 1. Every key below ``_commits/`` is an entry's key, and its bytes are an entry in canonical form.
 2. An entry says of itself what its key says: chain, partition, first offset.
 3. An entry's numbers add up: every offset of ``[first, next)`` is a slate, a repeat, a rejected record or in a gap.
 4. A chain begins at offset 0, with no entry before.
 5. Each entry begins where the one before it ends, and names its SHA-256.
 6. The watermark of archived source offsets never shrinks, and grows by what the entry archived.
 7. Every object that readers see (named by an entry or added by a change, and not removed by one) exists, with the
    size, the SHA-256 and the rows that are stated.
 8. An object's key says what its entry says: chain, partition, first offset of the entry, the content's hash.
 9. No object is named twice, be it by entries or as added by changes.
10. No impression stands twice in a chain, by source offset and item, and the source offsets of an object are among
    its entry's (only where the facts include them: this reads the columns).
11. Every Parquet object is named by an entry or a change. A leftover, which bears the first offset of an entry, the end
    of the chain, or the number of a change, is a notice until it is a day old: it may still be a slow writer's. One
    that the next change of its place can name is a notice for ever, however slow that is.
12. A gap is a notice: those offsets were lost to retention before the sink came, and this says so.
13. Every key below ``_changes/`` is a change's key, its bytes are a change in canonical form, and it says what its key
    says: date, region, number.
14. The changes of a date and region are numbered from 0, none is missing, each names the SHA-256 of the one before.
15. A change's numbers add up, and it names its objects as it must (see :mod:`stream.archive.log.changes`).
16. A change removes only what readers saw then: objects that sinks committed there, or that changes added.
17. The rows of an object that a change added have the digest that the change states, which is that of the rows that
    it removed, but for those it erased (only where the facts include it: this reads the columns).
18. Rows expire only at their age, and neither they nor erased ones were held: not by any hold that the change knew, and
    it knew all that were an hour old.
19. What a change removed is gone. For a day it is a notice if it is not: a task leaves it to readers for a while, or
    crashed. Later somebody put it back, or kept it.
20. Every key below ``_holds/`` is the key of a record of holds, in canonical form, numbered from 0, each with the
    SHA-256 of the one before; a release is of a hold in force.
21. The users of an object are in its partition modulo what its change states (:mod:`stream.archive.rows.partitioner`),
    so that no reader who skips it misses a row (only where the facts include it: this reads the columns).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Literal

from stream.archive.aging.policy import TIERS, age_days
from stream.archive.log import changes as changelog
from stream.archive.log import commitlog
from stream.archive.log import holds as holdlog
from stream.archive.log.changes import Change, State
from stream.archive.log.commitlog import Chain, Entry, InvalidEntry, ObjectRef, Tail
from stream.archive.log.holds import Holds
from stream.archive.log.intervals import Intervals
from stream.archive.log.names import Place, object_name, segment_name
from stream.archive.log.sources import Source, Sources, adopted, home

LEFTOVER_AGE_S: Final = 86_400.0
"""A writer that is slower than this to commit its objects loses them."""

HOLD_KNOWN_MS: Final = 3_600_000
"""A task that removes rows reads the holds moments before; this allows for clocks that differ."""

Severity = Literal["error", "notice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the rules say (an error), or that a reader should know (a notice).

    ``leftover`` marks an object of rule 11 or 19 that a crash left and nobody can want any more.
    """

    rule: int
    severity: Severity
    key: str
    what: str
    leftover: bool = False


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What an object was found to be; what was not looked at is None.

    ``sources`` are its source offsets; ``repeated`` counts rows whose source offset and item stand in an
    earlier row of the object too; ``divisor`` is the greatest number modulo which its users are in its partition, 0 if
    they are by any.
    """

    sha256: str
    size: int
    rows: int | None = None
    sources: Sources | None = None
    repeated: int = 0
    content: str | None = None
    divisor: int | None = None
    removed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier looked at, and what it found; ``objects`` and ``rows`` are those that readers see."""

    findings: tuple[Finding, ...]
    chains: int
    entries: int
    objects: int
    rows: int
    changes: int = 0
    erased: int = 0

    @property
    def sound(self) -> bool:
        """Say whether nothing is wrong; notices are not."""
        return not any(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True, slots=True)
class _Named:
    """An object and who names it; ``sources`` are the source offsets that it may hold, ``content`` what it must say."""

    by: str
    ref: ObjectRef
    chain: Chain
    sources: Sources
    content: str | None = None


@dataclass(slots=True)
class _Seen:
    """What was read of the chains so far."""

    found: list[Finding] = field(default_factory=list)
    named: dict[str, _Named] = field(default_factory=dict)
    removed: dict[str, Change] = field(default_factory=dict)
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
) -> Verdict:
    """Apply the rules.

    ``entries``, ``changes`` and ``holds`` are the keys below ``_commits/``, ``_changes/`` and ``_holds/`` with their
    bytes, in the order of their keys. ``facts`` looks at one object, or says None if there is none. ``stored`` are the
    age in seconds of every object outside ``_commits/`` by key; without it rules 11 and 19 are not applied. Without
    ``now_ms`` what rule 19 finds is always a notice.
    """
    seen = _Seen()
    count = _walk_entries(entries, seen)
    known = _walk_holds(holds, seen.found)
    changed = _walk_changes(changes, known, seen)
    live = seen.live()
    archived: dict[Chain, dict[Source, Intervals]] = {}
    for each in live:
        archived[each.chain] = adopted(archived.get(each.chain, {}), each.sources)
        seen.found.extend(_object(each, facts(each.ref), archived[each.chain]))
    if stored is not None:
        seen.found.extend(_unclaimed(stored, seen))
        seen.found.extend(_lingering(stored, seen, now_ms))
    rows = sum(each.ref.rows for each in live)
    erased = sum(state.erased for state in seen.states.values())
    return Verdict(tuple(seen.found), len(seen.beginnings), count, len(live), rows, changed, erased)


def _walk_entries(entries: Iterable[tuple[str, bytes]], seen: _Seen) -> int:
    count = 0
    found = seen.found
    for chain, links in groupby(_decoded(entries, found), key=lambda link: link[1].chain):
        tail = Tail()
        seen.beginnings[chain] = {0}
        for key, entry, data in links:
            count += 1
            found.extend(Finding(3, "error", key, what) for what in commitlog.faults(entry))
            found.extend(_link(tail, key, entry))
            found.extend(Finding(6, "error", key, what) for what in commitlog.watermark_faults(tail, entry))
            found.extend(_names(key, entry, seen))
            found.extend(
                Finding(12, "notice", key, f"offsets {gap.first} to {gap.next - 1} {gap.reason} before the sink came")
                for gap in entry.gaps
            )
            tail = commitlog.tail_after(entry, data)
            seen.beginnings[chain] |= {entry.first, entry.next}
        seen.sources[chain] = tail.sources
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


def _walk_changes(raw: Iterable[tuple[str, bytes]], known: Holds, seen: _Seen) -> int:
    count = 0
    for key, data in raw:
        try:
            place, number = changelog.parse_key(key)
            change = changelog.decode(data)
        except InvalidEntry as error:
            seen.found.append(Finding(13, "error", key, str(error)))
            continue
        if (change.place, change.number) != (place, number):
            seen.found.append(Finding(13, "error", key, f"holds the change {change.key}"))
            continue
        count += 1
        state = seen.states.get(place, State())
        seen.found.extend(Finding(14, "error", key, what) for what in changelog.link_faults(state, change))
        seen.found.extend(Finding(15, "error", key, what) for what in changelog.faults(change))
        seen.found.extend(_removals(change, seen))
        seen.found.extend(_permission(change, known))
        for ref in change.added:
            if ref.key in seen.named:
                seen.found.append(Finding(9, "error", ref.key, f"is named by {seen.named[ref.key].by} and by {key}"))
            name = object_name(ref.key)
            chain = name.chain if name is not None else Chain("", 0)
            stated = change.content if len(change.added) == 1 else None
            seen.named[ref.key] = _Named(key, ref, chain, seen.sources.get(chain, {}), stated)
        seen.states[place] = state.after(change, data)
    return count


def _removals(change: Change, seen: _Seen) -> Iterable[Finding]:
    for ref in change.removed:
        was = seen.named.get(ref.key)
        name = object_name(ref.key)
        if was is None or name is None or name.place != change.place or was.ref != ref:
            what = f"removes {ref.key}, which no entry or change before it put there so"
            yield Finding(16, "error", change.key, what)
        seen.removed[ref.key] = change


def _permission(change: Change, known: Holds) -> Iterable[Finding]:
    if change.kind not in ("erased", "expired"):
        return
    age = age_days(change.place, change.written_at_ms / 1000)
    limit = TIERS["cold"].until_days
    if change.kind == "expired" and age < limit:
        yield Finding(18, "error", change.key, f"lets rows expire {age:.0f} days after their day; expected {limit}")
    if known.first(change.holds).whole(change.place):
        yield Finding(18, "error", change.key, "removes rows that were held")
    unknown = [
        each for each in known.records[change.holds :] if each.written_at_ms < change.written_at_ms - HOLD_KNOWN_MS
    ]
    if change.holds > len(known.records):
        what = f"knew of {change.holds} records of holds, and there are {len(known.records)}"
        yield Finding(18, "error", change.key, what)
    elif unknown:
        yield Finding(18, "error", change.key, f"did not know of {holdlog.key_of(unknown[0].number)}, recorded before")


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
        yield Finding(4, "error", key, f"is the chain's first entry, but begins at offset {entry.first} or has another")
        return
    yield from (Finding(5, "error", key, what) for what in commitlog.link_faults(tail, entry))


def _names(key: str, entry: Entry, seen: _Seen) -> Iterable[Finding]:
    for ref in entry.objects:
        name = segment_name(ref.key)
        if name is None or (name.chain, name.first) != (entry.chain, entry.first) or ref.sha256[:16] != name.digest:
            yield Finding(8, "error", ref.key, f"is not how {key} would name its object with SHA-256 {ref.sha256}")
        if ref.key in seen.named:
            yield Finding(9, "error", ref.key, f"is named by {seen.named[ref.key].by} and by {key}")
        seen.named[ref.key] = _Named(key, ref, entry.chain, entry.sources)


def _object(named: _Named, fact: ObjectFacts | None, archived: dict[Source, Intervals]) -> Iterable[Finding]:
    key, ref = named.by, named.ref
    if fact is None:
        yield Finding(7, "error", ref.key, f"does not exist; {key} names it")
        return
    if fact.removed_by is not None:
        yield Finding(7, "notice", ref.key, f"was removed by {fact.removed_by} while this was checked")
        return
    for what, stated, is_so in (
        ("SHA-256", ref.sha256, fact.sha256),
        ("bytes", ref.bytes, fact.size),
        ("rows", ref.rows, fact.rows),
    ):
        if is_so is not None and stated != is_so:
            yield Finding(7, "error", ref.key, f"{what}: {key} states {stated}, the object has {is_so}")
    if fact.repeated:
        yield Finding(10, "error", ref.key, f"{fact.repeated} rows have source offset and item of another")
    yield from _said(named, fact)
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


def _said(named: _Named, fact: ObjectFacts) -> Iterable[Finding]:
    key, ref = named.by, named.ref
    if named.content is not None and fact.content is not None and named.content != fact.content:
        yield Finding(17, "error", ref.key, f"its rows have digest {fact.content}, {key} states {named.content}")
    if ref.modulus is not None and fact.divisor is not None and fact.divisor % ref.modulus:
        what = f"{key} states that its users are in its partition modulo {ref.modulus}; not all are"
        yield Finding(21, "error", ref.key, what)


def _kept_as(source: Source, offsets: Intervals, sources: Sources) -> Source:
    kept = home(source, sources)
    if kept in sources:
        return kept
    # No topic's name on the rows, and two topics by now: they went to the one that came first.
    same = (each for each, held in sources.items() if each.partition == source.partition and held.covers(offsets))
    return next(same, kept)


def _unclaimed(stored: Mapping[str, float], seen: _Seen) -> Iterable[Finding]:
    for key, age_s in sorted(stored.items()):
        if key in seen.named or not key.endswith(".parquet"):
            continue
        fate = _fate(key, seen)
        if fate == "open":
            yield Finding(11, "notice", key, "is named by no change: a task's that runs, or the next one's to use")
        elif fate == "left" and age_s < LEFTOVER_AGE_S:
            yield Finding(11, "notice", key, "is named by no entry: a writer's that is slow, or crashed today")
        elif fate == "left":
            what = f"is named by no entry and {age_s / 3600:.0f} h old: a crash's; whyrec archive sweep removes it"
            yield Finding(11, "error", key, what, leftover=True)
        else:
            yield Finding(11, "error", key, "is named by no entry, and no writer of ours would have named it so")


def _fate(key: str, seen: _Seen) -> Literal["open", "left", "foreign"]:
    """Say of an object that nobody names whether a task may name it yet, a crash left it, or it is not ours."""
    name = object_name(key)
    if name is None:
        return "foreign"
    hot = key.removeprefix(name.tier)
    if name.tier and hot in seen.named:
        return "left" if hot in seen.removed else "open"
    if name.number is None:
        ours = not name.tier and name.first in seen.beginnings.get(name.chain, {0})
        return "left" if ours else "foreign"
    number = seen.states.get(name.place, State()).number
    if name.number == number:
        return "open"
    return "left" if name.number < number else "foreign"


def _lingering(stored: Mapping[str, float], seen: _Seen, now_ms: int | None) -> Iterable[Finding]:
    waiting: dict[str, int] = {}
    for key, change in seen.removed.items():
        if key not in stored:
            continue
        if now_ms is None or now_ms - change.written_at_ms < LEFTOVER_AGE_S * 1000:
            waiting[change.place.prefix] = waiting.get(change.place.prefix, 0) + 1
        else:
            what = (
                f"was {change.kind} more than a day ago ({change.key}), and is there; whyrec archive sweep removes it"
            )
            yield Finding(19, "error", key, what, leftover=True)
    for prefix, objects in waiting.items():
        yield Finding(19, "notice", prefix, f"{objects} objects that were removed here are yet to be deleted")
