"""What a frontend would see: explanations as they arrive, how late, and of which type."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np

from schemas.codec import Codec
from schemas.events import Explanation
from stream.kafka.reading import TopicReader
from stream.settings import Settings

_SAMPLES_PER_TYPE: Final = 12
_TIMEOUT_S: Final = 10.0


class Listener(threading.Thread):
    """Reads the explanations and the dead letters from where they end when it is made."""

    def __init__(self, settings: Settings, codec: Codec, planned: Mapping[str, float]) -> None:
        super().__init__(name="listener", daemon=True)
        self._codec = codec
        self._planned = planned
        self._explanations = settings.topic("explanations")
        self._reader = TopicReader(settings, "listener", {"fetch.wait.max.ms": 50})
        self._reader.begin_at_ends(self._explanations, settings.topic("dead_letters"))
        self._halt = threading.Event()
        self._seen: set[str] = set()
        self._late_s: list[float] = []
        self.events = 0
        self.items = 0
        self.repeats = 0
        self.dead_letters = 0
        self.types: Counter[str] = Counter()
        self.samples: dict[str, list[Explanation]] = {}
        self.failure: Exception | None = None

    def run(self) -> None:
        """Read until :meth:`halt` is called."""
        try:
            while not self._halt.is_set():
                message = self._reader.poll(0.1)  # not consume(n): it would wait for n, and that would count as late
                if message is None:
                    continue  # nothing, or a broker that is away for a moment
                if message.topic() == self._explanations:
                    self._take(message.value(), message.headers())
                else:
                    self.dead_letters += 1
        except Exception as error:  # noqa: BLE001 (told by whoever waits for us)
            self.failure = error
        finally:
            self._reader.close()

    def halt(self) -> None:
        """Stop reading."""
        self._halt.set()
        self.join(_TIMEOUT_S)

    def quantiles_ms(self, *at: float) -> list[float]:
        """Quantiles of the latencies in milliseconds, from planned sending to arrival."""
        return [float(late) for late in np.quantile(np.array(self._late_s or [0.0]) * 1000, at)]

    def latency_ms(self) -> dict[str, float]:
        """Median and 99th percentile, in milliseconds, from planned sending to arrival."""
        p50, p99 = self.quantiles_ms(0.5, 0.99)
        return {"p50": round(p50, 1), "p99": round(p99, 1)}

    def _take(self, value: bytes | None, headers: Any) -> None:
        arrived = time.perf_counter()
        explanation = cast("Explanation", self._codec.decode("explanation", value, headers))
        request_id = explanation["request_id"]
        if request_id not in self._planned:
            return  # of someone else
        if request_id in self._seen:
            self.repeats += 1
            return
        self._seen.add(request_id)
        self._late_s.append(arrived - self._planned[request_id])
        self.events += 1
        self.items += len(explanation["items"])
        for item in explanation["items"]:
            kind = item["type"]
            self.types[kind] += 1
            kept = self.samples.setdefault(kind, [])
            if len(kept) < _SAMPLES_PER_TYPE and explanation not in kept:
                kept.append(explanation)
