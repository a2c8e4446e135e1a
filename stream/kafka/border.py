"""Everything that depends on private parts of Faust, mode and aiokafka; no other file may.

Faust has no public way to do these things:

=====================================  =====================================================================
what the worker needs                  what it relies on
=====================================  =====================================================================
fetch sizes and waits, read_committed  ``AIOKafkaConsumerThread._create_worker_consumer``; aiokafka's
                                       ``_fetch_min_bytes``, ``_fetch_max_wait_ms``, ``_isolation_level``
an error that ended the group          ``ThreadDelegateConsumer._thread``, ``_ensure_consumer``; aiokafka's
membership                             ``_coordinator`` and its ``check_errors``
commit offsets without ending the      ``_thread.call_thread`` with aiokafka's ``commit``; Faust's own
application where the broker refuses   ``_commit`` stops the application
know the committed offset              ``Consumer._committed_offset``
stop reading one partition at once     ``Consumer._buffered_partitions``
see whether a seek took effect         ``Consumer._read_offset``
hand a message over without a task     ``Service.wait_first``, which Faust calls with two coroutines
consumer and thread of our own         ``Consumer._new_consumer_thread``, ``App._new_transport``
no folder for tables                   ``App._create_directories``
=====================================  =====================================================================

The versions are pinned in ``pyproject.toml``. ``tests/worker/test_border.py`` checks each row against the installed
versions and names what an upgrade has moved.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Mapping
from functools import partial
from inspect import iscoroutine
from types import coroutine
from typing import Any, ClassVar, TypeVar, cast

import faust
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP
from mode.services import WaitResults

T = TypeVar("T")


class _FetchingThread(AIOKafkaConsumerThread):
    """The thread of the consumer, which configures aiokafka's consumer before it starts."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # A fetch costs the broker and the worker more than a few records do, so the broker collects for a moment
        # before it answers.
        consumer._fetch_min_bytes = self.app.fetch_min_bytes
        consumer._fetch_max_wait_ms = self.app.fetch_max_wait_ms
        # Records of an aborted transaction were never shown to anybody.
        consumer._isolation_level = "read_committed"
        return consumer


class BorderConsumer(Consumer):
    """Faust's consumer, with public methods for what Faust and aiokafka keep private."""

    def check_group(self) -> None:
        """Raise the error that ended this consumer's membership in its group, if one did.

        aiokafka reports such an error to callers of its own ``getmany``; Faust never sees it and would wait forever.
        """
        coordinator = self._thread._ensure_consumer()._coordinator
        if coordinator is not None:
            coordinator.check_errors()

    def committed(self, tp: TP) -> int | None:
        """Return the offset that the group has committed, or None where it has committed none."""
        return cast("int | None", self._committed_offset[tp])

    def read_position(self, tp: TP) -> int | None:
        """Return the position up to which messages were handed over, or None before the first message."""
        return cast("int | None", self._read_offset[tp])

    def stop_reading(self, tp: TP) -> None:
        """Pause a partition, including messages that Faust has buffered; ``resume_partitions`` ends the pause."""
        self.pause_partitions({tp})
        # Faust reads on from a partition that is marked as buffered, although it is paused.
        self._buffered_partitions.discard(tp)

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> None:
        """Commit the next offset to read of each partition that is assigned to this consumer.

        Raises:
            aiokafka.errors.KafkaError: the broker refuses. The application goes on; Faust's own commit would stop it.

        """
        assigned = self.assignment()
        chosen = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in assigned
        }
        if chosen:
            await self._thread.call_thread(self._thread._ensure_consumer().commit, chosen)

    async def wait_first(self, *coros: Any, **options: Any) -> WaitResults:
        """Wait for the first of two coroutines: a message handed over, or the end of the flow.

        Faust makes four tasks for each message, so that it can cancel one that no stream takes. Streams take nearly
        all messages at once, and a coroutine that ends without waiting needs no task.
        """
        if len(coros) != 2 or not all(map(iscoroutine, coros)):
            return await super().wait_first(*coros, **options)
        handed_over, suspended = coros
        try:
            waiting = handed_over.send(None)
        except StopIteration as done:
            suspended.close()
            return WaitResults([handed_over], [done.value], stopped=False)
        return await super().wait_first(continued(handed_over, waiting), suspended, **options)

    def _new_consumer_thread(self) -> _FetchingThread:
        return _FetchingThread(self, loop=self.loop, beacon=self.beacon)


class BorderApp(faust.App):
    """Faust's application with a consumer class of our own and without a folder on disk.

    Attributes:
        consumer_class: the class of the application's consumer.
        fetch_min_bytes: bytes that the broker collects before it answers a fetch.
        fetch_max_wait_ms: milliseconds after which the broker answers with what it has.

    """

    consumer_class: ClassVar[type[BorderConsumer]] = BorderConsumer

    def __init__(self, group: str, *, fetch_min_bytes: int, fetch_max_wait_ms: int, **options: Any) -> None:
        self.fetch_min_bytes = fetch_min_bytes
        self.fetch_max_wait_ms = fetch_max_wait_ms
        super().__init__(group, **options)

    def _new_transport(self) -> Any:
        transport = super()._new_transport()
        transport.Consumer = self.consumer_class
        return transport

    def _create_directories(self) -> None:
        """Create none: the application has no tables, so it keeps nothing on disk."""


async def continued(started: Coroutine[Any, Any, T], waiting: Any) -> T:
    """Finish a coroutine that was started with ``send(None)`` and yielded ``waiting``; return its result."""
    return await _drive(started, waiting)


@coroutine
def _drive(started: Coroutine[Any, Any, T], waiting: Any) -> Generator[Any, Any, T]:
    while True:
        try:
            result = yield waiting
        except BaseException as error:  # noqa: BLE001 (the coroutine handles its own cancellation)
            resume = partial(started.throw, error)
        else:
            resume = partial(started.send, result)
        try:
            waiting = resume()
        except StopIteration as done:
            return cast("T", done.value)
