"""What one machine sustains end to end: a real Kafka, workers as processes, an open-loop load at fixed rates.

Each rate is a run of its own, on topics and an archive of its own. A latency counts from the moment its impression was
due to be sent, so that a stall shows in every impression it delayed (no coordinated omission), to the moment that a
consumer has read and decoded the explanation. Broker, workers and load share the machine.

Run: python -m bench.stream --rates 50 100 --duration 30 --json FILE
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from bench.machine import describe, headline
from models.bundle import Bundle
from models.data.simulator import simulate
from models.data.slates import impressions
from schemas.events import Impression
from stream.archive.store import open_store
from stream.cluster import Cluster
from stream.connections import codec_of
from stream.demo.archive_count import ArchiveCount
from stream.demo.listener import Listener
from stream.demo.traffic import Traffic, parcels
from stream.demo.worker_process import WorkerProcess
from stream.settings import Settings
from stream.topics import TOPICS

_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """One rate, as asked for and as it went."""

    slates_per_s: float
    impressions_per_s: float
    sent: int
    explained: int
    archived: int
    behind_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_s_per_million: float
    worker_mib: float

    @property
    def sustained(self) -> bool:
        """Whether everything was explained and archived, and the last explanation came within two seconds."""
        return self.sent == self.explained == self.archived and self.behind_s < 2.0


@contextlib.contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    """Give the address of a Kafka: the one named, or one of our own for as long as the context lasts."""
    if bootstrap is not None:
        yield bootstrap
        return
    from tests.parts.kafka import Kafka

    with Kafka() as kafka:
        yield kafka.bootstrap


def run(bootstrap: str, slates: list[Impression], rate: float, duration_s: float, workers: int, policy: str) -> Run:
    """Send ``rate`` slates a second for ``duration_s`` seconds, and wait for the last explanation and row."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whyrec-bench-")))
        chosen = {
            "bootstrap_servers": bootstrap,
            "consumer_group": name,
            "archive_url": str(folder / "archive"),
            "flush_max_age_s": "5",
            "policy": policy,
            **{f"{role}_topic": f"{name}-{topic.name}" for role, topic in TOPICS.items()},
        }
        settings = Settings.model_validate(chosen | {"partitions": 4 * workers})
        cluster = Cluster(settings)
        cluster.create()
        stack.callback(cluster.delete)
        processes = [WorkerProcess(chosen | {"log_format": "json"}, folder / f"{i}.log") for i in range(workers)]
        for process in processes:
            stack.callback(process.kill)
            process.start()
        codec, topic = codec_of(settings), settings.topic("impressions")
        now_ms = int(time.time() * 1000)
        row = list(parcels(slates, round(rate * duration_s), rate, codec, topic, now_ms=now_ms))
        for process in processes:
            process.wait_until_ready()
        traffic = Traffic(bootstrap, topic, row, rate)
        listener = Listener(settings, codec, traffic.planned)
        watched = [psutil.Process(process.pid) for process in processes]
        before = sum(_cpu_s(each) for each in watched)
        listener.start()
        traffic.start()
        traffic.join()
        sent_all = time.monotonic()
        while listener.events < traffic.sent and time.monotonic() - sent_all < _PATIENCE_S:
            time.sleep(0.01)
        behind_s = time.monotonic() - sent_all
        cpu_s = sum(_cpu_s(each) for each in watched) - before
        memory = max(each.memory_info().rss for each in watched) / 2**20
        count = ArchiveCount(open_store(settings.archive_url), settings.topic("audit"))
        while count.refresh() < listener.items and time.monotonic() - sent_all < _PATIENCE_S:
            time.sleep(0.1)
        for process in processes:
            process.stop()
        listener.halt()
        traffic.require_delivered()
        archived = count.refresh()
        p50_ms, p99_ms, p999_ms = listener.quantiles_ms(0.5, 0.99, 0.999)
        return Run(
            rate,
            traffic.items / duration_s,
            traffic.items,
            listener.items,
            archived,
            behind_s,
            p50_ms,
            p99_ms,
            p999_ms,
            cpu_s / max(1, listener.items) * 1e6,
            memory,
        )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Run every rate and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a Kafka that runs already; by default one is started")
    parser.add_argument("--rates", type=float, nargs="+", default=[50, 100, 200], help="slates per second")
    parser.add_argument("--duration", type=float, default=30, help="seconds for each rate")
    parser.add_argument("--items", type=int, default=20, help="items of a slate")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--policy", choices=("evidence", "attention"), default="evidence")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    everyone, bundle = simulate(8_000, 5), Bundle.load(Settings().bundle_dir)
    slates = list(impressions(bundle, everyone.select(np.arange(1_000)), log=everyone, items=arguments.items))
    events = sum(len(slate["session"]) for slate in slates) / len(slates)
    print(headline())
    print(f"slates of {arguments.items}, {events:.1f} events a session, {arguments.policy} policy, audit on,")
    print(f"{arguments.workers} worker(s), {arguments.duration:g} s a rate; broker and load on the same machine\n")
    print("impressions/s   sustained   p50 ms   p99 ms   p99.9 ms   CPU s per million   MiB")
    runs = []
    with broker(arguments.bootstrap) as bootstrap:
        for rate in arguments.rates:
            found = run(bootstrap, slates, rate, arguments.duration, arguments.workers, arguments.policy)
            runs.append(found)
            print(
                f"{found.impressions_per_s:>13,.0f}{'yes' if found.sustained else 'no':>12}{found.p50_ms:>9.1f}"
                f"{found.p99_ms:>9.1f}{found.p999_ms:>11.1f}{found.cpu_s_per_million:>20.0f}{found.worker_mib:>6.0f}",
                flush=True,
            )
    if arguments.json is not None:
        document = {"machine": describe(), "workers": arguments.workers, "runs": [asdict(each) for each in runs]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
