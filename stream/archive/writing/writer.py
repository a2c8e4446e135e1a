"""The write path: how buffered slates become part of the archive, once.

Objects first, then the entry that names them, then everything else: a crash between any two steps leaves an archive
that readers see as it was before. An entry is created only if its name is free, and its name is the offset at which
the chain ends; so of any number of writers, zombies and repeated attempts, exactly one continues the chain, and the
others find that out and take over what it says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow.compute as pc

from stream.archive.log import commitlog
from stream.archive.log.commitlog import Chain, Entry, Gap, ObjectRef, Origin, Tail, Written
from stream.archive.log.intervals import Intervals
from stream.archive.log.sources import Source, Sources, adopted, home
from stream.archive.objects import ObjectExists, ObjectMissing, Store
from stream.archive.rows.segment import segments
from stream.archive.rows.slates import Int64s, Slates
from stream.errors import ArchiveError

log = logging.getLogger(__name__)

_LOOK_BACK: Final = (100_000, 10_000_000)
"""How many offsets before the topic's end the last entry is looked for before the whole log is listed."""


class ForeignChain(ArchiveError):
    """The chain belongs to another Kafka cluster: two installations write to one prefix."""


class RecreatedTopic(ArchiveError):
    """The chain is of a topic that had this name before."""

    def __init__(self, chain: Chain, was: Origin, now: Origin) -> None:
        super().__init__(f"{chain.prefix} was written from {was}; the topic of this name is now {now}")
        self.was = was
        self.now = now


class OffsetGap(ArchiveError):
    """What was buffered does not begin where the chain ends; it has to be read again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The offsets ``[first, next)`` of a partition, complete: slates, records nobody could read, and gaps."""

    first: int
    next: int
    slates: Slates
    rejected: Intervals = field(default_factory=Intervals)
    gaps: tuple[Gap, ...] = ()

    def after(self, offset: int) -> Batch:
        """Return what lies at ``offset`` or beyond."""
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
    """What became of a batch: the entries that this writer added (at most one), and those of others it met."""

    mine: tuple[Entry, ...]
    others: tuple[Entry, ...]


class ChainWriter:
    """Continues one chain. Blocks on the store; to be called from one thread at a time."""

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
        """Read where the chain ends. ``end_offset``, the topic's, only makes it quicker to find.

        Raises:
            ForeignChain: the chain was written from another cluster.
            commitlog.InvalidEntry: its last entry is damaged.
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
        """Archive a batch. After an error it can be called again with the same batch: nothing is written twice.

        Raises:
            OffsetGap: the batch begins beyond the end of the chain.
            ArchiveError: the store does not answer.

        """
        mine: list[Entry] = []
        others: list[Entry] = []
        while (batch := batch.after(self.tail.next)).next > self.tail.next:
            if batch.first != self.tail.next:
                raise OffsetGap(
                    f"{self.chain.prefix}: the chain ends at offset {self.tail.next}, the batch begins at {batch.first}"
                )
            fresh, new = unarchived(batch.slates, self.tail.sources)

            # 1. The objects. They are named by their content, and nobody sees them before an entry names them.
            objects: list[ObjectRef] = []
            for segment in segments(fresh.table, self.chain, batch.first):
                self._store.put(segment.ref.key, segment.data)
                objects.append(segment.ref)

            # 2. The entry, if its name is still free. From here on the rows are archived.
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
                # Another writer was first (or we were, and never heard): its entry is the truth, ours is dropped.
                others.append(self._adopt(self.chain.key(entry.first)))
                log.warning("%s was continued at offset %d by another writer", self.chain.prefix, entry.first)
                continue

            # 3. What this writer believes.
            self.tail = commitlog.tail_after(entry, data)
            mine.append(entry)
            # 4. Kafka's committed offset is the caller's: information for people, never read back.
        return Committed(tuple(mine), tuple(others))

    def _adopt(self, key: str) -> Entry:
        data = self._store.get(key)
        entry = commitlog.decode(data)
        if commitlog.parse_key(key) != (entry.chain, entry.first):
            raise commitlog.InvalidEntry(f"{key} holds the entry of {entry.chain.key(entry.first)}; verify the archive")
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
        """Go on to entries that were added since the log was listed."""
        while True:
            try:
                self._adopt(self.chain.key(self.tail.next))
            except ObjectMissing:
                return

    def _last_key(self, end_offset: int | None) -> str | None:
        # Any listing that begins somewhere in the log and is not empty ends with the last entry.
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
    """Drop repeats of what is archived and within the slates; return the rest and the offsets that it adds."""
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
        unseen = ~known.get(source, Intervals()).holds(offsets)
        here, offsets = here[unseen], offsets[unseen]
        unique, first_seen = np.unique(offsets, return_index=True)
        keep[here[first_seen]] = True
        if len(unique):
            new[source] = Intervals.of_offsets(unique)
    return slates.only(keep), new


def _by_source(slates: Slates) -> dict[Source, Int64s]:
    """Return the places of each source's slates."""
    topics = pc.dictionary_encode(slates.source_topic)
    names, codes = topics.dictionary.to_pylist(), topics.indices.to_numpy()
    pairs, owner = np.unique(np.stack([codes, slates.source_partition]), axis=1, return_inverse=True)
    return {
        Source(names[code], partition): np.flatnonzero(owner.ravel() == number)
        for number, (code, partition) in enumerate(pairs.T.tolist())
    }
