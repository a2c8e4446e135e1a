"""Impressions at a steady rate, sent open-loop: each is made and encoded before the clock starts, and sent on time."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from models.data.slates import moved_to
from schemas.codec import Codec
from schemas.events import Impression
from stream.errors import DeliveryError
from stream.kafka.clients import KafkaError, Message, producer
from stream.settings import Settings

_LEAD_S: Final = 0.25
_POLL_S: Final = 0.01
_MILLISECOND_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Parcel:
    """One encoded impression and the time at which it is sent."""

    request_id: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    items: int


def parcels(
    impressions: Sequence[Impression], count: int, rate: float, codec: Codec, topic: str, *, now_ms: int
) -> Iterator[Parcel]:
    """Encode ``count`` impressions, ``rate`` per second from now on; fewer slates than ``count`` are repeated.

    Request ids are named after the place in the row, so that two runs send the same; timestamps are moved to today.
    """
    for number in range(count):
        impression = impressions[number % len(impressions)]
        request_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"whyrec demo {number}"))
        moved = moved_to(impression, now_ms + int(number * 1000 / rate))
        moved["request_id"] = request_id
        encoded = codec.encode("impression", moved, topic)
        yield Parcel(
            request_id, impression["user_id_hash"].encode(), encoded.value, encoded.headers, len(impression["items"])
        )


class Traffic(threading.Thread):
    """Sends each parcel at its time. A consumer that lags does not slow it: latencies count from the planned time."""

    def __init__(self, settings: Settings, row: Iterable[Parcel], rate: float) -> None:
        super().__init__(name="traffic", daemon=True)
        self._producer = producer(settings, {"linger.ms": 0, "compression.type": "none", "log_level": 0})
        self._topic = settings.topic("impressions")
        self._row = row
        self._interval_s = 1 / rate
        self._halt = threading.Event()
        self._failure: str | None = None
        self.planned: dict[str, float] = {}
        self.sent = 0
        self.items = 0
        self.acknowledged = 0

    def run(self) -> None:
        """Send all impressions, then wait until the broker has acknowledged the last."""
        begin = time.perf_counter() + _LEAD_S
        for number, parcel in enumerate(self._row):
            at = begin + number * self._interval_s
            while not self._halt.is_set() and (wait_s := at - time.perf_counter()) > 0:
                # Poll has a resolution of a millisecond: with less it returns at once, and this loop would spin.
                if wait_s < _MILLISECOND_S:
                    time.sleep(wait_s)
                else:
                    self._producer.poll(min(wait_s, _POLL_S))
            if self._halt.is_set():
                break
            self.planned[parcel.request_id] = at
            self._producer.produce(
                self._topic, parcel.value, key=parcel.key, headers=parcel.headers, on_delivery=self._reported
            )
            self.sent += 1
            self.items += parcel.items
        self._producer.flush(30)

    def halt(self) -> None:
        """Stop sending."""
        self._halt.set()

    def require_delivered(self) -> None:
        """Check that the broker acknowledged every impression.

        Raises:
            DeliveryError: it did not.

        """
        if self._failure is not None or self.acknowledged != self.sent:
            raise DeliveryError(
                f"the broker took {self.acknowledged} of {self.sent} impressions ({self._failure or 'no answer'})"
            )

    def _reported(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.acknowledged += 1
        else:
            self._failure = error.str()
