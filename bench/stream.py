"""What one machine sustains end to end: a real Kafka, workers as processes, an open-loop load at fixed rates.

Each rate is a run of its own, on topics and an archive of its own; the first seconds of it warm broker and workers up,
and count for completeness only. A latency counts from the moment its impression was due to be sent, so that a stall
shows in every impression it delayed (no coordinated omission), to the moment that a consumer holds the explanation.
Broker, workers and load share the machine; each one's CPU time is told apart.

Run: python -m bench.stream --rate 50 100 --duration 30 --json FILE
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import psutil

from bench.arrivals import Arrivals
from bench.load import Parcels
from bench.machine import describe, headline
from bench.profile import flame_graph
from models.bundle import Bundle
from models.data.simulator import simulate
from models.data.slates import impressions
from schemas.events import Impression
from stream.archive.store import open_store
from stream.connections import codec_of
from stream.demo.archive_count import ArchiveCount
from stream.demo.traffic import Traffic
from stream.demo.worker_process import WorkerProcess
from stream.kafka.cluster import Cluster
from stream.kafka.topics import TOPICS
from stream.settings import Settings

_PATIENCE_S = 60.0
SWITCH_S = 0.0005
"""The load's threads take turns this often, so that one does not hold up the other's clock."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a run."""

    rate: float
    duration_s: float
    warm_up_s: float = 0.0
    workers: int = 1
    partitions: int = 4
    agents: tuple[str, ...] = ("explain,sink",)
    policy: str = "evidence"
    settings: tuple[tuple[str, str], ...] = ()
    flame: Path | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One rate, as asked for and as it went; CPU seconds are per million impressions, memory in MiB at the end."""

    slates_per_s: float
    impressions_per_s: float
    sent: int
    explained: int
    archived: int
    repeats: int
    behind_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_s: dict[str, float]
    memory_mib: dict[str, float]
    latencies_ms: list[float] = field(repr=False)

    @property
    def sustained(self) -> bool:
        """Whether everything was explained and archived once, soon, and nothing waited longer and longer.

        That is: the last explanation came within two seconds, and the median latency of the last third is at most a
        quarter, or 50 ms, above that of the second third.
        """
        _, middle, last = (float(np.median(part)) for part in np.array_split(self.latencies_ms or [0.0] * 3, 3))
        steady = self.behind_s < 2.0 and last <= max(1.25 * middle, middle + 50.0)
        return steady and self.sent == self.explained == self.archived


@contextlib.contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    """Give the address of a Kafka: the one named, or one of our own for as long as the context lasts."""
    if bootstrap is not None:
        yield bootstrap
        return
    # The tests' broker lies beside this package in a checkout, which a command's own path does not name.
    sys.path.append(str(Path(__file__).parents[1]))
    try:
        from tests.parts.kafka import Kafka
    except ImportError:
        raise SystemExit(
            "no broker: name one with --bootstrap HOST:PORT, or run in a checkout, which starts its own"
        ) from None

    with Kafka() as kafka:
        yield kafka.bootstrap


class Usage:
    """CPU time and memory of processes by role: the broker if it is ours, this process as the load, the workers."""

    def __init__(self, workers: dict[str, int]) -> None:
        own = psutil.Process()
        java = [each for each in own.children(recursive=True) if "java" in each.name()]
        self._processes = {"broker": java, "load": [own]} | {
            role: [psutil.Process(pid)] for role, pid in workers.items()
        }
        self._before = self._now()

    def per_million(self, items: int) -> dict[str, float]:
        """CPU seconds since it was made, per million items."""
        return {role: (now - self._before[role]) / max(1, items) * 1e6 for role, now in self._now().items()}

    def memory_mib(self) -> dict[str, float]:
        """Resident memory by role."""
        return {role: sum(each.memory_info().rss for each in found) / 2**20 for role, found in self._processes.items()}

    def _now(self) -> dict[str, float]:
        times = {role: [each.cpu_times() for each in found] for role, found in self._processes.items()}
        return {role: float(sum(each.user + each.system for each in found)) for role, found in times.items()}


def run(bootstrap: str, slates: list[Impression], plan: Plan) -> Run:
    """Send slates at the rate for the duration, and wait for the last explanation and row."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whyrec-bench-")))
        chosen = {
            "bootstrap_servers": bootstrap,
            "consumer_group": name,
            "archive_url": str(folder / "archive"),
            "flush_max_age_s": "5",
            "policy": plan.policy,
            **{f"{role}_topic": f"{name}-{topic.name}" for role, topic in TOPICS.items()},
            **dict(plan.settings),
        }
        settings = Settings.model_validate(chosen | {"partitions": plan.partitions})
        cluster = Cluster(settings)
        cluster.create()
        stack.callback(cluster.delete)
        processes: dict[str, WorkerProcess] = {}
        for number in range(plan.workers):
            for agents in plan.agents:
                role = f"{agents} {number}" if plan.workers > 1 else agents
                chosen_here = chosen | {"log_format": "json", "consumer_group": f"{name}-{agents}"}
                process = WorkerProcess(chosen_here, folder / f"{role}.log", "--agents", agents)
                stack.callback(process.kill)
                process.start()
                processes[role] = process
        for process in processes.values():
            process.wait_until_ready()
        codec, topic = codec_of(settings), settings.topic("impressions")
        warm, count = round(plan.rate * plan.warm_up_s), round(plan.rate * (plan.warm_up_s + plan.duration_s))
        traffic = Traffic(settings, Parcels(slates, count, plan.rate, codec, topic), plan.rate)
        arrivals = Arrivals(settings, codec, traffic.planned)
        arrivals.start()
        traffic.start()
        time.sleep(plan.warm_up_s)
        usage, sent_before = Usage({role: process.pid for role, process in processes.items()}), traffic.items
        with flame_graph(next(iter(processes.values())).pid, plan.flame, plan.duration_s):
            traffic.join()
            sent_all = time.monotonic()
            while arrivals.events < traffic.sent and time.monotonic() - sent_all < _PATIENCE_S:
                time.sleep(0.01)
            behind_s = time.monotonic() - sent_all
        explained = arrivals.items
        cpu_s, memory_mib = usage.per_million(traffic.items - sent_before), usage.memory_mib()
        archive = ArchiveCount(open_store(settings.archive_url), settings.topic("audit"))
        while archive.refresh() < explained and time.monotonic() - sent_all < _PATIENCE_S:
            time.sleep(0.1)
        for process in processes.values():
            process.stop()
        arrivals.halt()
        traffic.require_delivered()
        latencies_ms = arrivals.latencies_ms(warm)
        p50_ms, p99_ms, p999_ms = np.quantile(latencies_ms or [0.0], (0.5, 0.99, 0.999)).tolist()
        return Run(
            plan.rate,
            traffic.items / (plan.warm_up_s + plan.duration_s),
            traffic.items,
            explained,
            archive.refresh(),
            arrivals.repeats,
            behind_s,
            p50_ms,
            p99_ms,
            p999_ms,
            cpu_s,
            memory_mib,
            latencies_ms,
        )


def main() -> None:
    """Run every rate and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a Kafka that runs already; by default one is started")
    parser.add_argument(
        "--rate", "--rates", type=float, nargs="+", default=[50, 100, 200], help="slates per second, one run each"
    )
    parser.add_argument("--duration", type=float, default=30, help="seconds for each rate")
    parser.add_argument("--warm-up", type=float, default=10, help="seconds before them that are sent and not timed")
    parser.add_argument("--items", type=int, default=20, help="items of a slate")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--partitions", type=int, help="of each topic; by default 4 for each worker")
    parser.add_argument("--apart", action="store_true", help="explain and sink in a process each")
    parser.add_argument("--policy", choices=("evidence", "attention"), default="evidence")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="settings of the workers")
    parser.add_argument("--flame", type=Path, help="write a flame graph of the first worker (SVG; needs py-spy)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    sys.setswitchinterval(SWITCH_S)
    everyone, bundle = simulate(8_000, 5), Bundle.load(Settings().bundle_dir)
    slates = list(impressions(bundle, everyone.select(np.arange(1_000)), log=everyone, items=arguments.items))
    events = sum(len(slate["session"]) for slate in slates) / len(slates)
    print(headline())
    print(f"slates of {arguments.items}, {events:.1f} events a session, {arguments.policy} policy, audit on,")
    print(f"{arguments.workers} worker(s), {arguments.duration:g} s a rate after {arguments.warm_up:g} s to warm up;")
    print("broker and load on the same machine\n")
    print("impressions/s  sustained   p50 ms   p99 ms  p99.9 ms   CPU s per million: worker  broker    load     MiB")
    runs = []
    with broker(arguments.bootstrap) as bootstrap:
        for rate in arguments.rate:
            plan = Plan(
                rate,
                arguments.duration,
                arguments.warm_up,
                arguments.workers,
                arguments.partitions or 4 * arguments.workers,
                ("explain", "sink") if arguments.apart else ("explain,sink",),
                arguments.policy,
                tuple((name, value) for name, _, value in (each.partition("=") for each in arguments.set)),
                arguments.flame,
            )
            found = run(bootstrap, slates, plan)
            runs.append(found)
            _print(found)
    if arguments.json is not None:
        document = {"machine": describe(), "workers": arguments.workers, "runs": [asdict(each) for each in runs]}
        arguments.json.write_text(json.dumps(document) + "\n", "utf-8")


def _print(found: Run) -> None:
    ours = {role: spent for role, spent in found.cpu_s.items() if role not in ("broker", "load")}
    memory = sum(found.memory_mib[role] for role in ours)
    print(
        f"{found.impressions_per_s:>13,.0f}{'yes' if found.sustained else 'no':>11}{found.p50_ms:>9.1f}"
        f"{found.p99_ms:>9.1f}{found.p999_ms:>10.1f}{sum(ours.values()):>28.0f}{found.cpu_s['broker']:>8.0f}"
        f"{found.cpu_s['load']:>8.0f}{memory:>8.0f}",
        flush=True,
    )
    if len(ours) > 1:
        print("  " + ", ".join(f"{role} {spent:.0f}" for role, spent in ours.items()))
    if not found.sustained:
        print(
            f"  sent {found.sent:,}, explained {found.explained:,}, archived {found.archived:,}; "
            f"the last explanation came {found.behind_s:.1f} s after the last impression"
        )


if __name__ == "__main__":
    main()
