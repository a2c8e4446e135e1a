"""Outputs to Kafka whose acknowledgement can be awaited, a batch at a time.

librdkafka does the retrying: idempotent (no duplicates, no reordering within a partition), ``acks=all``, with
exponential backoff until ``delivery_timeout_s`` is over. What is not acknowledged by then is reported, never dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.errors import DeliveryError, ProducerBroken

Headers = list[tuple[str, bytes]]

_POLL_S: Final = 0.1
_FULL_PAUSE_S: Final = 0.005
_BATCH_BYTES: Final = 1_000_000
_AROUND: Final = 256
"""Bytes that a record and its batch take besides key, value and headers, and some more for long headers' lengths."""
_MARGIN: Final = 1.05

MESSAGE_FAULTS: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD}
)
"""What the broker holds against one message, and would again: sending it once more is of no use."""


@dataclass(frozen=True, slots=True)
class Output:
    """A message to send; ``partition`` -1 lets the key decide."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)
    partition: int = -1

    def fits(self, limit: int) -> bool:
        """Say whether a topic that takes ``limit`` bytes (its max.message.bytes) takes this, compressed if need be."""
        small = len(self.key or b"") + _AROUND
        for name, value in self.headers:
            small += len(name) + len(value)
        large = len(self.value or b"")
        if small + large <= limit:
            return True
        # The client's compressor is not ours to ask; another of the same format differs by little.
        return small + _MARGIN * len(pa.compress(self.value, codec="lz4", asbytes=True)) <= limit


@dataclass(frozen=True, slots=True)
class Refused:
    """An output that the broker will never take, by its place in the batch."""

    index: int
    error: str


class Receipt:
    """The acknowledgements of one batch; :attr:`future` is done when the last one is in.

    Its result is the outputs that the broker refuses for what they are. It raises :class:`DeliveryError` when an
    output was not acknowledged in time, and :class:`ProducerBroken` when the producer cannot go on.
    """

    __slots__ = ("_broken", "_failure", "_lock", "_missing", "_refused", "future")

    def __init__(self, expected: int) -> None:
        self.future: Future[list[Refused]] = Future()
        # Running, it cannot be cancelled: acknowledgements come in, whoever still waits for them.
        self.future.set_running_or_notify_cancel()
        self._missing = expected
        self._lock = threading.Lock()
        self._refused: list[Refused] = []
        self._failure: str | None = None
        self._broken = False
        if expected == 0:
            self.future.set_result(self._refused)

    def report(self, index: int, error: KafkaError | None, _message: Message | None = None) -> None:
        """Take the broker's word on the output at ``index``; called from whichever thread polls."""
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


def client_settings(
    bootstrap_servers: str, *, timeout_s: float = 30.0, linger_ms: float = 2.0, smallest_limit: int = _BATCH_BYTES
) -> dict[str, Any]:
    """Name the settings of the client, in librdkafka's words; what each comes to: ``python -m bench.produce``."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "client.id": "whyrec",
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": int(timeout_s * 1000),
        "retry.backoff.ms": 50,
        "retry.backoff.max.ms": 2000,
        "reconnect.backoff.max.ms": 2000,
        "linger.ms": linger_ms,
        "compression.type": "lz4",
        # The broker's own limit (1 MB unless set) decides what is too large, not the client's.
        "message.max.bytes": 64 * 1024 * 1024,
        "batch.size": min(_BATCH_BYTES, smallest_limit),
        # As Java clients place keys, so that a user's explanations lie where other services expect them.
        "partitioner": "murmur2_random",
        "logger": logging.getLogger("librdkafka"),
    }


class Delivery:
    """An idempotent producer with a thread of its own that collects the acknowledgements."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        timeout_s: float = 30.0,
        linger_ms: float = 2.0,
        smallest_limit: int = _BATCH_BYTES,
    ) -> None:
        """Connect. ``smallest_limit`` is the least max.message.bytes of the topics: it counts for batches, too."""
        self._producer = Producer(
            client_settings(bootstrap_servers, timeout_s=timeout_s, linger_ms=linger_ms, smallest_limit=smallest_limit)
        )
        self._timeout_s = timeout_s
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="delivery-reports", daemon=True)
        self._poller.start()

    def send(self, outputs: Sequence[Output]) -> Receipt:
        """Hand a batch to the producer and return its receipt; waits while the producer's queue is full.

        May be called from any thread but the event loop's, which a full queue would hold up.
        """
        receipt = Receipt(len(outputs))
        give_up = time.monotonic() + self._timeout_s
        for index, output in enumerate(outputs):
            self._produce(output, partial(receipt.report, index), receipt, index, give_up)
        return receipt

    def close(self, limit_s: float) -> int:
        """Wait for what is still unacknowledged and return how many outputs remain so."""
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
