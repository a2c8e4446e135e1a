"""What the transport costs: the same job, by the same Explainer, behind a bare consumer and behind frameworks.

Each contender is a process of its own that takes impressions from Kafka, explains and encodes them, sends explanation
and audit, and commits. All do it in batches. None but whyrec's worker keeps several batches in flight, survives a
rebalance or a broker that is away without losing or repeating anything, or serves metrics: theirs is the plain form.
CPU time counts from when a contender is ready to the last explanation.

Run: python -m bench.peers --rate 100 --duration 20 --json FILE
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from bench.arrivals import Arrivals
from bench.load import Parcels
from bench.machine import describe, headline
from bench.stream import broker
from models.bundle import Bundle
from models.data.simulator import simulate
from models.data.slates import impressions
from schemas.events import Impression
from stream.agents.batch import BatchWork, Received
from stream.connections import codec_of
from stream.demo.traffic import Traffic
from stream.demo.worker_process import WorkerProcess
from stream.explain.pipeline import Explainer
from stream.kafka import clients
from stream.kafka.cluster import Cluster
from stream.kafka.delivery import Delivery, Output
from stream.kafka.topics import TOPICS
from stream.settings import Settings

_PATIENCE_S: Final = 120.0
_READY: Final = "ready"


def _job(settings: Settings) -> tuple[BatchWork, Delivery]:
    explainer = Explainer.load(settings.bundle_dir, policy=settings.policy)
    return BatchWork(explainer, codec_of(settings), settings), Delivery(settings)


def _received(messages: Sequence[Any]) -> list[Received]:
    return [
        Received(m.topic(), m.partition(), m.offset(), m.key(), m.value(), list(m.headers() or ())) for m in messages
    ]


def _outputs(work: BatchWork, batch: Sequence[Received]) -> list[Output]:
    return [each for slate in work.answer(batch).slates.values() for each in (slate.explanation, slate.audit)]


def bare(settings: Settings) -> None:
    """Do the job with confluent-kafka and nothing else."""
    work, delivery = _job(settings)
    consumer = clients.consumer(
        settings,
        settings.consumer_group,
        {
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": settings.fetch_max_wait_ms,
            "fetch.min.bytes": settings.fetch_min_bytes,
        },
    )
    consumer.subscribe([settings.topic("impressions")], on_assign=lambda *_: print(_READY, flush=True))
    while True:
        batch = _received(consumer.consume(settings.batch_max_slates, settings.batch_max_wait_ms / 1000))
        if batch:
            delivery.send(_outputs(work, batch)).future.result()
            consumer.commit(asynchronous=True)


def faststream(settings: Settings) -> None:
    """Do the job as a batch subscriber of FastStream, on its driver for confluent-kafka."""
    from faststream import AckPolicy, FastStream
    from faststream.confluent import KafkaBroker, KafkaMessage

    work, delivery = _job(settings)
    kafka = KafkaBroker(settings.bootstrap_servers)

    async def explain(_: list[Any], message: KafkaMessage) -> None:
        raw = message.raw_message if isinstance(message.raw_message, tuple) else (message.raw_message,)
        receipt = await asyncio.to_thread(lambda: delivery.send(_outputs(work, _received(raw))))
        await asyncio.wrap_future(receipt.future)

    kafka.subscriber(
        settings.topic("impressions"),
        group_id=settings.consumer_group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK,
        batch=True,
        max_records=settings.batch_max_slates,
        polling_interval=settings.batch_max_wait_ms / 1000,
        decoder=_undecoded,
    )(explain)
    app = FastStream(kafka)
    app.after_startup(lambda: print(_READY, flush=True))
    asyncio.run(app.run())


async def _undecoded(_message: Any) -> list[bytes]:
    return []


CONTENDERS: Final[dict[str, Callable[[Settings], None]]] = {"bare": bare, "faststream": faststream}


@contextlib.contextmanager
def serving(name: str, chosen: dict[str, str], folder: Path) -> Iterator[int]:
    """Run a contender while the context lasts; its process id, once it is ready."""
    if name == "whyrec":
        worker = WorkerProcess(chosen | {"log_format": "json"}, folder / "log", "--agents", "explain")
        worker.start()
        try:
            worker.wait_until_ready()
            yield worker.pid
        finally:
            worker.kill()
        return
    environment = {**os.environ, **{f"WHYREC_{field.upper()}": value for field, value in chosen.items()}}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.peers", "--serve", name], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        while process.stdout is not None and (line := process.stdout.readline()).strip() != _READY:
            if not line:
                raise SystemExit(f"{name} ended before it was ready")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def measure(name: str, bootstrap: str, slates: list[Impression], rate: float, duration_s: float) -> dict[str, float]:
    """Have one contender explain a load; CPU µs per impression, and latencies in ms."""
    mark = f"bench-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whyrec-bench-")))
        chosen = {
            "bootstrap_servers": bootstrap,
            "consumer_group": mark,
            **{f"{role}_topic": f"{mark}-{topic.name}" for role, topic in TOPICS.items()},
        }
        settings = Settings.model_validate(chosen | {"partitions": 4})
        cluster = Cluster(settings)
        cluster.create()
        stack.callback(cluster.delete)
        pid = stack.enter_context(serving(name, chosen, folder))
        codec, topic = codec_of(settings), settings.topic("impressions")
        traffic = Traffic(settings, Parcels(slates, round(rate * duration_s), rate, codec, topic), rate)
        arrivals = Arrivals(settings, codec, traffic.planned)
        stack.callback(arrivals.halt)
        arrivals.start()
        process = psutil.Process(pid)
        before = process.cpu_times()
        traffic.start()
        traffic.join()
        give_up = time.monotonic() + _PATIENCE_S
        while arrivals.events < traffic.sent and time.monotonic() < give_up:
            time.sleep(0.01)
        after = process.cpu_times()
        p50, p99 = np.quantile(arrivals.latencies_ms() or [0.0], (0.5, 0.99)).tolist()
        spent = after.user + after.system - before.user - before.system
        return {
            "sent": traffic.sent,
            "explained": arrivals.events,
            "cpu_us": spent / max(1, arrivals.items) * 1e6,
            "p50_ms": p50,
            "p99_ms": p99,
        }


def main() -> None:
    """Measure one contender after another, round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--bootstrap", help="a Kafka that runs already; by default one is started")
    parser.add_argument("--rate", type=float, default=100, help="slates per second")
    parser.add_argument("--duration", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        CONTENDERS[arguments.serve](Settings())
        return
    everyone, bundle = simulate(8_000, 5), Bundle.load(Settings().bundle_dir)
    slates = list(impressions(bundle, everyone.select(np.arange(1_000)), log=everyone))
    names = ["bare", "whyrec", *(["faststream"] if find_spec("faststream") else [])]
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    print(headline())
    print(f"explain and encode, no archive; {arguments.rate:g} slates/s, {arguments.duration:g} s a round\n")
    with broker(arguments.bootstrap) as bootstrap:
        for _ in range(arguments.rounds):
            for name in names:
                samples[name].append(measure(name, bootstrap, slates, arguments.rate, arguments.duration))
    print(f"{'':14}{'CPU µs per impression':>22}{'against bare':>14}{'p50 ms':>9}{'p99 ms':>9}{'explained':>11}")
    base = float(np.median([each["cpu_us"] for each in samples["bare"]]))
    for name, found in samples.items():
        cpu, p50, p99 = (float(np.median([each[key] for each in found])) for key in ("cpu_us", "p50_ms", "p99_ms"))
        whole = all(each["sent"] == each["explained"] for each in found)
        print(f"{name:14}{cpu:>22.1f}{cpu / base:>13.2f}x{p50:>9.1f}{p99:>9.1f}{'all' if whole else 'not all':>11}")
    if "faststream" not in samples:
        print("\nFastStream is left out: python -m pip install 'faststream[confluent]'")
    print("Quix Streams is left out: its newest release wants a confluent-kafka older than the one whyrec uses.")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": describe(), "samples": samples}) + "\n", "utf-8")


if __name__ == "__main__":
    main()
