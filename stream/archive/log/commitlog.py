"""The commit log: one chain of entries for each partition of the audit topic. Pure: bytes in, bytes out.

An entry states which offsets ``[first, next)`` of the partition are archived, in which objects, and why the other
offsets are in none. Its key contains its first offset, so that only one of two writers can continue a chain. It
contains the SHA-256 of the entry before it, so that no entry can change unnoticed.

The numbers of an entry add up: ``next - first = slates + repeats + rejected + gaps``, in offsets. ``rows`` is the sum
over its objects. The watermark ``sources``, the source offsets archived so far, grows by ``slates + absorbed``.

Format 1 kept the watermark by partition alone. Entries of format 1 are read, and their chains continued in format 2.
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
"""Spans in the watermark of a source partition, at most. A hole between spans is an impression without an audit record:
a dead letter, or a record still to come. Beyond the limit the lowest holes are absorbed, since nobody will fill
them."""

GapReason = Literal["expired", "absent"]
"""``expired``: the retention of the topic deleted the records before the sink read them. ``absent``: the broker has no
record at these offsets."""

_KEY = re.compile(r"_commits/(?P<name>[A-Za-z0-9._~-]+)/(?P<partition>\d+)/(?P<first>\d{20})\.json")


class InvalidEntry(ArchiveError):
    """The bytes are not an entry, or the entry contradicts itself or the entry before it."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The name of a chain, and its partition of the audit topic.

    The name is that of the topic, or ``topic~id`` for a topic that was deleted and created again.
    """

    name: str
    partition: int

    @property
    def prefix(self) -> str:
        """The prefix of the keys of its entries."""
        return f"{COMMITS}{self.name}/{self.partition}/"

    def key(self, first: int) -> str:
        """Return the key of the entry whose first offset this is."""
        return f"{self.prefix}{first:020d}.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """The ids of a Kafka cluster and of a topic in it. Unlike names, ids are never used twice."""

    cluster: str
    topic: str


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A Parquet object as an entry or a change names it.

    ``modulus``, which only changes state, tells which users the object can hold
    (:mod:`stream.archive.rows.partitioner`); with None it can hold any user.
    """

    key: str
    sha256: str
    bytes: int
    rows: int
    modulus: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets ``[first, next)`` that the topic did not have when the sink read it."""

    first: int
    next: int
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit. The module's docstring explains its numbers.

    ``written_at_ms`` (milliseconds since 1970) is when the rows of the entry were archived.
    """

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
        """Number of impressions that this entry archived."""
        return sum(ref.rows for ref in self.objects)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a chain: the next offset, the SHA-256 of the last entry, and the watermark."""

    next: int = 0
    digest: str | None = None
    sources: Sources = field(default_factory=lambda: MappingProxyType({}))
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What a flush archived and the next entry records; ``new`` are its source offsets."""

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
        InvalidEntry: the numbers do not add up.

    """
    sources = adopted(tail.sources, written.new)
    absorbed = 0
    for source, new in written.new.items():
        united = sources.get(source, Intervals()) | new
        sources[source] = united.at_most(MAX_SPANS)
        absorbed += len(sources[source]) - len(united)
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
    """Return the end of the chain after this entry; ``data`` are its bytes."""
    return Tail(entry.next, digest(data), entry.sources, entry.origin)


def digest(data: bytes) -> str:
    """Return the SHA-256 of the bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def faults(entry: Entry) -> list[str]:
    """Return the contradictions within an entry; an empty list if the entry is consistent."""
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
    """Return the reasons why an entry does not continue a chain after ``tail``; an empty list if it does."""
    found: list[str] = []
    if entry.first != tail.next:
        kind = "leaves out" if entry.first > tail.next else "repeats"
        low, high = sorted((tail.next, entry.first))
        found.append(f"begins at offset {entry.first}, expected {tail.next}: {kind} offsets {low} to {high - 1}")
    if entry.previous != tail.digest:
        found.append(f"follows an entry with SHA-256 {entry.previous}, but the entry before it has {tail.digest}")
    if tail.origin is not None and entry.origin is not None and tail.origin != entry.origin:
        found.append(f"was written from {entry.origin}, the chain before it from {tail.origin}")
    return found


def watermark_faults(tail: Tail, entry: Entry) -> list[str]:
    """Return the reasons why the watermark of an entry is not that of ``tail`` plus what the entry archived, if any."""
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
    """Encode an entry as canonical JSON (:mod:`stream.archive.log.canonical`)."""
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
        "sources": _sources_document(entry),
        "absorbed": entry.absorbed,
        "origin": None if entry.origin is None else {"cluster": entry.origin.cluster, "topic": entry.origin.topic},
        "writer": entry.writer,
        "written_at_ms": entry.written_at_ms,
    }
    return canonical.encode(document)


def decode(data: bytes) -> Entry:
    """Decode an entry. :func:`encode` of the result gives the same bytes.

    Raises:
        InvalidEntry: the bytes are not JSON, lack a field, are not canonical, or have an unknown format.

    """
    return canonical.decode(data, range(1, FORMAT + 1), _entry, encode, what="commit entry", invalid=InvalidEntry)


def is_entry_key(key: str) -> bool:
    """Say whether a key is the key of an entry. A bucket may hold other objects too."""
    return _KEY.fullmatch(key) is not None


def parse_key(key: str) -> tuple[Chain, int]:
    """Return the chain and the first offset in the key of an entry.

    Raises:
        InvalidEntry: the key is not the key of an entry.

    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise InvalidEntry(f"{key} is not the key of an entry; expected _commits/<topic>/<partition>/<20 digits>.json")
    chain = Chain(match["name"], int(match["partition"]))
    first = int(match["first"])
    if chain.key(first) != key:
        raise InvalidEntry(f"{key} is not the canonical key of an entry; expected {chain.key(first)}")
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


def _sources_document(entry: Entry) -> dict[str, Any]:
    topics: dict[str, dict[str, Any]] = {}
    for source, held in entry.sources.items():
        topics.setdefault(source.topic, {})[str(source.partition)] = held.spans
    return topics.get("", {}) if entry.format == 1 else topics


def _intervals(spans: list[list[int]]) -> Intervals:
    return Intervals.of((first, following) for first, following in spans)
