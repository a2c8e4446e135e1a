"""When explanations arrive: their request ids and the time, by a consumer that looks no further.

Decoding every explanation whole is a frontend's work, not the worker's; on the same machine it would be counted twice.
One in a hundred is decoded all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from schemas.codec import Codec
from stream.kafka.reading import Message, TopicReader
from stream.settings import Settings

_DECODE_EVERY: Final = 100
_ID_BYTES: Final = 36
_TIMEOUT_S: Final = 10.0


class Arrivals(threading.Thread):
    """Reads the explanations from where they end when it is made. ``planned``: when each request id was due."""

    def __init__(self, settings: Settings, codec: Codec, planned: Mapping[str, float]) -> None:
        super().__init__(name="arrivals", daemon=True)
        self._codec, self._planned = codec, planned
        self._reader = TopicReader(settings, "arrivals", {"fetch.wait.max.ms": 50})
        self._reader.begin_at_ends(settings.topic("explanations"))
        self._halt = threading.Event()
        self._arrived: dict[str, float] = {}
        self._items_each = self._begins = 0
        self.events = 0
        self.items = 0
        self.repeats = 0

    def run(self) -> None:
        """Read until told to halt."""
        while not self._halt.is_set():
            message = self._reader.poll(0.1)
            if message is not None:
                self._take(message)
        self._reader.close()

    def halt(self) -> None:
        """Stop reading."""
        self._halt.set()
        self.join(_TIMEOUT_S)

    def latencies_ms(self, after: int = 0) -> list[float]:
        """Latencies from planned sending to arrival, in the order of arrival, of all but the ``after`` sent first."""
        first = set(islice(self._planned, after))
        return [round((at - self._planned[name]) * 1000, 2) for name, at in self._arrived.items() if name not in first]

    def _take(self, message: Message) -> None:
        arrived = time.perf_counter()
        value: bytes = message.value() or b""
        if self.events % _DECODE_EVERY == 0:
            record: dict[str, Any] = self._codec.decode("explanation", value, message.headers())
            self._items_each = len(record["items"])
            self._begins = value.index(record["request_id"].encode())
        request_id = value[self._begins : self._begins + _ID_BYTES].decode()
        if request_id in self._arrived or request_id not in self._planned:
            self.repeats += 1
            return
        self._arrived[request_id] = arrived
        self.events += 1
        self.items += self._items_each
