"""What settings of the producer cost: the settings of the worker (``stream/kafka/clients.py``), one changed at a time.

Messages are what the worker sends of real slates, an explanation and an audit record each. They go to a real Kafka at
a fixed rate, several slates at a time as a batch of the worker's gives them, whatever becomes of those before
(open-loop). Time counts from produce() to the delivery report in Python; CPU time is that of this process, which does
nothing else, and of the broker, its idling included; bytes are all that the client sent. Settings take turns, and
figures are medians of the rounds.

Run: python -m bench.produce [--rate 500] [--together 8] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.machine import describe, headline
from bench.pipeline import slates_of
from bench.stream import Usage, broker
from models.bundle import Bundle
from stream.agents.batch import BatchWork, Received
from stream.connections import codec_of
from stream.errors import DeliveryError
from stream.explain.pipeline import Explainer
from stream.kafka.clients import KafkaError, Message, producer, producer_settings
from stream.kafka.cluster import Cluster
from stream.kafka.delivery import Output
from stream.kafka.topics import TOPICS
from stream.settings import Settings

BASE: Final = "as shipped"
CHANGES: Final[dict[str, dict[str, Any]]] = {
    BASE: {},
    "linger 0 ms": {"linger.ms": 0},
    "linger 5 ms": {"linger.ms": 5},
    "linger 20 ms": {"linger.ms": 20},
    "no compression": {"compression.type": "none"},
    "snappy": {"compression.type": "snappy"},
    "zstd": {"compression.type": "zstd"},
    "not idempotent": {"enable.idempotence": False},
    "not idempotent, acks 1": {"enable.idempotence": False, "acks": "1"},
}
COLUMNS: Final = {
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "client_us": "client µs",
    "broker_us": "broker µs",
    "bytes": "bytes",
}
"""Per message, but for the times."""

SHOWN: Final = ("linger.ms", "compression.type", "enable.idempotence", "acks")

_STATISTICS_MS: Final = 200
_POLL_S: Final = 0.1
_FLUSH_S: Final = 30.0


class Sender:
    """The worker's producer with some settings changed, and a thread that collects the delivery reports."""

    def __init__(self, settings: Settings, changes: Mapping[str, Any]) -> None:
        watched = {"log_level": 0, "statistics.interval.ms": _STATISTICS_MS, "stats_cb": self._stated}
        self._producer = producer(settings, watched | dict(changes))
        self._sent_bytes = 0
        self._failure: str | None = None
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="delivery-reports", daemon=True)
        self._poller.start()
        self.took_ms: list[float] = []

    def send(self, outputs: Sequence[Output], rate: float, together: int) -> None:
        """Send ``rate`` messages a second, ``together`` at once, and wait for the last report."""
        begin = time.perf_counter()
        for first in range(0, len(outputs), together):
            if (wait_s := begin + first / rate - time.perf_counter()) > 0:
                time.sleep(wait_s)
            for each in outputs[first : first + together]:
                self._producer.produce(
                    each.topic,
                    value=each.value,
                    key=each.key,
                    partition=each.partition,
                    headers=each.headers,
                    on_delivery=partial(self._reported, time.perf_counter()),
                )
        unsent = self._producer.flush(_FLUSH_S)
        if unsent or self._failure is not None:
            raise DeliveryError(f"the broker did not take {unsent} messages ({self._failure or 'no answer'})")

    def close(self) -> int:
        """End, and say how many bytes were sent to the broker in all."""
        time.sleep(2 * _STATISTICS_MS / 1000)
        self._closing.set()
        self._poller.join()
        return self._sent_bytes

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(_POLL_S)

    def _reported(self, at: float, error: KafkaError | None, _message: Message) -> None:
        self.took_ms.append((time.perf_counter() - at) * 1000)
        if error is not None:
            self._failure = error.str()

    def _stated(self, statistics: str) -> None:
        self._sent_bytes = json.loads(statistics)["tx_bytes"]


def outputs_of(settings: Settings, slates: int) -> list[Output]:
    """Explain slates, and return the messages that the worker would send for them."""
    bundle = Bundle.load(settings.bundle_dir)
    codec, topic = codec_of(settings), settings.topic("impressions")
    received = []
    for number, slate in enumerate(slates_of(bundle, 20, slates)):
        encoded = codec.encode("impression", slate, topic)
        key, partition = slate["user_id_hash"].encode(), number % settings.partitions
        received.append(Received(topic, partition, number, key, encoded.value, encoded.headers))
    answer = BatchWork(Explainer(bundle, settings.policy), codec, settings).answer(received)
    return [each for slate in answer.slates.values() for each in (slate.explanation, slate.audit)]


def measure(
    settings: Settings, outputs: Sequence[Output], changes: Mapping[str, Any], rate: float, together: int
) -> dict[str, float]:
    """Send all messages once under some settings; a few go first, so that connecting does not count."""
    sender = Sender(settings, changes)
    sender.send(outputs[:together], rate, together)
    sender.took_ms.clear()
    usage = Usage({})
    sender.send(outputs, rate, together)
    spent = usage.per_million(len(outputs))
    p50_ms, p99_ms = np.quantile(sender.took_ms, (0.5, 0.99)).tolist()
    return {
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "client_us": spent["load"],
        "broker_us": spent["broker"],
        "bytes": sender.close() / (together + len(outputs)),
    }


@contextlib.contextmanager
def topics(bootstrap: str, partitions: int) -> Iterator[Settings]:
    """Make topics of our own for as long as the context lasts."""
    name = f"produce-{uuid.uuid4().hex[:8]}"
    names = {f"{role}_topic": f"{name}-{topic.name}" for role, topic in TOPICS.items()}
    settings = Settings.model_validate({"bootstrap_servers": bootstrap, "partitions": partitions} | names)
    cluster = Cluster(settings)
    cluster.create()
    try:
        yield settings
    finally:
        cluster.delete()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all settings in turn and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a Kafka that runs already; by default one is started")
    parser.add_argument("--rate", type=float, default=500, help="slates per second, of two messages each")
    parser.add_argument("--together", type=int, default=8, help="slates that are sent at once")
    parser.add_argument("--duration", type=float, default=5, help="seconds for each setting and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and samples there")
    arguments = parser.parse_args(argv)

    samples: dict[str, list[dict[str, float]]] = {name: [] for name in CHANGES}
    shipped = producer_settings(Settings())
    print(headline())
    print("as shipped: " + ", ".join(f"{name} {shipped[name]}" for name in SHOWN))
    with broker(arguments.bootstrap) as bootstrap, topics(bootstrap, arguments.partitions) as settings:
        made = outputs_of(settings, 500)
        count = 2 * round(arguments.rate * arguments.duration)
        row = [made[number % len(made)] for number in range(count)]
        explanation, audit = (np.mean([len(each.value or b"") for each in made[part::2]]) for part in (0, 1))
        print(
            f"{arguments.rate:g} slates/s, {arguments.together} at a time, {arguments.partitions} partitions a topic;"
        )
        print(f"an explanation has {explanation:,.0f} bytes, an audit record {audit:,.0f}, 20 items each\n", flush=True)
        for turn in range(-1, arguments.rounds):  # the first warms the broker up
            for name, changes in CHANGES.items():
                found = measure(settings, row, changes, 2 * arguments.rate, 2 * arguments.together)
                if turn >= 0:
                    samples[name].append(found)
    _show(samples)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": describe(), "samples": samples}, indent=2) + "\n", "utf-8")


def _show(samples: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    middle = {
        name: {key: float(np.median([each[key] for each in found])) for key in COLUMNS}
        for name, found in samples.items()
    }
    print(f"{'':26}" + "".join(f"{title:>10}{'':8}" for title in COLUMNS.values()))
    for name, row in middle.items():
        cells = []
        for key, value in row.items():
            base = middle[BASE][key]
            digits = 2 if key.endswith("ms") else 0
            cells.append(f"{value:>10.{digits}f}" + (f"{value / base:>7.2f}x" if base else f"{'':8}"))
        print(f"{name:26}{''.join(cells)}")


if __name__ == "__main__":
    main()
