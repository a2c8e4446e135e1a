"""The sink agent: audit records from Kafka to the archive. The archive, not Kafka, says which offset comes next.

Faust neither tracks nor commits the offsets of the topic (``acks=False``). The life of a partition here:

1. Assign: the sink opens the commit chain of the partition and reading begins where the chain ends. Where the archive
   or the broker does not answer, the partition is paused and opened later.
2. Take: records go to :class:`stream.archive.writing.sink.Sink`, which writes objects and commit entries. If an offset
   is missing, the sink reads that part of the partition again.
3. Tell: archived offsets are committed to Kafka, so that people see the lag. Nothing here reads them.
4. Drain: before a rebalance takes the partition away, the sink writes what it holds.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted
from faust.types import TP, EventT

from stream.agents import dead_letters
from stream.agents.dead_letters import DeadLetter
from stream.archive.log.commitlog import Origin
from stream.archive.objects import Store
from stream.archive.store import open_archive
from stream.archive.writing.decode import Decoder, Record, Unreadable
from stream.archive.writing.sink import Jump, Limits, Sink, in_thread
from stream.archive.writing.writer import Committed
from stream.connections import codec_of
from stream.errors import ArchiveError
from stream.kafka.app import WorkerApp, WorkerConsumer
from stream.kafka.delivery import Delivery
from stream.kafka.lookup import first_offset, origin_of
from stream.metrics import Metrics
from stream.settings import Settings

log = structlog.get_logger("whyrec.sink")

_TAKE: Final = 512
_TAKE_WITHIN_S: Final = 0.25
_TICK_S: Final = 1.0
_OPEN_LIMIT_S: Final = 15.0
_COMMIT_LIMIT_S: Final = 5.0
_SETTLE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 30.0
_STAGE: Final = "archive"


class SinkAgent:
    """Ties a :class:`stream.archive.writing.sink.Sink` to a worker's application."""

    def __init__(
        self, app: WorkerApp, store: Store, decoder: Decoder, delivery: Delivery, origin: Origin | None = None
    ) -> None:
        settings = app.settings
        self._app = app
        self._topic = settings.topic("audit")
        self._dead_letters = settings.topic("dead_letters")
        self._delivery = delivery
        self._consumer: WorkerConsumer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._uncommitted: dict[int, int] = {}
        self._handed_over = False
        self._going_back: dict[int, asyncio.Task[None]] = {}
        self.sink = Sink(
            store,
            self._topic,
            writer=f"{settings.worker_name}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
            decode=decoder.decode,
            dead_letter=self._deliver_dead_letters,
            committed=self._note,
            failed=app.give_up,
            limits=Limits(settings.flush_max_rows, settings.flush_max_bytes, settings.flush_max_age_s),
            origin=origin,
        )

    async def body(self, stream: Any) -> None:
        """Take records until the application stops."""
        try:
            async for events in stream.noack_take(_TAKE, within=_TAKE_WITHIN_S):
                self._open_unopened(events)
                for jump in await self.sink.take(map(_record, events)):
                    self._go_back(jump)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 (to go on would lose records, whatever the error)
            self._app.give_up(error)

    async def resume(self, consumer: WorkerConsumer) -> None:
        """After an assignment, open the commit chains and seek to their ends; open later what cannot be opened now."""
        self._consumer = consumer
        self._handed_over = False
        self._start_ticking()
        self._app.metrics.stuck.clear()
        mine = {tp for tp in consumer.assignment() if tp.topic == self._topic}
        if not mine:
            return
        try:
            # Faust abandons this method silently after the request timeout, which is also how long aiokafka waits.
            async with asyncio.timeout(_OPEN_LIMIT_S):
                starts, ends = await consumer.earliest_offsets(*mine), await consumer.highwaters(*mine)
        except (KafkaError, TimeoutError) as error:
            for tp in mine:
                self._say_stuck(tp, error)
                self._begin_later(consumer, tp)
            return

        async def begin(tp: TP) -> None:
            try:
                async with asyncio.timeout(_OPEN_LIMIT_S):
                    at = await self.sink.open(tp.partition, starts[tp], ends[tp])
            except (ArchiveError, TimeoutError) as error:
                self._say_stuck(tp, error)
                self._begin_later(consumer, tp)
            else:
                await consumer.seek(tp, at)
                self._say_open(tp, at)

        await asyncio.gather(*(begin(tp) for tp in mine))

    async def drain(self, limit_s: float) -> None:
        """Write what the sink holds and release the partitions."""
        self._handed_over = True
        for task in list(self._going_back.values()):
            task.cancel()
        await self.sink.drain(limit_s)
        self._app.metrics.stuck.clear()
        await self._commit_archived()

    def _open_unopened(self, events: Sequence[EventT]) -> None:
        """Open partitions that :meth:`resume` did not reach before Faust abandoned it."""
        if self._handed_over:
            return
        for tp in {event.message.tp for event in events if self._is_current(event.message.generation_id)}:
            if self.sink.expected(tp.partition) is None and tp.partition not in self._going_back:
                log.warning("records of a partition that was never opened", partition=tp.partition)
                self._begin_later(self._app.consumer, tp, pause_s=0.0)

    def _is_current(self, generation: int | None) -> bool:
        return generation == self._app.consumer_generation_id

    def _go_back(self, jump: Jump) -> None:
        if self._consumer is not None and jump.partition not in self._going_back:
            log.warning("reading again", partition=jump.partition, expected=jump.expected, found=jump.found)
            self._begin_later(self._consumer, TP(self._topic, jump.partition), pause_s=0.0)

    def _begin_later(self, consumer: WorkerConsumer, tp: TP, pause_s: float = 1.0) -> None:
        """Stop reading a partition, and begin again as soon as the archive and the broker answer."""
        consumer.stop_reading(tp)
        previous = self._going_back.pop(tp.partition, None)
        if previous is not None:
            previous.cancel()
        task = asyncio.create_task(self._begin_again(consumer, tp, pause_s))
        self._going_back[tp.partition] = task

        def ended(_: object) -> None:
            if self._going_back.get(tp.partition) is task:
                del self._going_back[tp.partition]

        task.add_done_callback(ended)
        task.add_done_callback(self._check)

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._app.give_up(error)

    async def _begin_again(self, consumer: WorkerConsumer, tp: TP, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s + 1.0, _LONGEST_PAUSE_S)
            try:
                await self._seek(consumer, tp)
            except (ArchiveError, KafkaError) as error:
                self._say_stuck(tp, error)
            else:
                log.info("the archive goes on", partition=tp.partition)
                return

    async def _seek(self, consumer: WorkerConsumer, tp: TP) -> None:
        expected = self.sink.expected(tp.partition)
        there = None
        if expected is not None:
            # Only the broker can say that an offset does not exist: a record that was read may have been dropped since.
            there = await in_thread(lambda: first_offset(self._app.settings, self._topic, tp.partition, expected))
        starts, ends = await consumer.earliest_offsets(tp), await consumer.highwaters(tp)
        at = await self.sink.resume(tp.partition, starts[tp], ends[tp], there)
        # A message that Faust hands over during the seek sets the read position forward again, and Faust then drops the
        # messages before it. The partition is paused, so the second attempt succeeds.
        while True:
            await consumer.seek(tp, at)
            await asyncio.sleep(_SETTLE_S)
            if consumer.read_position(tp) in (None, at):
                break
        self._say_open(tp, at)
        consumer.resume_partitions({tp})

    def _say_open(self, tp: TP, at: int) -> None:
        self._app.finished[tp] = at
        self._uncommitted[tp.partition] = at  # the worker that archived it may have ended before its commit
        self._app.metrics.stuck.labels(tp.partition).set(0)

    def _say_stuck(self, tp: TP, error: Exception) -> None:
        self._app.metrics.stuck.labels(tp.partition).set(1)
        log.error("the archive can't be continued yet", partition=tp.partition, error=str(error) or "no answer")

    def _start_ticking(self) -> None:
        if not self._tasks:
            task = asyncio.create_task(self._tick())
            task.add_done_callback(self._check)
            self._tasks.add(task)

    async def _tick(self) -> None:
        # Not one of Faust's timers, which stop before the last flush.
        while True:
            await asyncio.sleep(_TICK_S)
            self.sink.flush_due()
            await self._commit_archived()

    def _note(self, partition: int, following: int, done: Committed) -> None:
        metrics = self._app.metrics
        metrics.commits.inc(len(done.own))
        metrics.archived.inc(sum(entry.rows for entry in done.own))
        metrics.repeats.inc(sum(entry.repeats for entry in done.own))
        metrics.implausible.inc(done.implausible)
        self._app.finished[TP(self._topic, partition)] = following
        self._uncommitted[partition] = following
        for entry in done.own:
            for gap in entry.gaps:
                metrics.gaps.labels(gap.reason).inc(gap.next - gap.first)
            log.info(
                "archived",
                partition=partition,
                first=entry.first,
                next=entry.next,
                rows=entry.rows,
                objects=len(entry.objects),
                repeats=entry.repeats,
                rejected=len(entry.rejected),
            )

    async def _commit_archived(self) -> None:
        """Commit archived offsets to Kafka, for people who watch its lag."""
        if self._consumer is None or not self._uncommitted:
            return
        archived, self._uncommitted = self._uncommitted, {}
        offsets = {TP(self._topic, partition): at for partition, at in archived.items()}
        try:
            async with asyncio.timeout(_COMMIT_LIMIT_S):
                await self._consumer.commit_offsets(offsets)
        except (KafkaError, ConsumerNotStarted, TimeoutError) as error:
            log.debug("Kafka does not accept the archived offsets", error=str(error))
            self._uncommitted = archived | self._uncommitted

    def _deliver_dead_letters(self, unreadable: Sequence[Unreadable]) -> None:
        """Deliver records that cannot be read to the dead letters. Called in a thread.

        Raises:
            DeliveryError: not delivered; no commit entry may call the records rejected.

        """
        for each in unreadable:
            log.warning("dead letter", stage=_STAGE, error=each.error, topic=self._topic,
                        partition=each.record.partition, offset=each.record.offset)  # fmt: skip
        letters = [DeadLetter(self._topic, each.record, _STAGE, each.error) for each in unreadable]
        dead_letters.deliver(letters, self._delivery, self._dead_letters)
        self._app.metrics.dead_letters.labels(_STAGE).inc(len(unreadable))


def prepare(settings: Settings, resources: ExitStack, _metrics: Metrics) -> Callable[[WorkerApp], SinkAgent]:
    """Connect the store, the codec and the producer, and return the function that attaches the agent to an application.

    Raises:
        ConfigurationError: the URL of the archive cannot be used, or no broker answers.

    """
    store = open_archive(settings)
    decoder = Decoder(codec_of(settings))
    delivery = Delivery(settings)
    resources.callback(delivery.close, settings.shutdown_timeout_s)
    origin = origin_of(settings, settings.topic("audit"))
    return lambda app: attach(app, store, decoder, delivery, origin)


def attach(
    app: WorkerApp, store: Store, decoder: Decoder, delivery: Delivery, origin: Origin | None = None
) -> SinkAgent:
    """Attach the sink agent to an application."""
    agent = SinkAgent(app, store, decoder, delivery, origin)
    topic = app.input_topic(app.settings.topic("audit"), acks=False)
    app.agent(topic, name="whyrec.sink", concurrency=1)(agent.body)
    app.at_drain.append(agent.drain)
    app.seek_when_assigned.append(agent.resume)
    return agent


def _record(event: EventT) -> Record:
    message = event.message
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Record(
        message.partition,
        message.offset,
        message.key,
        message.value,
        [(name, bytes(value or b"")) for name, value in pairs],
    )
