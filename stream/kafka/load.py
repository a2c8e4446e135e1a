"""A steady load of impressions for ``whyrec produce``: one thread makes slates ahead of time, another sends them.

The load is open-loop: slate number k is due k / rate seconds after the start, even if earlier slates are late, and its
timestamp is the time at which it is due. A producer or a broker that falls behind therefore shows as latency.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.bundle import Bundle
from models.data.sessions import Sessions
from models.data.slates import impressions, moved_to
from schemas.codec import Codec
from schemas.events import Impression
from stream.errors import ConfigurationError
from stream.kafka.delivery import Delivery, Output, Refused

SIMULATED_USERS: Final = 8_000
"""Users simulated together, enough for meaningful statistics of every item."""

_AHEAD: Final = 512
_BATCH: Final = 32
_TICK_S: Final = 0.005


def simulated(bundle: Bundle, *, items: int, seed: int) -> Iterator[Impression]:
    """Yield slates for simulated users without end, one slate per user."""
    from models.data.simulator import simulate

    for number in itertools.count(seed):
        users = simulate(SIMULATED_USERS, number)
        yield from impressions(bundle, users, items=items, seed=number, batch=_BATCH)


def movielens(bundle: Bundle, directory: Path, *, items: int, seed: int) -> Iterator[Impression]:
    """Yield slates for real users that no model was trained on, without end.

    A round makes one slate per history, and each round is one event further back in time. After as many rounds as the
    histories allow, the rounds begin again, with new request ids.

    Raises:
        UnreadableMovieLens: the folder is not a copy of MovieLens 100K.
        UnfitBundle: the bundle was not trained on it.

    """
    from models.data.movielens import load

    everything = load(directory)
    _, _, unseen = everything.parts()
    rounds = _rounds(unseen)
    return itertools.chain.from_iterable(
        impressions(
            bundle, unseen, items=items, held_out=1 + number % rounds, log=everything, seed=seed + number, batch=_BATCH
        )
        for number in itertools.count()
    )


def _rounds(sessions: Sessions) -> int:
    return max(1, int(sessions.lengths.max(initial=2)) - 1)


class Ahead:
    """Slates made ahead of time in a thread. :meth:`take` raises an error of that thread."""

    def __init__(self, slates: Iterator[Impression]) -> None:
        self._slates = slates
        self._ready: queue.Queue[Impression | BaseException] = queue.Queue(_AHEAD)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._make, name="slates", daemon=True)
        self._thread.start()

    def fill(self, count: int) -> None:
        """Wait until ``count`` slates are ready, or the queue is full, or no slate will follow."""
        while self._ready.qsize() < min(count, _AHEAD) and self._thread.is_alive():
            time.sleep(_TICK_S)

    def take(self) -> Impression:
        """Wait for the next slate and return it."""
        made = self._ready.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        """Stop making slates."""
        self._closing.set()
        while self._thread.is_alive():
            while not self._ready.empty():
                self._ready.get_nowait()
            self._thread.join(_TICK_S)

    def _make(self) -> None:
        try:
            for slate in self._slates:
                self._ready.put(slate)
                if self._closing.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 (raised again where the next slate is taken)
            self._ready.put(error)


@dataclass(slots=True)
class Totals:
    """The outcome of a load so far. The sending thread and the thread that collects acknowledgements change it."""

    sent: int = 0
    items: int = 0
    delivered: int = 0
    failed: int = 0
    seconds: float = 0.0
    late_s: float = 0.0
    error: str = ""

    def settle(self, future: Future[list[Refused]]) -> None:
        """Count the outcome of one slate."""
        error = future.exception()
        if error is None and not future.result():
            self.delivered += 1
            return
        self.failed += 1
        self.error = str(error) if error is not None else future.result()[0].error


def limit_of(rate: float, count: int | None, duration_s: float | None) -> int:
    """Return how many slates are due: the smaller number where both a count and a duration are given."""
    limits = [] if count is None else [count]
    if duration_s is not None:
        limits.append(max(1, round(duration_s * rate)))
    if not limits:
        raise ConfigurationError("a load needs an end: give --count N or --duration S")
    return min(limits)


def send(
    slates: Ahead,
    delivery: Delivery,
    codec: Codec,
    topic: str,
    *,
    rate: float,
    count: int | None,
    duration_s: float | None,
    report: Callable[[Totals], None] = lambda _: None,
) -> Totals:
    """Send slates at ``rate`` per second until ``count`` are sent or ``duration_s`` is over, whichever is first.

    An interrupt (Ctrl-C) ends the load early. The caller's ``Delivery.close`` waits for the acknowledgements of the
    slates that were sent.
    """
    totals = Totals()
    limit = limit_of(rate, count, duration_s)
    start, start_ms = time.monotonic(), time.time_ns() // 1_000_000
    try:
        while totals.sent < limit:
            due_s = totals.sent / rate
            elapsed = time.monotonic() - start
            if duration_s is not None and elapsed > duration_s:
                break
            if due_s > elapsed:
                report(totals)
                time.sleep(min(due_s - elapsed, 0.1))
                continue
            slate = moved_to(slates.take(), start_ms + int(due_s * 1000))
            encoded = codec.encode("impression", slate, topic)
            output = Output(topic, slate["user_id_hash"].encode(), encoded.value, encoded.headers)
            delivery.send([output]).future.add_done_callback(totals.settle)
            totals.sent += 1
            totals.items += len(slate["items"])
            totals.late_s = max(totals.late_s, time.monotonic() - start - due_s)
    except KeyboardInterrupt:
        pass
    totals.seconds = time.monotonic() - start
    report(totals)
    return totals
