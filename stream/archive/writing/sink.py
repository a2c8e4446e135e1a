"""The sink's buffers between Kafka and the archive: one buffer and one chain for each assigned partition.

The sink does not depend on Faust. The caller opens each assigned partition (:meth:`Sink.open`), reads the topic from
the offset that this returns, passes the records to :meth:`Sink.take`, and calls :meth:`Sink.drain` before it gives the
partitions up.

A partition has four offsets, each equal to or behind the one before::

    expected          next offset to accept
    next              end of the decoded records
    first             end of the records that are being committed
    writer.tail.next  end of the archived records
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, TypeVar

import structlog

from schemas.registry import RegistryUnavailable
from stream.archive.log.commitlog import Chain, Gap, GapReason, Origin
from stream.archive.log.intervals import Intervals
from stream.archive.objects import Store
from stream.archive.rows.slates import Slates, joined
from stream.archive.writing.decode import Record, Unreadable
from stream.archive.writing.writer import Batch, ChainWriter, Committed, RecreatedTopic
from stream.errors import ArchiveError, DeliveryError, ProducerBroken

log = structlog.get_logger("whyrec.sink")

T = TypeVar("T")

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 15.0
_MEMORY_FACTOR: Final = 2
"""Bytes that may be buffered or on their way to the store, as a multiple of ``Limits.bytes``."""


class ArchiveAhead(ArchiveError):
    """The chain ends beyond the end of the topic, so this is not the topic that was archived."""


class _Closed(Exception):
    """The partition was closed meanwhile."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Buffered rows are committed when one of these limits is reached. ``bytes`` counts all partitions together."""

    rows: int = 1_000_000
    bytes: int = 128 * 1024 * 1024
    age_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Jump:
    """A partition continued at another offset than expected. It must be read again from ``expected``."""

    partition: int
    expected: int
    found: int


@dataclass(slots=True, eq=False)
class Partition:
    """One assigned partition: its chain and its buffer."""

    writer: ChainWriter
    first: int
    next: int
    expected: int
    parts: list[Slates] = field(default_factory=list)
    rejected: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    rows: int = 0
    nbytes: int = 0
    since: float | None = None
    committing: asyncio.Task[None] | None = None
    closed: bool = False

    def keep(
        self, parts: Sequence[Slates], unreadable: Sequence[Unreadable], gaps: Sequence[Gap], upto: int, now: float
    ) -> None:
        """Buffer slates, unreadable records and gaps, which together are all offsets before ``upto``."""
        self.parts.extend(parts)
        self.rejected.extend((each.record.offset, each.record.offset + 1) for each in unreadable)
        self.gaps.extend(gaps)
        self.rows += sum(part.table.num_rows for part in parts)
        self.nbytes += sum(part.nbytes for part in parts)
        self.next = upto
        if self.since is None:
            self.since = now

    def seal(self) -> Batch:
        """Return the buffer as a batch, and empty it."""
        batch = Batch(self.first, self.next, joined(self.parts), Intervals.of(self.rejected), tuple(self.gaps))
        self.first = self.next
        self.parts, self.rejected, self.gaps = [], [], []
        self.rows = self.nbytes = 0
        self.since = None
        return batch


class Sink:
    """The buffers of all assigned partitions, for use on one event loop; calls to the store run in threads."""

    def __init__(
        self,
        store: Store,
        topic: str,
        *,
        writer: str,
        decode: Callable[[Sequence[Record]], tuple[Slates, list[Unreadable]]],
        dead_letter: Callable[[Sequence[Unreadable]], None],
        committed: Callable[[int, int, Committed], None],
        failed: Callable[[BaseException], None],
        limits: Limits | None = None,
        origin: Origin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty sink.

        ``decode`` decodes records. ``dead_letter`` delivers unreadable records to the dead letters, and may block.
        ``committed`` is called with the partition, its next offset and the result of each commit. ``failed`` is called
        with an error that a retry cannot mend.
        """
        self._store = store
        self._topic = topic
        self._writer = writer
        self._decode = decode
        self._dead_letter = dead_letter
        self._committed = committed
        self._failed = failed
        self._limits = limits or Limits()
        self._origin = origin
        self._clock = clock
        self._partitions: dict[int, Partition] = {}
        self._in_flight = 0
        self._room = asyncio.Event()

    async def open(self, partition: int, start: int, end: int) -> int:
        """Read where the chain of a partition ends, and return the offset from which to read the partition.

        ``start`` and ``end`` are the first offset that the topic still has and the next that it will assign. A buffer
        that the partition had is dropped.

        Raises:
            ArchiveAhead: the chain ends beyond ``end``.
            ArchiveError: the store does not answer, or the chain belongs to another Kafka cluster.

        """
        self.close(partition)
        writer = await in_thread(lambda: self._open_writer(partition, end))
        at = writer.tail.next
        self._partitions[partition] = Partition(writer, first=at, next=at, expected=at)
        return await self.resume(partition, start, end)

    async def resume(self, partition: int, start: int, end: int, first_present: int | None = None) -> int:
        """Like :meth:`open`, but keep the buffer of a partition that is open already.

        ``first_present`` is the first offset, from the expected one on, for which the topic has a record, if the caller
        has looked.
        """
        held = self._partitions.get(partition)
        if held is None:
            return await self.open(partition, start, end)
        if held.expected > end:
            self.close(partition)
            raise ArchiveAhead(
                f"{held.writer.chain.prefix} ends at offset {held.expected}, but {self._topic}/{partition} at {end}: "
                "if the topic was deleted and created again, give it an archive URL of its own"
            )
        self._skip(held, start, "expired")
        self._skip(held, first_present or 0, "absent")
        return held.expected

    def expected(self, partition: int) -> int | None:
        """Return the next offset to accept from a partition; None if the partition is not open."""
        held = self._partitions.get(partition)
        return None if held is None else held.expected

    async def take(self, records: Iterable[Record]) -> list[Jump]:
        """Buffer records, waiting while too many bytes are buffered; return the partitions that must be read again."""
        jumps: list[Jump] = []
        for partition, group in groupby(sorted(records, key=_position), key=lambda record: record.partition):
            held = self._partitions.get(partition)
            if held is not None:
                jump = await self._take(held, partition, list(group))
                if jump is not None:
                    jumps.append(jump)
        self.flush_due()
        await self._wait_for_room()
        return jumps

    def flush_due(self) -> None:
        """Begin to commit buffers that reached a limit; to be called about once a second."""
        now = self._clock()
        held_bytes = 0
        for held in self._partitions.values():
            held_bytes += held.nbytes
            aged = held.since is not None and now - held.since >= self._limits.age_s
            if aged or held.rows >= self._limits.rows:
                self._flush(held)
        for held in sorted(self._partitions.values(), key=lambda each: -each.nbytes):
            if held_bytes < self._limits.bytes:
                break
            held_bytes -= held.nbytes
            self._flush(held)

    async def drain(self, limit_s: float) -> None:
        """Commit all buffers, for at most ``limit_s`` seconds, and close all partitions."""
        give_up = self._clock() + limit_s
        while (left_s := give_up - self._clock()) > 0:
            for held in self._partitions.values():
                self._flush(held)
            writing = {held.committing for held in self._partitions.values() if held.committing is not None}
            if not writing:
                break
            await asyncio.wait(writing, timeout=left_s)
        unwritten = sum(
            1 for held in self._partitions.values() if held.committing is not None or held.since is not None
        )
        if unwritten:
            log.warning(
                "not archived in time; the next owner of the partitions reads the records again", partitions=unwritten
            )
        for partition in list(self._partitions):
            self.close(partition)

    def close(self, partition: int) -> None:
        """Close a partition and drop its buffer. A commit that is running may still succeed."""
        held = self._partitions.pop(partition, None)
        if held is not None:
            held.closed = True
            if held.committing is not None:
                held.committing.cancel()
            self._room.set()

    def _open_writer(self, partition: int, end: int) -> ChainWriter:
        writer = self._new_writer(Chain(self._topic, partition))
        try:
            writer.open(end)
        except RecreatedTopic as found:
            # The chain belongs to an earlier topic of this name; the records of the new topic get a chain of their own.
            log.warning("the topic was created again; a new chain begins", was=str(found.was), now=str(self._origin))
            writer = self._new_writer(Chain(f"{self._topic}~{found.now.topic}", partition))
            writer.open(end)
        return writer

    def _new_writer(self, chain: Chain) -> ChainWriter:
        return ChainWriter(self._store, chain, writer=self._writer, origin=self._origin)

    async def _take(self, held: Partition, partition: int, records: Sequence[Record]) -> Jump | None:
        wanted: list[Record] = []
        jump = None
        for record in records:
            if record.offset < held.expected:
                continue
            if record.offset > held.expected:
                jump = Jump(partition, held.expected, record.offset)
                break
            wanted.append(record)
            held.expected += 1
        upto = held.expected
        try:
            slates, unreadable = await self._with_retries(held, lambda: self._decode_or_dead_letter(wanted))
        except _Closed:
            return None
        if not held.closed and wanted:
            held.keep([slates], unreadable, [], upto, self._clock())
        return None if held.closed else jump

    def _skip(self, held: Partition, upto: int, reason: GapReason) -> None:
        if upto <= held.expected:
            return
        log.error("the topic lacks offsets; the chain records a gap", first=held.expected, next=upto, reason=reason)
        held.keep([], [], [Gap(held.expected, upto, reason)], upto, self._clock())
        held.expected = upto

    def _decode_or_dead_letter(self, records: Sequence[Record]) -> tuple[Slates, list[Unreadable]]:
        slates, unreadable = self._decode(records)
        if unreadable:
            self._dead_letter(unreadable)
        return slates, unreadable

    async def _with_retries(self, held: Partition, call: Callable[[], T]) -> T:
        """Call in a thread, and repeat the call while the store, the broker or the registry does not answer."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await in_thread(call)
            except ProducerBroken:
                raise
            except (ArchiveError, DeliveryError, RegistryUnavailable) as error:
                if held.closed:
                    raise _Closed from error
                log.warning("trying again", error=str(error), pause_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _flush(self, held: Partition) -> None:
        if held.committing is not None or held.next == held.first:
            return
        nbytes = held.nbytes
        self._in_flight += nbytes
        held.committing = asyncio.create_task(self._commit(held, held.seal()))

        def ended(_: object) -> None:
            # A callback, since a task that is cancelled before its first step runs none of its code.
            held.committing = None
            self._in_flight -= nbytes
            self._room.set()

        held.committing.add_done_callback(ended)

    async def _commit(self, held: Partition, batch: Batch) -> None:
        try:
            done = await self._with_retries(held, lambda: held.writer.commit(batch))
            if not held.closed:
                self._committed(held.writer.chain.partition, held.writer.tail.next, done)
        except (asyncio.CancelledError, _Closed):
            return
        except BaseException as error:  # noqa: BLE001 (a defect: continuing would buffer rows that are never committed)
            if not held.closed:
                self._failed(error)

    async def _wait_for_room(self) -> None:
        limit = _MEMORY_FACTOR * self._limits.bytes
        while self._in_flight and self._in_flight + sum(held.nbytes for held in self._partitions.values()) > limit:
            self._room.clear()
            await self._room.wait()
            self.flush_due()


async def in_thread(call: Callable[[], T]) -> T:
    """Run a blocking call in a daemon thread of its own: a call that hangs delays neither other calls nor the exit."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 (raised in the caller)
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            log.debug("the event loop ended before a call to the store did")

    threading.Thread(target=run, name="sink-store", daemon=True).start()
    return await answer


def _position(record: Record) -> tuple[int, int]:
    return record.partition, record.offset
