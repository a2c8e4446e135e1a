"""The explain agent: impressions in micro-batches, several in flight, acknowledged strictly in order.

The life of a batch:

1. Gather: messages wait in the inbox until a thread beside the event loop takes them together.
2. Answer: that thread decodes, explains and encodes them, batch after batch.
3. Send the audit records; the thread answers the next batch meanwhile.
4. Send the explanations of slates whose audit records the broker has acknowledged, in the order of the batches.
5. Deliver dead letters for slates that could not be explained or of which the broker refused an output.
6. Acknowledge the messages, after those of the batch before. Faust commits their offsets within a second.

Why audit records go first: whatever is shown must be archived. The broker may refuse an audit record for its size, if
it does not tell the limit of the topic or if somebody has lowered the limit since the worker asked. An explanation
that was sent together with this record would then be shown and never archived. A refused explanation does less harm:
its record is archived although nothing was shown, and the dead letter says so.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import structlog
from faust.types import TP, EventT

from models.bundle import Bundle
from models.data.synthetic import SyntheticSlates
from schemas.codec import Codec
from stream.agents import dead_letters
from stream.agents.batch import Answer, BatchWork, Received, refuse
from stream.agents.bundle_store import BundleStore
from stream.agents.inbox import Inbox
from stream.agents.isolation import IsolatingExplainer
from stream.agents.live import ControlFollower, LiveExplainers
from stream.agents.warm_up import warm_up
from stream.archive.store import open_bundles
from stream.connections import codec_of
from stream.explain.pipeline import Explainer
from stream.kafka.app import WorkerApp
from stream.kafka.clients import BATCH_BYTES
from stream.kafka.control import ControlTopic
from stream.kafka.delivery import Delivery, Receipt
from stream.kafka.lookup import limits_of, origin_of
from stream.kafka.topics import TOPICS
from stream.metrics import Metrics
from stream.settings import Settings

log = structlog.get_logger("whyrec.explain")

_GATHERED_BATCHES: Final = 4
_FULL_PAUSE_S: Final = 0.005
_DRAIN_POLL_S: Final = 0.005
_REFERENCE_EVENTS: Final = 8
_REFERENCE_ITEMS: Final = 20


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch in flight: its messages, what to send for them, and the receipt of the audit records."""

    events: list[EventT]
    batch: list[Received]
    answer: Answer
    audits: Receipt
    began_sending: float
    explanations_sent: asyncio.Event = field(default_factory=asyncio.Event)
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)


class ExplainAgent:
    """Batches in flight between Kafka and Kafka.

    An exception never leaves :meth:`body`: Faust would go on and skip the messages. The agent ends the process instead.
    """

    def __init__(self, app: WorkerApp, work: BatchWork, delivery: Delivery) -> None:
        self._app = app
        self._work = work
        self._delivery = delivery
        settings = app.settings
        self._dead_letters = settings.topic("dead_letters")
        self._inbox: Inbox[EventT] = Inbox(
            settings.batch_max_slates, settings.batch_max_bytes, settings.batch_max_wait_ms / 1000
        )
        self._slots = threading.Semaphore(settings.batches_in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._latest: Flight | None = None
        self._handing_over = False

    async def body(self, stream: Any) -> None:
        """Gather messages until the application stops."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._answer_all, args=(loop,), name="explain", daemon=True).start()
        most = _GATHERED_BATCHES * self._app.settings.batch_max_slates
        stream.enable_acks = False
        try:
            async for event in stream.events():
                while len(self._inbox) >= most:  # noqa: ASYNC110 (a thread takes from the inbox)
                    await asyncio.sleep(_FULL_PAUSE_S)
                if self._is_current(event):
                    self._inbox.put(event, len(event.message.value or b""))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 (to go on would lose messages, whatever the error)
            self._app.give_up(error)

    async def drain(self, limit_s: float) -> None:
        """Finish the batches in flight and take no more until partitions are assigned again."""
        self._handing_over = True
        self._inbox.clear()  # the next owner of the partition reads them again
        give_up = time.monotonic() + limit_s
        while (unfinished := self._inbox.unfinished) and time.monotonic() < give_up:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(_DRAIN_POLL_S)
        if unfinished:
            log.warning("batches are unfinished and will be repeated", batches=unfinished, limit_s=limit_s)

    async def resume(self, _app: Any, _assigned: set[TP], **_: Any) -> None:
        """Take batches again."""
        self._handing_over = False

    def _is_current(self, event: EventT) -> bool:
        # After a rebalance the owner of the partition reads again what was read before it.
        return not self._handing_over and event.message.generation_id == self._app.consumer_generation_id

    def _answer_all(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer batch after batch. A full queue of the producer may block this thread, but never the event loop."""
        try:
            while True:
                self._slots.acquire()
                current = [event for event in self._inbox.take() if self._is_current(event)]
                if not current:
                    self._end_flight()
                    continue
                flight = self._answer_and_send(current)
                loop.call_soon_threadsafe(self._follow, flight)
        except BaseException as error:  # noqa: BLE001 (nothing was acknowledged: the next worker repeats it)
            if not loop.is_closed():
                self._app.give_up(error)

    def _answer_and_send(self, events: list[EventT]) -> Flight:
        metrics = self._app.metrics
        metrics.events_in.inc(len(events))
        metrics.batch.observe(len(events))
        began = time.perf_counter()
        batch = [_received(event) for event in events]
        answer = self._work.answer(batch)
        began_sending = time.perf_counter()
        metrics.compute.observe(began_sending - began)
        audits = self._delivery.send([slate.audit for slate in answer.slates.values()])
        return Flight(events, batch, answer, audits, began_sending)

    def _follow(self, flight: Flight) -> None:
        task = asyncio.create_task(self._finish(flight, self._latest))
        self._latest = flight
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_flight(self) -> None:
        self._inbox.finish()
        self._slots.release()

    async def _finish(self, flight: Flight, previous: Flight | None) -> None:
        try:
            await self._deliver(flight, previous)
            self._app.metrics.delivery.observe(time.perf_counter() - flight.began_sending)
            if previous is not None:
                await previous.acknowledged.wait()
            self._acknowledge(flight)
            flight.acknowledged.set()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 (not delivered: no later batch may be acknowledged either)
            self._app.give_up(error)
        finally:
            self._end_flight()

    async def _deliver(self, flight: Flight, previous: Flight | None) -> None:
        """Take steps 3 to 5; return when the broker has acknowledged all outputs, or a dead letter, of each message."""
        batch, answer = flight.batch, flight.answer
        places = list(answer.slates)
        for refused in await asyncio.wrap_future(flight.audits.future):
            refuse(answer, batch, places[refused.index], f"the audit record ({refused.error})")
        if previous is not None:
            await previous.explanations_sent.wait()
        places = list(answer.slates)
        explanations = [slate.explanation for slate in answer.slates.values()]
        receipt = await asyncio.to_thread(self._delivery.send, explanations)
        flight.explanations_sent.set()
        for refused in await asyncio.wrap_future(receipt.future):
            error = f"the explanation ({refused.error}), whose audit record was already sent and is archived"
            refuse(answer, batch, places[refused.index], error)
        if answer.dead_letters:
            letters = list(answer.dead_letters.values())
            await asyncio.to_thread(dead_letters.deliver, letters, self._delivery, self._dead_letters)

    def _acknowledge(self, flight: Flight) -> None:
        """Step 6. Only what was delivered is counted."""
        generation = flight.events[0].message.generation_id
        if generation != self._app.consumer_generation_id:
            return  # the partition was handed over meanwhile, and its new owner commits
        now = time.time()
        metrics = self._app.metrics
        for event in flight.events:
            message = event.message
            event.ack()
            self._app.finished[message.tp] = message.offset + 1
            metrics.latency.observe(max(0.0, now - message.timestamp))
        metrics.explanations.inc(len(flight.answer.slates))
        for letter in flight.answer.dead_letters.values():
            metrics.dead_letters.labels(letter.stage).inc()
        for version, count in Counter(slate.model_version for slate in flight.answer.slates.values()).items():
            metrics.slates.labels(version).inc(count)
        items = Counter(item for slate in flight.answer.slates.values() for item in slate.items)
        for (kind, status, mismatch), count in items.items():
            metrics.items.labels(kind, status).inc(count)
            if mismatch is not None:
                metrics.model_mismatch.labels(mismatch).inc(count)


def prepare(settings: Settings, resources: ExitStack, metrics: Metrics) -> Callable[[WorkerApp], ExplainAgent]:
    """Load the models, connect the producer, and return the function that attaches the agent to an application.

    Raises:
        BundleError: the models cannot be used.
        WorkerUnfit: the models cannot explain a slate of their own.
        ConfigurationError: no broker answers.

    """
    copies = Path(resources.enter_context(TemporaryDirectory(prefix="whyrec-bundles-")))
    live = LiveExplainers(
        Bundle.load(settings.bundle_dir),
        lambda bundle: _opened(bundle, settings, metrics),
        None if settings.bundles_url is None else BundleStore(open_bundles(settings), copies),
        metrics,
        max_bundles=settings.max_bundles,
        max_bytes=settings.max_bundles_bytes,
        idle_s=settings.bundle_idle_s,
    )
    if settings.bundles_url is not None:
        _follow(ControlTopic(settings), live, resources)
    origin = origin_of(settings, settings.topic("impressions"))
    topic_id = "" if origin is None else origin.topic
    limits = limits_of(settings, [settings.topic(role) for role in TOPICS if role != "control"])
    work = BatchWork(live, codec_of(settings), settings, source_topic_id=topic_id, limits=limits)
    delivery = Delivery(settings, smallest_limit=min(limits.values(), default=BATCH_BYTES))
    resources.callback(delivery.close, settings.shutdown_timeout_s)
    return lambda app: attach(app, work, delivery)


def _opened(bundle: Bundle, settings: Settings, metrics: Metrics) -> IsolatingExplainer:
    """Open the models of a bundle and warm them up: compile, load and run everything that a batch needs.

    The stages of the warm-up are not measured. The schema registry takes no part: if it is away now, it may be back
    when the first message comes.
    """
    is_warm = threading.Event()

    def observe(stage: str, seconds: float) -> None:
        if is_warm.is_set():
            metrics.stage.labels(stage).observe(seconds)

    explainer = Explainer(
        bundle,
        settings.policy,
        threads=settings.inference_threads,
        max_exploration=settings.max_exploration,
        observe=observe,
    )
    slates = SyntheticSlates(bundle)
    isolating = IsolatingExplainer(explainer, slates.slate(events=_REFERENCE_EVENTS, items=_REFERENCE_ITEMS))
    warm_up(BatchWork(isolating, Codec(), settings), slates)
    is_warm.set()
    return isolating


def _follow(control: ControlTopic, live: LiveExplainers, resources: ExitStack) -> None:
    """Load what the control topic says now, before partitions are assigned, and follow it from then on."""
    live.follow(control.current())
    follower = ControlFollower(control, live)
    follower.start()
    resources.callback(follower.close)


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
