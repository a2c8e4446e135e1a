"""The Faust application of a worker: how it consumes, hands partitions over, and ends.

It differs from Faust's default in three ways, because the default was observed to lose or repeat messages:

1. Before a rebalance takes partitions away, the agents finish the batches in flight and their offsets are committed.
   Faust would forget its acknowledgements first, and then wait without a time limit (``stream_wait_empty``, off here).
2. After partitions are assigned, an agent may set the offset at which reading begins (``seek_when_assigned``). The
   sink reads this offset from the archive. Faust overwrites or ignores a seek at any other time.
3. An error that cannot be repaired ends the process at once with status 1, and nothing more is committed. The
   supervisor starts another process, which begins at the last committed offset.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError
from faust.app.base import BootStrategy
from faust.exceptions import ConsumerNotStarted
from faust.sensors import Monitor
from faust.types import TP

from stream.kafka.border import BorderApp, BorderConsumer
from stream.metrics import Metrics, MetricsServer
from stream.settings import Settings

Drain = Callable[[float], Awaitable[None]]
Seek = Callable[["WorkerConsumer"], Awaitable[None]]

EXIT_FAILED: Final = 1
_COMMIT_EVERY_S: Final = 1.0
_WATCH_EVERY_S: Final = 1.0
_EXIT_GRACE_S: Final = 5.0
_LOOK_LIMIT_S: Final = 8.0

log = structlog.get_logger("whyrec.worker")


class WorkerConsumer(BorderConsumer):
    """Faust's consumer, with the order of steps at a rebalance that the module's docstring gives."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish what is in flight and commit, before Faust forgets what was acknowledged."""
        self.stop_flow()
        # After the session timeout the group continues without this worker, and the broker refuses its commits.
        await self.app.drain(self.app.conf.broker_session_timeout / 2)
        await self.commit_all()
        await super().on_partitions_revoked(revoked)

    async def commit_all(self) -> None:
        """Commit everything acknowledged so far."""
        # During a commit, a second call only waits for the first one, which may have begun before the last
        # acknowledgement.
        await self.commit()
        await self.commit()

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, else to the beginning; then to the offsets that agents ask for.

        aiokafka does not seek where no offset is committed. Messages that were read and dropped during a rebalance
        would then never be read again.
        """
        await super().perform_seek()
        try:
            # Faust abandons this method silently after the request timeout, which is also how long aiokafka waits.
            async with asyncio.timeout(_LOOK_LIMIT_S):
                await begin_at_first(self)
        except (KafkaError, TimeoutError) as error:
            log.warning("the broker does not say where partitions begin", error=str(error) or "no answer")
        for seek in self.app.seek_when_assigned:
            await seek(self)


async def begin_at_first(consumer: WorkerConsumer) -> None:
    """Seek to the first offset of each partition without a committed offset, and note where the lag counts from.

    Only partitions whose offsets Faust commits are concerned; the sink sets its own positions.
    """
    app = consumer.app
    tracked = {tp for tp in consumer.assignment() if app.topics.acks_enabled_for(tp.topic)}
    if not tracked:
        return
    starts = await consumer.earliest_offsets(*tracked)
    for tp in tracked:
        committed = consumer.committed(tp)
        if not committed:
            await consumer.seek(tp, starts[tp])
        # The lag is known from here on, even if no event is ever finished.
        app.finished.setdefault(tp, max(starts[tp], committed or 0))


class _SilentMonitor(Monitor):
    """Faust's statistics without those of each event; ``stream/metrics.py`` has the metrics that are published."""

    def on_message_in(self, tp: TP, offset: int, message: Any) -> None:
        """Note nothing."""

    def on_stream_event_in(self, tp: TP, offset: int, stream: Any, event: Any) -> None:
        """Note nothing."""

    def on_stream_event_out(self, tp: TP, offset: int, stream: Any, event: Any, state: Any = None) -> None:
        """Note nothing."""

    def on_message_out(self, tp: TP, offset: int, message: Any) -> None:
        """Note nothing."""


class _ConsumeOnly(BootStrategy):
    """Start no producer: outputs go through confluent-kafka."""

    enable_kafka_producer = False
    enable_web = False


class WorkerApp(BorderApp):
    """The application that the agents are attached to.

    Attributes:
        finished: by partition, the offset after the last event that its agent has finished; the lag counts from it.
        at_drain: called with a number of seconds, before a rebalance takes partitions away and before the end. Each
            finishes what is in flight; it must never acknowledge what is unfinished after this time.
        seek_when_assigned: called with the consumer after each assignment, before reading begins.
        is_ready: whether partitions are assigned.

    """

    BootStrategy = _ConsumeOnly
    consumer_class = WorkerConsumer

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.finished: dict[TP, int] = {}
        self.at_drain: list[Drain] = []
        self.seek_when_assigned: list[Seek] = []
        self.is_ready = False
        super().__init__(
            settings.consumer_group,
            fetch_min_bytes=settings.fetch_min_bytes,
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            broker=";".join(f"kafka://{address.strip()}" for address in settings.bootstrap_servers.split(",")),
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            consumer_group_instance_id=settings.instance_id,
            broker_session_timeout=settings.session_timeout_s,
            broker_heartbeat_interval=settings.session_timeout_s / 4,
            broker_request_timeout=max(40.0, settings.session_timeout_s + 5),
            broker_commit_interval=_COMMIT_EVERY_S,
            stream_wait_empty=False,
            stream_buffer_maxsize=4 * settings.batch_max_slates,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            Monitor=_SilentMonitor,
        )
        self.on_partitions_assigned.connect(self._when_assigned)

    def input_topic(self, name: str, *, acks: bool) -> Any:
        """Return a topic whose keys and values arrive as bytes. With ``acks`` False, Faust commits nothing of it."""
        return self.topic(
            name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=acks
        )

    async def drain(self, limit_s: float) -> None:
        """Let each agent finish what is in flight, within ``limit_s`` seconds."""
        self.is_ready = False
        for finish in self.at_drain:
            await finish(limit_s)

    async def on_stop(self) -> None:
        """Finish what is in flight and commit, before Faust stops its services."""
        with contextlib.suppress(ConsumerNotStarted):
            self.consumer.assignment()
            self.consumer.stop_flow()
            await self.drain(self.settings.shutdown_timeout_s)
            await self.consumer.commit_all()
        await super().on_stop()

    def give_up(self, reason: BaseException) -> None:
        """End the process now and commit nothing more; the next worker repeats what is unfinished."""
        log.critical(
            "giving up; the next worker repeats what is not committed",
            error=str(reason),
            kind=type(reason).__name__,
            exc_info=reason,
        )
        logging.shutdown()
        sys.stderr.flush()
        os._exit(EXIT_FAILED)

    async def _when_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        self.finished = {tp: at for tp, at in self.finished.items() if tp in assigned}
        self.metrics.lag.clear()
        self.is_ready = True
        log.info("partitions assigned", partitions=sorted(f"{tp.topic}/{tp.partition}" for tp in assigned))

    async def watch(self) -> None:
        """Keep the lag gauge up to date, and raise the error that ended the membership in the consumer group."""
        while not self.should_stop:
            await asyncio.sleep(_WATCH_EVERY_S)
            with contextlib.suppress(ConsumerNotStarted):
                self.consumer.check_group()
                for tp in self.consumer.assignment():
                    end = self.consumer.highwater(tp)
                    at = self.finished.get(tp)
                    if end is not None and at is not None:
                        self.metrics.lag.labels(tp.topic, tp.partition).set(max(0, end - at))

    async def until_idle(self, idle_s: float) -> None:
        """Return when partitions are assigned and no agent has finished an event for ``idle_s`` seconds."""
        seen, since = dict(self.finished), time.monotonic()
        while not self.is_ready or time.monotonic() - since < idle_s:
            await asyncio.sleep(_WATCH_EVERY_S)
            if not self.is_ready or self.finished != seen:
                seen, since = dict(self.finished), time.monotonic()


def serve(build: Callable[[], WorkerApp], until_idle_s: float | None = None) -> int:
    """Run the application that ``build`` returns until SIGTERM or SIGINT, and return the exit status.

    ``build`` is called inside the event loop. With ``until_idle_s``, the application also ends, in the same order,
    when it has been idle for so many seconds. A second signal ends the process at once, and so does a shutdown that
    takes longer than the shutdown timeout.
    """
    return asyncio.run(_serve(build, until_idle_s))


async def _serve(build: Callable[[], WorkerApp], until_idle_s: float | None) -> int:
    app = build()
    app.finalize()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _request_stop, stopping, number)
    server = MetricsServer(app.metrics, lambda: app.is_ready, app.settings.metrics_host, app.settings.metrics_port)
    with server:
        log.info("worker starts", metrics=f"http://{server.host}:{server.port}/metrics", pid=os.getpid())
        running = asyncio.create_task(_run(app))
        asked = asyncio.create_task(stopping.wait())
        reasons = {running, asked}
        if until_idle_s is not None:
            reasons.add(asyncio.create_task(app.until_idle(until_idle_s)))
        await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            app.give_up(running.exception() or app.crash_reason or RuntimeError("the application stopped by itself"))
        with _limit_to_the_end(app.settings.shutdown_timeout_s):
            await app.stop()
        running.cancel()
        log.info("worker ended")
    return 0


async def _run(app: WorkerApp) -> None:
    watching = asyncio.create_task(app.watch())
    serving = asyncio.create_task(_start_and_wait(app))
    done, _ = await asyncio.wait((watching, serving), return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _start_and_wait(app: WorkerApp) -> None:
    await app.start()  # returns after partitions were assigned
    await app.wait_until_stopped()


def _request_stop(stopping: asyncio.Event, number: signal.Signals) -> None:
    if stopping.is_set():
        log.warning("second signal: ending at once", signal=number.name)
        os._exit(EXIT_FAILED)
    log.info("finishing what is in flight", signal=number.name)
    stopping.set()


@contextlib.contextmanager
def _limit_to_the_end(timeout_s: float) -> Iterator[None]:
    """End the process if its shutdown takes longer than both agents may take to drain."""
    watchdog = threading.Timer(2 * timeout_s + _EXIT_GRACE_S, _too_long)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


def _too_long() -> None:
    log.critical("the shutdown took too long; the next worker repeats what is not committed")
    os._exit(EXIT_FAILED)
