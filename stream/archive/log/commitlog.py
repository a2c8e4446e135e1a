"""The commit log: one chain of entries for each partition of the audit topic. Pure: bytes in, bytes out.

An entry says which offsets ``[first, next)`` of the partition are archived, in which objects, and what became of
every offset that is in none. Its name is its first offset, so that two writers can never both continue a chain, and
it holds the SHA-256 of the entry before it, so that no entry can change unnoticed.

The numbers of an entry add up: ``next - first = slates + repeats + rejected + gaps``, in offsets; ``rows`` is the sum
over its objects; and the watermark ``sources`` grows by ``slates + absorbed``.

Format 1 kept the watermark by partition alone. Its entries are read, and their chains continued in format 2.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from stream.archive.log import canonical
from stream.archive.log.intervals import Intervals
from stream.archive.log.sources import Source, Sources, adopted
from stream.errors import ArchiveError

FORMAT: Final = 2
COMMITS: Final = "_commits/"

MAX_SPANS: Final = 1_000
"""Spans of a source partition's watermark. A hole is an impression that never got an audit record (a dead letter), or
has not yet: the lowest holes are given up first, by when their writers are long gone."""

GapReason = Literal["expired", "absent"]
"""``expired``: the topic's retention was faster than the archive. ``absent``: the broker has no record there."""

_KEY = re.compile(r"_commits/(?P<name>[A-Za-z0-9._~-]+)/(?P<partition>\d+)/(?P<first>\d{20})\.json")


class InvalidEntry(ArchiveError):
    """Bytes that are no entry of ours, or an entry that contradicts itself or the one before it."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain's name (the audit topic; ``topic~id`` when the topic was made anew) and partition."""

    name: str
    partition: int

    @property
    def prefix(self) -> str:
        """Where the entries lie."""
        return f"{COMMITS}{self.name}/{self.partition}/"

    def key(self, first: int) -> str:
        """Return the key of the entry that begins at this offset."""
        return f"{self.prefix}{first:020d}.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """Which Kafka cluster and which topic in it: a name can be used twice, these ids cannot."""

    cluster: str
    topic: str


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A Parquet object as its entry or its change knows it.

    ``modulus`` is a change's word on whose rows they can be (:mod:`stream.archive.rows.partitioner`); None: anybody's.
    """

    key: str
    sha256: str
    bytes: int
    rows: int
    modulus: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets ``[first, next)`` that the topic did not hold when the sink came to them."""

    first: int
    next: int
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit; see the module's text for what its numbers mean."""

    chain: Chain
    first: int
    next: int
    previous: str | None
    objects: tuple[ObjectRef, ...]
    slates: int
    repeats: int
    rejected: Intervals
    gaps: tuple[Gap, ...]
    sources: Sources
    absorbed: int
    origin: Origin | None
    writer: str
    written_at_ms: int
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """Impressions archived by this entry."""
        return sum(ref.rows for ref in self.objects)


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a chain ends: the next offset, the last entry's SHA-256, and what it has of each source."""

    next: int = 0
    digest: str | None = None
    sources: Sources = field(default_factory=lambda: MappingProxyType({}))
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What a flush wants recorded; ``new`` are the source offsets it archived."""

    next: int
    objects: tuple[ObjectRef, ...]
    repeats: int
    rejected: Intervals
    gaps: tuple[Gap, ...]
    new: Sources


def append(
    tail: Tail, chain: Chain, written: Written, *, origin: Origin | None, writer: str, written_at_ms: int
) -> Entry:
    """Make the entry that continues a chain after ``tail``.

    Raises:
        InvalidEntry: the offsets do not add up.

    """
    sources = adopted(tail.sources, written.new)
    absorbed = 0
    for source, new in written.new.items():
        whole = sources.get(source, Intervals()) | new
        sources[source] = whole.at_most(MAX_SPANS)
        absorbed += len(sources[source]) - len(whole)
    entry = Entry(
        chain=chain,
        first=tail.next,
        next=written.next,
        previous=tail.digest,
        objects=written.objects,
        slates=sum(map(len, written.new.values())),
        repeats=written.repeats,
        rejected=written.rejected,
        gaps=written.gaps,
        sources=sources,
        absorbed=absorbed,
        origin=origin,
        writer=writer,
        written_at_ms=written_at_ms,
    )
    for fault in (*faults(entry), *link_faults(tail, entry), *watermark_faults(tail, entry)):
        raise InvalidEntry(f"{chain.key(tail.next)}: {fault}")
    return entry


def tail_after(entry: Entry, data: bytes) -> Tail:
    """Return where the chain ends once this entry (and ``data``, its bytes) is its last."""
    return Tail(entry.next, digest(data), entry.sources, entry.origin)


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def faults(entry: Entry) -> list[str]:
    """Say what in an entry contradicts itself; nothing, if it is sound."""
    found: list[str] = []
    length = entry.next - entry.first
    if entry.first < 0 or length <= 0:
        found.append(f"covers offsets {entry.first} to {entry.next}; expected at least one")
    accounted = entry.slates + entry.repeats + len(entry.rejected) + sum(gap.next - gap.first for gap in entry.gaps)
    if accounted != length:
        found.append(
            f"accounts for {accounted} of {length} offsets ({entry.slates} slates, {entry.repeats} repeats, "
            f"{len(entry.rejected)} rejected, the rest gaps)"
        )
    missing = [(gap.first, gap.next) for gap in entry.gaps]
    spans = [*missing, *entry.rejected.spans]
    if any(first < entry.first or following > entry.next or following <= first for first, following in spans):
        found.append("names gaps or rejected records outside its offsets")
    if len(Intervals.of(spans)) != sum(following - first for first, following in spans):
        found.append("names an offset twice among its gaps and rejected records")
    if min(entry.slates, entry.repeats, entry.absorbed, *(ref.rows for ref in entry.objects), 0) < 0:
        found.append("holds a negative count")
    return found


def link_faults(tail: Tail, entry: Entry) -> list[str]:
    """Say why an entry does not continue a chain that ends at ``tail``; nothing, if it does."""
    found: list[str] = []
    if entry.first != tail.next:
        kind = "leaves out" if entry.first > tail.next else "repeats"
        low, high = sorted((tail.next, entry.first))
        found.append(f"begins at offset {entry.first}, expected {tail.next}: {kind} offsets {low} to {high - 1}")
    if entry.previous != tail.digest:
        found.append(f"follows an entry with SHA-256 {entry.previous}, but the one before it has {tail.digest}")
    if tail.origin is not None and entry.origin is not None and tail.origin != entry.origin:
        found.append(f"comes from {entry.origin}, the chain from {tail.origin}")
    return found


def watermark_faults(tail: Tail, entry: Entry) -> list[str]:
    """Say why an entry's source offsets are not those of ``tail`` and what it archived; nothing, if they are."""
    found: list[str] = []
    before, after = (sum(map(len, sources.values())) for sources in (tail.sources, entry.sources))
    had = adopted(tail.sources, entry.sources)
    lost = [source for source, offsets in had.items() if not entry.sources.get(source, Intervals()).covers(offsets)]
    if lost or after - before != entry.slates + entry.absorbed:
        found.append(
            f"source offsets grow from {before} to {after}, expected {entry.slates + entry.absorbed} more"
            + (f"; partitions {[source.partition for source in lost]} lost some" if lost else "")
        )
    return found


def encode(entry: Entry) -> bytes:
    """Write an entry as canonical JSON: sorted keys, no spaces, ASCII, one line."""
    document = {
        "format": entry.format,
        "chain": entry.chain.name,
        "partition": entry.chain.partition,
        "first": entry.first,
        "next": entry.next,
        "previous": entry.previous,
        "objects": [
            {"key": ref.key, "sha256": ref.sha256, "bytes": ref.bytes, "rows": ref.rows} for ref in entry.objects
        ],
        "rows": entry.rows,
        "slates": entry.slates,
        "repeats": entry.repeats,
        "rejected": entry.rejected.spans,
        "gaps": [{"first": gap.first, "next": gap.next, "reason": gap.reason} for gap in entry.gaps],
        "sources": _plain_sources(entry),
        "absorbed": entry.absorbed,
        "origin": None if entry.origin is None else {"cluster": entry.origin.cluster, "topic": entry.origin.topic},
        "writer": entry.writer,
        "written_at_ms": entry.written_at_ms,
    }
    return canonical.encode(document)


def decode(data: bytes) -> Entry:
    """Read an entry back; :func:`encode` of the result gives the same bytes.

    Raises:
        InvalidEntry: not JSON, another format, a missing field, or not canonical.

    """
    return canonical.decode(data, range(1, FORMAT + 1), _entry, encode, what="commit entry", invalid=InvalidEntry)


def is_entry_key(key: str) -> bool:
    """Say whether a key is an entry's; people leave other things in buckets."""
    return _KEY.fullmatch(key) is not None


def parse_key(key: str) -> tuple[Chain, int]:
    """Return the chain and the first offset that a key names.

    Raises:
        InvalidEntry: no entry of ours has such a key.

    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise InvalidEntry(f"{key} is no key of an entry; expected _commits/<topic>/<partition>/<20 digits>.json")
    chain = Chain(match["name"], int(match["partition"]))
    first = int(match["first"])
    if chain.key(first) != key:
        raise InvalidEntry(f"{key} is not how we write it: {chain.key(first)}")
    return chain, first


def _entry(document: dict[str, Any]) -> Entry:
    origin = document["origin"]
    topics = {"": document["sources"]} if document["format"] == 1 else document["sources"]
    sources = {
        Source(topic, int(partition)): _intervals(spans)
        for topic, partitions in topics.items()
        for partition, spans in partitions.items()
    }
    return Entry(
        chain=Chain(document["chain"], document["partition"]),
        first=document["first"],
        next=document["next"],
        previous=document["previous"],
        objects=tuple(ObjectRef(o["key"], o["sha256"], o["bytes"], o["rows"]) for o in document["objects"]),
        slates=document["slates"],
        repeats=document["repeats"],
        rejected=_intervals(document["rejected"]),
        gaps=tuple(Gap(gap["first"], gap["next"], gap["reason"]) for gap in document["gaps"]),
        sources=sources,
        absorbed=document["absorbed"],
        origin=None if origin is None else Origin(origin["cluster"], origin["topic"]),
        writer=document["writer"],
        written_at_ms=document["written_at_ms"],
        format=document["format"],
    )


def _plain_sources(entry: Entry) -> dict[str, Any]:
    topics: dict[str, dict[str, Any]] = {}
    for source, held in entry.sources.items():
        topics.setdefault(source.topic, {})[str(source.partition)] = held.spans
    return topics.get("", {}) if entry.format == 1 else topics


def _intervals(spans: list[list[int]]) -> Intervals:
    return Intervals.of((first, following) for first, following in spans)
