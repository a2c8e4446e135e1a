"""The explain agent: impressions in micro-batches, several in flight, offsets moved strictly in order.

The life of a batch::

    1. gathered    nothing is acknowledged but by us; a thread beside the event loop takes what is there
    2. answered    decode, explain, encode, in that thread, batch after batch
    3. sent        explanations, audits, dead letters; the next batch is answered meanwhile
    4. delivered   every output acknowledged by the broker
    5. let go      after the batch before it: offsets acknowledged, and committed within a second
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import structlog
from faust.types import TP, EventT
from prometheus_client import Histogram

from stream.agents.batch import Answer, BatchWork, Received
from stream.agents.inbox import Inbox
from stream.connections import codec_of
from stream.errors import DeliveryError
from stream.explain.pipeline import Explainer
from stream.kafka.app import WorkerApp
from stream.kafka.delivery import Delivery, Receipt, Refused
from stream.kafka.lookup import limits_of, origin_of
from stream.kafka.topics import TOPICS
from stream.settings import Settings

log = structlog.get_logger("whyrec.explain")


_GATHERED_BATCHES: Final = 4
_FULL_PAUSE_S: Final = 0.005
_DRAIN_POLL_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch on its way: what was taken, what was answered, and the broker's word on it, still to come."""

    events: list[EventT]
    batch: list[Received]
    answer: Answer
    receipt: Receipt
    sent: float


class ExplainAgent:
    """Batches in flight between Kafka and Kafka. Nothing may leave :meth:`body`: Faust would skip what it dropped."""

    def __init__(self, app: WorkerApp, work: BatchWork, delivery: Delivery) -> None:
        self._app = app
        self._work = work
        self._delivery = delivery
        settings = app.settings
        self._inbox: Inbox[EventT] = Inbox(
            settings.batch_max_slates, settings.batch_max_bytes, settings.batch_max_wait_ms / 1000
        )
        self._slots = threading.Semaphore(settings.batches_in_flight)
        self._flights: set[asyncio.Task[None]] = set()
        self._latest: asyncio.Task[None] | None = None
        self._handing_over = False

    async def body(self, stream: Any) -> None:
        """Gather messages until the application stops."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._answer_all, args=(loop,), name="explain", daemon=True).start()
        most = _GATHERED_BATCHES * self._app.settings.batch_max_slates
        stream.enable_acks = False
        try:
            async for event in stream.events():
                while len(self._inbox) >= most:  # noqa: ASYNC110 (the other side is a thread)
                    await asyncio.sleep(_FULL_PAUSE_S)
                if self._is_current(event):
                    self._inbox.put(event, len(event.message.value or b""))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever it is, going on would lose messages)
            self._app.give_up(error)

    async def drain(self, limit_s: float) -> None:
        """Finish the batches in flight and take no more until partitions are assigned again."""
        self._handing_over = True
        self._inbox.clear()  # read again by whoever comes next
        give_up = time.monotonic() + limit_s
        while (unfinished := self._inbox.unfinished) and time.monotonic() < give_up:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(_DRAIN_POLL_S)
        if unfinished:
            log.warning("batches unfinished; they will be done again", batches=unfinished, limit_s=limit_s)

    async def resume(self, _app: Any, _assigned: set[TP], **_: Any) -> None:
        """Take batches again."""
        self._handing_over = False

    def _is_current(self, event: EventT) -> bool:
        # What was read before a rebalance is read again by whoever has the partition now.
        return not self._handing_over and event.message.generation_id == self._app.consumer_generation_id

    def _answer_all(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer batch after batch; the producer's queue, when full, may hold this thread up, but never the loop."""
        try:
            while True:
                self._slots.acquire()
                current = [event for event in self._inbox.take() if self._is_current(event)]
                if not current:
                    self._end_flight()
                    continue
                flight = self._answer_and_send(current)
                loop.call_soon_threadsafe(self._take_off, flight)
        except BaseException as error:  # noqa: BLE001 (nothing was let go: whoever comes next does it again)
            if not loop.is_closed():
                self._app.give_up(error)

    def _answer_and_send(self, events: list[EventT]) -> Flight:
        metrics = self._app.metrics
        metrics.events_in.inc(len(events))
        metrics.batch.observe(len(events))
        began = time.perf_counter()
        batch = [_received(event) for event in events]
        answer = self._work.answer(batch)
        sent = time.perf_counter()
        metrics.compute.observe(sent - began)
        return Flight(events, batch, answer, self._delivery.send(answer.outputs), sent)

    def _take_off(self, flight: Flight) -> None:
        self._latest = asyncio.create_task(self._land(flight, self._latest))
        self._flights.add(self._latest)
        self._latest.add_done_callback(self._flights.discard)

    def _end_flight(self) -> None:
        self._inbox.finish()
        self._slots.release()

    async def _land(self, flight: Flight, previous: asyncio.Task[None] | None) -> None:
        batch, answer = flight.batch, flight.answer
        try:
            refused = await asyncio.wrap_future(flight.receipt.future)
            if refused:
                await self._bury(batch, answer, refused)
            self._app.metrics.delivery.observe(time.perf_counter() - flight.sent)
            if previous is not None:
                await previous
            self._let_go(flight.events, answer)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 (not delivered: no later batch may be let go either)
            self._app.give_up(error)
        finally:
            self._end_flight()

    async def _bury(self, batch: list[Received], answer: Answer, refused: Sequence[Refused]) -> None:
        burial = self._work.bury_refused(batch, answer, refused)
        answer.explained -= len(burial.owners)
        answer.dead.update(burial.dead)
        receipt = await asyncio.to_thread(self._delivery.send, burial.outputs)
        if await asyncio.wrap_future(receipt.future):
            last = self._work.bury_without_original(batch, burial)
            receipt = await asyncio.to_thread(self._delivery.send, last.outputs)
            if still := await asyncio.wrap_future(receipt.future):
                raise DeliveryError(f"the dead-letter topic takes not even a message without value: {still[0].error}")

    def _let_go(self, events: list[EventT], answer: Answer) -> None:
        generation = events[0].message.generation_id
        if generation != self._app.consumer_generation_id:
            return  # the partition was handed over meanwhile: its new owner commits
        now = time.time()
        metrics = self._app.metrics
        for event in events:
            message = event.message
            event.ack()
            self._app.finished[message.tp] = message.offset + 1
            metrics.latency.observe(max(0.0, now - message.timestamp))
        metrics.explanations.inc(answer.explained)
        for stage, count in answer.dead.items():
            metrics.dead_letters.labels(stage).inc(count)
        for (kind, status), count in answer.items.items():
            metrics.items.labels(kind, status).inc(count)
            if status == "model_mismatch":
                metrics.model_mismatch.inc(count)


def prepare(settings: Settings, resources: ExitStack) -> Callable[[WorkerApp], ExplainAgent]:
    """Load the models, connect the producer, and return what attaches the agent to an application.

    Raises:
        BundleError: the models cannot be used.

    """
    stages: list[Histogram] = []  # known once there is an application, which comes after the models

    def observe(stage: str, seconds: float) -> None:
        for histogram in stages:
            histogram.labels(stage).observe(seconds)

    explainer = Explainer.load(
        settings.bundle_dir,
        policy=settings.policy,
        threads=settings.inference_threads,
        max_exploration=settings.max_exploration,
        observe=observe,
    )
    # Compile what reads and writes Avro, or load it from the cache, before partitions come: seconds, once on a machine.
    explainer.encode(explainer.read([]))
    origin = origin_of(settings.bootstrap_servers, settings.topic("impressions"))
    topic_id = "" if origin is None else origin.topic
    limits = limits_of(settings.bootstrap_servers, [settings.topic(role) for role in TOPICS])
    work = BatchWork(explainer, codec_of(settings), settings, source_topic_id=topic_id, limits=limits)
    delivery = Delivery(
        settings.bootstrap_servers,
        timeout_s=settings.delivery_timeout_s,
        **({"smallest_limit": min(limits.values())} if limits else {}),
    )
    resources.callback(delivery.close, settings.shutdown_timeout_s)

    def attach_measured(app: WorkerApp) -> ExplainAgent:
        stages.append(app.metrics.stage)
        return attach(app, work, delivery)

    return attach_measured


def attach(app: WorkerApp, work: BatchWork, delivery: Delivery) -> ExplainAgent:
    """Add the agent to the application, on the impressions' topic, concurrency 1."""
    agent = ExplainAgent(app, work, delivery)
    app.agent(app.input_topic(app.settings.topic("impressions"), acks=True), concurrency=1, name="explain")(agent.body)
    app.at_drain.append(agent.drain)
    app.on_partitions_assigned.connect(agent.resume)
    return agent


def _received(event: EventT) -> Received:
    message = event.message
    return Received(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value,
        [(name, value) for name, value in message.headers or ()],
    )
