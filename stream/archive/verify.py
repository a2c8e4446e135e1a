"""The verifier. Pure: entries and facts about objects in, findings out; it needs read access to the archive only.

Its rules:

 1. Every key below ``_commits/`` is an entry's key, and its bytes are an entry in canonical form.
 2. An entry says of itself what its key says: chain, partition, first offset.
 3. An entry's numbers add up: every offset of ``[first, next)`` is a slate, a repeat, a rejected record or in a gap.
 4. A chain begins at offset 0, with no entry before.
 5. Each entry begins where the one before it ends, and names its SHA-256.
 6. The watermark of archived source offsets never shrinks, and grows by what the entry archived.
 7. Every object that an entry names exists, with the size, the SHA-256 and the rows that the entry states.
 8. An object's key says what its entry says: chain, partition, first offset of the entry, the content's hash.
 9. No object is named by two entries.
10. No impression stands twice in a chain, by source offset and item, and the source offsets of an object are among
    its entry's (only where the facts include them: this reads the columns).
11. Every Parquet object outside ``_commits/`` is named by an entry. A leftover, which bears the first offset of an
    entry or the end of the chain, is a notice until it is a day old: it may still be a slow writer's.
12. A gap is a notice: those offsets were lost to retention before the sink came, and this says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

from stream.archive import commitlog
from stream.archive.commitlog import Chain, Entry, InvalidEntry, ObjectRef, Tail
from stream.archive.intervals import Intervals
from stream.archive.segment import parse_key
from stream.archive.sources import Source, Sources, adopted, home

LEFTOVER_AGE_S: Final = 86_400.0
"""A writer that is slower than this to commit its objects loses them."""

Severity = Literal["error", "notice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the rules say (an error), or that a reader should know (a notice).

    ``leftover`` marks an object of rule 11 that a crashed writer left and nobody can want any more.
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
    earlier row of the object too.
    """

    sha256: str
    size: int
    rows: int | None = None
    sources: Sources | None = None
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier looked at, and what it found."""

    findings: tuple[Finding, ...]
    chains: int
    entries: int
    objects: int
    rows: int

    @property
    def sound(self) -> bool:
        """Say whether nothing is wrong; notices are not."""
        return not any(finding.severity == "error" for finding in self.findings)


def verify(
    entries: Iterable[tuple[str, bytes]],
    facts: Callable[[ObjectRef], ObjectFacts | None],
    stored: Mapping[str, float] | None = None,
) -> Verdict:
    """Apply the rules.

    ``entries`` are the keys below ``_commits/`` with their bytes, in the order of their keys. ``facts`` looks at one
    object, or says None if there is none. ``stored`` are the age in seconds of every object outside ``_commits/`` by
    key; without it rule 11 is not applied.
    """
    found: list[Finding] = []
    named: dict[str, str] = {}
    beginnings: dict[Chain, set[int]] = {}
    chains = count = rows = 0
    for chain, links in groupby(_decoded(entries, found), key=lambda link: link[1].chain):
        chains += 1
        tail = Tail()
        archived: dict[Source, Intervals] = {}
        beginnings[chain] = {0}
        for key, entry, data in links:
            count += 1
            rows += entry.rows
            found.extend(Finding(3, "error", key, what) for what in commitlog.faults(entry))
            found.extend(_link(tail, key, entry))
            found.extend(Finding(6, "error", key, what) for what in commitlog.watermark_faults(tail, entry))
            archived = adopted(archived, entry.sources)
            found.extend(_objects(key, entry, facts, named, archived))
            found.extend(
                Finding(12, "notice", key, f"offsets {gap.first} to {gap.next - 1} {gap.reason} before the sink came")
                for gap in entry.gaps
            )
            tail = commitlog.tail_after(entry, data)
            beginnings[chain] |= {entry.first, entry.next}
    if stored is not None:
        found.extend(_unclaimed(stored, named, beginnings))
    return Verdict(tuple(found), chains, count, len(named), rows)


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


def _objects(
    key: str,
    entry: Entry,
    facts: Callable[[ObjectRef], ObjectFacts | None],
    named: dict[str, str],
    archived: dict[Source, Intervals],
) -> Iterable[Finding]:
    sources: dict[Source, Intervals] = {}
    complete = True
    for ref in entry.objects:
        name = parse_key(ref.key)
        if name is None or (name.chain, name.first) != (entry.chain, entry.first) or ref.sha256[:16] != name.digest:
            yield Finding(8, "error", ref.key, f"is not how {key} would name its object with SHA-256 {ref.sha256}")
        if ref.key in named:
            yield Finding(9, "error", ref.key, f"is named by {named[ref.key]} and by {key}")
        named[ref.key] = key
        fact = facts(ref)
        if fact is None:
            yield Finding(7, "error", ref.key, f"does not exist; {key} names it")
            complete = False
            continue
        yield from _differences(key, ref, fact)
        if fact.sources is None:
            complete = False
            continue
        for source, offsets in fact.sources.items():
            kept = home(source, entry.sources)
            sources[kept] = sources.get(kept, Intervals()) | offsets
    if complete and entry.objects:
        yield from _sources(key, entry, sources, archived)


def _differences(key: str, ref: ObjectRef, fact: ObjectFacts) -> Iterable[Finding]:
    for what, stated, is_so in (
        ("SHA-256", ref.sha256, fact.sha256),
        ("bytes", ref.bytes, fact.size),
        ("rows", ref.rows, fact.rows),
    ):
        if is_so is not None and stated != is_so:
            yield Finding(7, "error", ref.key, f"{what}: {key} states {stated}, the object has {is_so}")
    if fact.repeated:
        yield Finding(10, "error", ref.key, f"{fact.repeated} rows have source offset and item of another")


def _sources(key: str, entry: Entry, sources: Sources, archived: dict[Source, Intervals]) -> Iterable[Finding]:
    for source, offsets in sources.items():
        had = archived.get(source, Intervals())
        archived[source] = had | offsets
        again = len(had) + len(offsets) - len(archived[source])
        where = f"source offsets of partition {source.partition}"
        if again:
            yield Finding(10, "error", key, f"archives {again} {where} a second time")
        if not entry.sources.get(source, Intervals()).covers(offsets):
            yield Finding(10, "error", key, f"archives {where} that it does not name")


def _unclaimed(
    stored: Mapping[str, float], named: Mapping[str, str], beginnings: Mapping[Chain, set[int]]
) -> Iterable[Finding]:
    for key, age_s in sorted(stored.items()):
        if key in named or not key.endswith(".parquet"):
            continue
        name = parse_key(key)
        leftover = name is not None and name.first in beginnings.get(name.chain, {0})
        if leftover and age_s < LEFTOVER_AGE_S:
            yield Finding(11, "notice", key, "is named by no entry: a writer's that is slow, or crashed today")
        elif leftover:
            what = f"is named by no entry and {age_s / 3600:.0f} h old: a crash's; whyrec archive sweep removes it"
            yield Finding(11, "error", key, what, leftover=True)
        else:
            yield Finding(11, "error", key, "is named by no entry, and no writer of ours would have named it so")
