"""The write path: how buffered slates become part of the archive exactly once.

A writer stores the objects first, then the entry that names them. After a crash between the two, readers see the
archive as it was before. The key of an entry is the offset at which the chain ended, and an entry is only created if
its key is free. So of any number of writers, stale writers and repeated attempts, exactly one continues the chain; the
others find its entry and continue after it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow.compute as pc

from stream.archive.aging.policy import is_implausible
from stream.archive.log import commitlog
from stream.archive.log.commitlog import Chain, Entry, Gap, ObjectRef, Origin, Tail, Written
from stream.archive.log.intervals import Intervals
from stream.archive.log.names import object_name
from stream.archive.log.sources import Source, Sources, adopted, home
from stream.archive.objects import ObjectExists, ObjectMissing, Store
from stream.archive.rows.segment import segments
from stream.archive.rows.slates import Int64s, Slates
from stream.errors import ArchiveError

log = logging.getLogger(__name__)

_LOOK_BACK: Final = (100_000, 10_000_000)
"""How many offsets before the end of the topic the search for the last entry begins; at last the whole log is
listed."""


class ForeignChain(ArchiveError):
    """The chain was written from another Kafka cluster: two installations share an archive URL."""


class RecreatedTopic(ArchiveError):
    """The chain was written from an earlier topic of the same name."""

    def __init__(self, chain: Chain, was: Origin, now: Origin) -> None:
        super().__init__(f"{chain.prefix} was written from {was}; the topic of this name is now {now}")
        self.was = was
        self.now = now


class OffsetGap(ArchiveError):
    """A batch begins beyond the end of the chain; the offsets between must be read again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """All offsets ``[first, next)`` of a partition: slates, records that could not be decoded, and gaps."""

    first: int
    next: int
    slates: Slates
    rejected: Intervals = field(default_factory=Intervals)
    gaps: tuple[Gap, ...] = ()

    def after(self, offset: int) -> Batch:
        """Return the part of the batch from ``offset`` on."""
        if offset <= self.first:
            return self
        return Batch(
            min(offset, self.next),
            self.next,
            self.slates.only(self.slates.offset >= offset),
            Intervals.of((max(first, offset), following) for first, following in self.rejected.spans),
            tuple(replace(gap, first=max(gap.first, offset)) for gap in self.gaps if gap.next > offset),
        )


@dataclass(frozen=True, slots=True)
class Committed:
    """The result of a commit: the entries that this writer added (at most one), and those that other writers had added.

    ``implausible`` counts this writer's rows whose date is far from now (:mod:`stream.archive.aging.policy`).
    """

    own: tuple[Entry, ...]
    others: tuple[Entry, ...]
    implausible: int = 0


class ChainWriter:
    """Continues one chain. Calls block on the store; use a writer from one thread at a time."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        *,
        writer: str,
        origin: Origin | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.chain = chain
        self.tail = Tail()
        self._store = store
        self._writer = writer
        self._origin = origin
        self._clock = clock

    def open(self, end_offset: int | None = None) -> Tail:
        """Read where the chain ends. ``end_offset``, the end of the topic, speeds up the search.

        Raises:
            ForeignChain: the chain was written from another Kafka cluster.
            RecreatedTopic: the chain was written from an earlier topic of the same name.
            commitlog.InvalidEntry: the last entry is damaged.
            ArchiveError: the store does not answer.

        """
        key = self._last_key(end_offset)
        if key is None:
            self.tail = Tail(origin=self._origin)
            return self.tail
        self._adopt(key)
        self._follow()
        return self.tail

    def commit(self, batch: Batch) -> Committed:
        """Archive a batch. After an error the same batch can be committed again: no row is archived twice.

        Raises:
            OffsetGap: the batch begins beyond the end of the chain.
            ArchiveError: the store does not answer.

        """
        own: list[Entry] = []
        others: list[Entry] = []
        while (batch := batch.after(self.tail.next)).next > self.tail.next:
            if batch.first != self.tail.next:
                raise OffsetGap(
                    f"{self.chain.prefix}: the chain ends at offset {self.tail.next}, the batch begins at {batch.first}"
                )
            fresh, new = unarchived(batch.slates, self.tail.sources)

            # 1. The objects. Their keys contain a hash of their content; readers see them once an entry names them.
            objects: list[ObjectRef] = []
            for segment in segments(fresh.table, self.chain, batch.first):
                self._store.put(segment.ref.key, segment.data)
                objects.append(segment.ref)

            # 2. The entry, if its key is still free. From here on the rows are archived.
            written = Written(
                batch.next, tuple(objects), len(batch.slates) - len(fresh), batch.rejected, batch.gaps, new
            )
            entry = commitlog.append(
                self.tail,
                self.chain,
                written,
                origin=self._origin,
                writer=self._writer,
                written_at_ms=int(self._clock() * 1000),
            )
            data = commitlog.encode(entry)
            try:
                self._store.put_if_absent(self.chain.key(entry.first), data)
            except ObjectExists:
                # Another writer was first, or an earlier attempt whose answer was lost. The entry stands.
                others.append(self._adopt(self.chain.key(entry.first)))
                log.warning("%s was continued at offset %d by another writer", self.chain.prefix, entry.first)
                continue

            # 3. The state of this writer.
            self.tail = commitlog.tail_after(entry, data)
            own.append(entry)
            # 4. The caller commits the offset to Kafka, as information for people; it is never read back.
        implausible = sum(map(_implausible_rows, own))
        if implausible:
            log.warning(
                "%s: %d rows have a date far from now; check the clocks of the producers",
                self.chain.prefix,
                implausible,
            )
        return Committed(tuple(own), tuple(others), implausible)

    def _adopt(self, key: str) -> Entry:
        data = self._store.get(key)
        entry = commitlog.decode(data)
        if commitlog.parse_key(key) != (entry.chain, entry.first):
            raise commitlog.InvalidEntry(
                f"{key} holds the entry {entry.chain.key(entry.first)}; run `whyrec archive verify`"
            )
        self._check_origin(entry)
        self.tail = commitlog.tail_after(entry, data)
        return entry

    def _check_origin(self, entry: Entry) -> None:
        was, now = entry.origin, self._origin
        if was is None or now is None or was == now:
            return
        if was.cluster == now.cluster:
            raise RecreatedTopic(self.chain, was, now)
        raise ForeignChain(
            f"{self.chain.prefix} was written from {was}, this worker reads {now}; "
            "give each Kafka cluster an archive URL of its own"
        )

    def _follow(self) -> None:
        """Adopt the entries that were added after the log was listed."""
        while True:
            try:
                self._adopt(self.chain.key(self.tail.next))
            except ObjectMissing:
                return

    def _last_key(self, end_offset: int | None) -> str | None:
        # A listing that begins anywhere in the log and is not empty ends with the last entry.
        starts = [end_offset - back for back in _LOOK_BACK if end_offset is not None and end_offset > back]
        for after in (*(self.chain.key(start) for start in starts), ""):
            last = None
            for info in self._store.list(self.chain.prefix, after):
                if commitlog.is_entry_key(info.key):
                    last = info.key
            if last is not None:
                return last
        return None


def unarchived(slates: Slates, archived: Sources) -> tuple[Slates, dict[Source, Intervals]]:
    """Drop slates that are archived already or repeated; return the others and the source offsets that they add."""
    places = _by_source(slates)
    known = adopted(archived, places)
    gathered: dict[Source, list[Int64s]] = {}
    for source, here in places.items():
        gathered.setdefault(home(source, (*known, *places)), []).append(here)
    keep = np.zeros(len(slates), np.bool_)
    new: dict[Source, Intervals] = {}
    for source, parts in gathered.items():
        here = np.sort(np.concatenate(parts))
        offsets = slates.source_offset[here]
        unseen = ~known.get(source, Intervals()).contains(offsets)
        here, offsets = here[unseen], offsets[unseen]
        unique, first_seen = np.unique(offsets, return_index=True)
        keep[here[first_seen]] = True
        if len(unique):
            new[source] = Intervals.of_offsets(unique)
    return slates.only(keep), new


def _implausible_rows(entry: Entry) -> int:
    names = ((object_name(ref.key), ref.rows) for ref in entry.objects)
    return sum(rows for name, rows in names if name is not None and is_implausible(name.place, entry.written_at_ms))


def _by_source(slates: Slates) -> dict[Source, Int64s]:
    """Return the indices of the slates of each source."""
    topics = pc.dictionary_encode(slates.source_topic)
    names, codes = topics.dictionary.to_pylist(), topics.indices.to_numpy()
    pairs, owner = np.unique(np.stack([codes, slates.source_partition]), axis=1, return_inverse=True)
    return {
        Source(names[code], partition): np.flatnonzero(owner.ravel() == number)
        for number, (code, partition) in enumerate(pairs.T.tolist())
    }
