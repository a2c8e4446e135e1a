"""Send outputs to Kafka and await the broker's acknowledgement of a batch.

librdkafka retries with exponential backoff until ``delivery_timeout_s`` is over. The producer is idempotent (no
duplicates and no reordering within a partition) and waits for all in-sync replicas (``acks=all``). An output that is
not acknowledged in time is reported, never dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message

from stream.errors import DeliveryError, ProducerBroken
from stream.kafka.clients import BATCH_BYTES, producer
from stream.settings import Settings

Headers = list[tuple[str, bytes]]

_POLL_S: Final = 0.1
_FULL_PAUSE_S: Final = 0.005
_AROUND: Final = 256
"""Bytes of a record and its batch besides key, value and headers, plus the varint bytes of header lengths."""
_MARGIN: Final = 1.05

MESSAGE_FAULTS: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD}
)
"""Errors about one message, which the broker would refuse again."""


@dataclass(frozen=True, slots=True)
class Output:
    """A message to send; ``partition`` -1 lets the key decide."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)
    partition: int = -1

    def fits(self, limit: int) -> bool:
        """Return whether a topic whose max.message.bytes is ``limit`` takes this output, compressed if necessary."""
        small = len(self.key or b"") + _AROUND
        for name, value in self.headers:
            small += len(name) + len(value)
        large = len(self.value or b"")
        if small + large <= limit:
            return True
        # The client does not offer its compressor; another one for the same format differs by little.
        return small + _MARGIN * len(pa.compress(self.value, codec="lz4", asbytes=True)) <= limit


@dataclass(frozen=True, slots=True)
class Refused:
    """An output that the broker will never take, by its index among those sent together."""

    index: int
    error: str


class Receipt:
    """The acknowledgements of outputs sent together; :attr:`future` is done when the last one has arrived.

    The result of the future is the list of outputs that the broker refuses for their content or size. The future
    raises :class:`DeliveryError` when an output was not acknowledged in time, and :class:`ProducerBroken` when the
    producer cannot go on.
    """

    __slots__ = ("_broken", "_failure", "_lock", "_missing", "_refused", "future")

    def __init__(self, expected: int) -> None:
        self.future: Future[list[Refused]] = Future()
        # A running future cannot be cancelled: acknowledgements arrive whether or not anybody still waits for them.
        self.future.set_running_or_notify_cancel()
        self._missing = expected
        self._lock = threading.Lock()
        self._refused: list[Refused] = []
        self._failure: str | None = None
        self._broken = False
        if expected == 0:
            self.future.set_result(self._refused)

    def report(self, index: int, error: KafkaError | None, _message: Message | None = None) -> None:
        """Note the broker's acknowledgement or error for the output at ``index``; called from the thread that polls."""
        with self._lock:
            if error is not None:
                if error.code() in MESSAGE_FAULTS:
                    self._refused.append(Refused(index, error.str()))
                else:
                    self._failure = f"{error.name()}: {error.str()}"
                    self._broken |= error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 (a public code)
            self._missing -= 1
            done = self._missing == 0
        if not done:
            return
        if self._broken:
            self.future.set_exception(ProducerBroken(f"the producer cannot go on ({self._failure}); start anew"))
        elif self._failure is not None:
            self.future.set_exception(
                DeliveryError(f"the broker did not acknowledge an output ({self._failure}); is it reachable?")
            )
        else:
            self.future.set_result(self._refused)


class Delivery:
    """An idempotent producer with a thread of its own that collects the acknowledgements."""

    def __init__(self, settings: Settings, *, smallest_limit: int = BATCH_BYTES) -> None:
        """Connect. ``smallest_limit`` is the smallest max.message.bytes of the topics; record batches keep to it."""
        self._producer = producer(settings, smallest_limit=smallest_limit)
        self._timeout_s = settings.delivery_timeout_s
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="delivery-reports", daemon=True)
        self._poller.start()

    def send(self, outputs: Sequence[Output]) -> Receipt:
        """Give outputs to the producer and return their receipt. Waits while the producer's queue is full.

        Call it from any thread except that of the event loop, which a full queue would block.
        """
        receipt = Receipt(len(outputs))
        give_up = time.monotonic() + self._timeout_s
        for index, output in enumerate(outputs):
            self._produce(output, partial(receipt.report, index), receipt, index, give_up)
        return receipt

    def close(self, limit_s: float) -> int:
        """Wait for missing acknowledgements and return how many outputs are still unacknowledged."""
        remaining: int = self._producer.flush(limit_s)
        self._closing.set()
        self._poller.join(timeout=10 * _POLL_S)
        return remaining

    def _produce(self, output: Output, report: partial[None], receipt: Receipt, index: int, give_up: float) -> None:
        while True:
            try:
                self._producer.produce(
                    output.topic,
                    value=output.value,
                    key=output.key,
                    partition=output.partition,
                    headers=output.headers,
                    on_delivery=report,
                )
            except BufferError:
                if time.monotonic() > give_up:
                    receipt.report(index, KafkaError(KafkaError._QUEUE_FULL))  # noqa: SLF001 (a public code)
                    return
                time.sleep(_FULL_PAUSE_S)
            except KafkaException as error:
                receipt.report(index, error.args[0])
                return
            else:
                return

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(_POLL_S)
