"""The sink's state between Kafka and the archive: one buffer and one chain for each assigned partition.

It knows nothing of Faust. Whoever reads the topic calls :meth:`Sink.open` for each partition it was given, begins
reading where that says, hands over what it reads, and calls :meth:`Sink.drain` before it gives the partitions up.

The state of a partition moves through four offsets, each at or behind the one before it::

    expected ─ next offset to accept │ next ─ decoded up to │ sealed up to, on its way │ writer.tail.next ─ archived
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
"""What may be held, on its way to the store included, as a multiple of ``Limits.bytes``."""


class ArchiveAhead(ArchiveError):
    """The archive has offsets that the topic does not: the topic is not the one that was archived."""


class _Closed(Exception):
    """The partition was given up meanwhile."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When buffered rows are written: whichever comes first. ``bytes`` is of all partitions together."""

    rows: int = 1_000_000
    bytes: int = 128 * 1024 * 1024
    age_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Jump:
    """A partition went on at another offset than expected: it must be read again from ``expected``."""

    partition: int
    expected: int
    found: int


@dataclass(slots=True, eq=False)
class Partition:
    """One assigned partition: its chain and what is buffered."""

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
        """Buffer everything before offset ``upto``."""
        self.parts.extend(parts)
        self.rejected.extend((each.record.offset, each.record.offset + 1) for each in unreadable)
        self.gaps.extend(gaps)
        self.rows += sum(part.table.num_rows for part in parts)
        self.nbytes += sum(part.nbytes for part in parts)
        self.next = upto
        if self.since is None:
            self.since = now

    def seal(self) -> Batch:
        """Take what is buffered out."""
        batch = Batch(self.first, self.next, joined(self.parts), Intervals.of(self.rejected), tuple(self.gaps))
        self.first = self.next
        self.parts, self.rejected, self.gaps = [], [], []
        self.rows = self.nbytes = 0
        self.since = None
        return batch


class Sink:
    """Buffers of all assigned partitions. All methods are called on one event loop; the store is used in threads."""

    def __init__(
        self,
        store: Store,
        topic: str,
        *,
        writer: str,
        decode: Callable[[Sequence[Record]], tuple[Slates, list[Unreadable]]],
        bury: Callable[[Sequence[Unreadable]], None],
        committed: Callable[[int, int, Committed], None],
        failed: Callable[[BaseException], None],
        limits: Limits | None = None,
        origin: Origin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty sink.

        ``bury`` delivers what cannot be read to the dead letters, and may block. ``committed`` is told the partition,
        its next offset and what was written; ``failed`` of errors that no retry can mend.
        """
        self._store = store
        self._topic = topic
        self._writer = writer
        self._decode = decode
        self._bury = bury
        self._committed = committed
        self._failed = failed
        self._limits = limits or Limits()
        self._origin = origin
        self._clock = clock
        self._partitions: dict[int, Partition] = {}
        self._in_flight = 0
        self._relief = asyncio.Event()

    async def open(self, partition: int, start: int, end: int) -> int:
        """Read where a partition's chain ends and return the offset at which to go on.

        ``start`` and ``end`` are the first offset that the topic still holds and the next it will give out. What was
        buffered of the partition is dropped.

        Raises:
            ArchiveAhead: the chain ends beyond ``end``.
            ArchiveError: the store does not answer, or the chain is not ours to continue.

        """
        self.close(partition)
        writer = await in_thread(lambda: self._open_writer(partition, end))
        at = writer.tail.next
        self._partitions[partition] = Partition(writer, first=at, next=at, expected=at)
        return await self.go_on(partition, start, end)

    async def go_on(self, partition: int, start: int, end: int, there: int | None = None) -> int:
        """Like :meth:`open`, but keep what is buffered of a partition that is open already.

        ``there`` is the first offset, from the expected one on, that the topic was found to hold; None: not looked.
        """
        held = self._partitions.get(partition)
        if held is None:
            return await self.open(partition, start, end)
        if held.expected > end:
            self.close(partition)
            raise ArchiveAhead(
                f"{held.writer.chain.prefix} ends at offset {held.expected}, but {self._topic}/{partition} at {end}: "
                "was the topic deleted and made anew? Give it an archive URL of its own"
            )
        self._skip(held, start, "expired")
        self._skip(held, there or 0, "absent")
        return held.expected

    def expected(self, partition: int) -> int | None:
        """Return the next offset that is wanted of a partition; None if it is not open."""
        held = self._partitions.get(partition)
        return None if held is None else held.expected

    async def take(self, records: Iterable[Record]) -> list[Jump]:
        """Buffer what was read, and return where reading must go back. Waits while too much is held."""
        jumps: list[Jump] = []
        for partition, group in groupby(sorted(records, key=_place), key=lambda record: record.partition):
            held = self._partitions.get(partition)
            if held is not None:
                jump = await self._take(held, partition, list(group))
                if jump is not None:
                    jumps.append(jump)
        self.flush_due()
        await self._wait_for_room()
        return jumps

    def flush_due(self) -> None:
        """Begin to write what is old or large enough; to be called about once a second."""
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
        """Write everything, for at most ``limit_s`` seconds, and let go of all partitions."""
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
            log.warning("not archived in time; whoever comes next reads it again", partitions=unwritten)
        for partition in list(self._partitions):
            self.close(partition)

    def close(self, partition: int) -> None:
        """Forget a partition. A write on its way may still succeed, and then counts."""
        held = self._partitions.pop(partition, None)
        if held is not None:
            held.closed = True
            if held.committing is not None:
                held.committing.cancel()
            self._relief.set()

    def _open_writer(self, partition: int, end: int) -> ChainWriter:
        writer = self._new_writer(Chain(self._topic, partition))
        try:
            writer.open(end)
        except RecreatedTopic as found:
            # The name is the old topic's, the records are not: they get a chain of their own.
            log.warning("the topic was made anew; a new chain begins", was=str(found.was), now=str(self._origin))
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
            slates, unreadable = await self._patiently(held, lambda: self._decode_and_bury(wanted))
        except _Closed:
            return None
        if not held.closed and wanted:
            held.keep([slates], unreadable, [], upto, self._clock())
        return None if held.closed else jump

    def _skip(self, held: Partition, upto: int, reason: GapReason) -> None:
        if upto <= held.expected:
            return
        log.error("the topic lacks offsets; the chain says so", first=held.expected, next=upto, reason=reason)
        held.keep([], [], [Gap(held.expected, upto, reason)], upto, self._clock())
        held.expected = upto

    def _decode_and_bury(self, records: Sequence[Record]) -> tuple[Slates, list[Unreadable]]:
        slates, unreadable = self._decode(records)
        if unreadable:
            self._bury(unreadable)
        return slates, unreadable

    async def _patiently(self, held: Partition, call: Callable[[], T]) -> T:
        """Call in a thread, again and again while somebody else is away."""
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
            # Not in the task itself: one that is cancelled before its first step runs nothing.
            held.committing = None
            self._in_flight -= nbytes
            self._relief.set()

        held.committing.add_done_callback(ended)

    async def _commit(self, held: Partition, batch: Batch) -> None:
        try:
            done = await self._patiently(held, lambda: held.writer.commit(batch))
            if not held.closed:
                self._committed(held.writer.chain.partition, held.writer.tail.next, done)
        except (asyncio.CancelledError, _Closed):
            return
        except BaseException as error:  # noqa: BLE001 (a defect: going on would pile up rows that never get written)
            if not held.closed:
                self._failed(error)

    async def _wait_for_room(self) -> None:
        limit = _MEMORY_FACTOR * self._limits.bytes
        while self._in_flight and self._in_flight + sum(held.nbytes for held in self._partitions.values()) > limit:
            self._relief.clear()
            await self._relief.wait()
            self.flush_due()


async def in_thread(call: Callable[[], T]) -> T:
    """Run a blocking call in a daemon thread of its own: one that hangs can neither hold up others nor the end."""
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
        except BaseException as error:  # noqa: BLE001 (handed to whoever waits)
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            log.debug("the event loop ended before a call to the store did")

    threading.Thread(target=run, name="sink-store", daemon=True).start()
    return await answer


def _place(record: Record) -> tuple[int, int]:
    return record.partition, record.offset
