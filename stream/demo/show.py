"""The demonstration from start to end: broker, worker, traffic, the wait for the last row, the summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from models.bundle import Bundle
from models.data.simulator import simulate
from models.data.slates import impressions
from schemas.events import EXPLANATION_TYPES
from stream.archive.log.commitlog import COMMITS
from stream.archive.store import open_archive
from stream.connections import codec_of
from stream.demo.archive_count import ArchiveCount
from stream.demo.board import Board, Figures
from stream.demo.listener import Listener
from stream.demo.outcome import Outcome, print_query, print_samples, print_types
from stream.demo.traffic import Parcel, Traffic, parcels
from stream.demo.worker_process import WorkerProcess
from stream.errors import ConfigurationError, WorkerFailed
from stream.kafka.cluster import Cluster
from stream.kafka.embedded import EmbeddedBroker
from stream.kafka.topics import TOPICS
from stream.settings import Settings

FLUSH_EVERY_S: Final = 3.0
"""Flush interval of the archive: much shorter than in production, so that rows arrive during the demonstration."""

DEMO_PARTITIONS: Final = 4
_SEED: Final = 20
_DISTINCT_SLATES: Final = 1000
_SHOW_EVERY_S: Final = 0.25
_STALLED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a demonstration; rate is in slates per second."""

    settings: Settings
    duration_s: float
    rate: float
    bootstrap: str | None
    archive: str | None


def show(plan: Plan, console: Console) -> Outcome:
    """Run the demonstration and return its figures. Everything it starts is stopped again, whatever happens.

    Raises:
        ConfigurationError: no broker answers, or the archive is not fresh.
        WorkerFailed: the worker did not start, ended early, or did not stop in order.

    """
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder = Path("demo") / stamp
    with ExitStack() as stack:
        settings = _settings(plan, stamp, str((folder / "archive").absolute()))
        if plan.bootstrap is None:
            broker = stack.enter_context(EmbeddedBroker(settings.topic(role) for role in TOPICS))
            settings = settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
        else:
            stack.enter_context(_own_topics(settings))
        store = open_archive(settings)
        if next(iter(store.list(COMMITS)), None) is not None and plan.bootstrap is None:
            raise ConfigurationError(
                f"{settings.archive_url} already holds an archive of other topics; name a fresh folder or prefix"
            )
        folder.mkdir(parents=True)
        console.print(
            f"{plan.rate:g} slates a second for {plan.duration_s:g} s; "
            f"{'embedded broker' if plan.bootstrap is None else 'Kafka'} at {settings.bootstrap_servers}",
            highlight=False,
            soft_wrap=True,
        )
        worker = WorkerProcess(_environment(settings), folder / "worker.log")
        stack.callback(worker.kill)
        worker.start()
        bundle = Bundle.load(settings.bundle_dir)
        with _step(console, "slates ranked and encoded"):
            row = _row(plan, settings, bundle)
        with _step(console, "worker ready: models loaded, kernels compiled, warm-up slates explained"):
            worker.wait_until_ready()
        run = _Run(plan, settings, worker, row, ArchiveCount(store, settings.topic("audit")))
        with Board(console, "whyrec demo") as board:
            outcome = run.watch(board)
        print_samples(console, run.listener.samples, bundle)
        print_types(console, outcome.types)
        if run.count.objects:
            print_query(console, store, settings.archive_url, run.count.objects)
    _verdict(console, outcome, folder, embedded=plan.bootstrap is None)
    return outcome


@contextmanager
def _step(console: Console, done: str) -> Iterator[None]:
    """Show that a step is under way, and afterwards how long it took."""
    began = time.monotonic()
    with console.status(done):
        yield
    console.print(f"{time.monotonic() - began:5.1f} s {done}", highlight=False)


class _Run:
    """Traffic, listener and archive count around one worker."""

    def __init__(
        self, plan: Plan, settings: Settings, worker: WorkerProcess, row: list[Parcel], count: ArchiveCount
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._expected = len(row)
        self.count = count
        self.traffic = Traffic(settings, row, plan.rate)
        self.listener = Listener(settings, codec_of(settings), self.traffic.planned)

    def watch(self, board: Board) -> Outcome:
        """Run until everything sent is explained and archived, or until the figures stop changing."""
        self._began = time.monotonic()
        self.listener.start()
        self.traffic.start()
        try:
            self._wait(board, "traffic", self.traffic.is_alive)
            self.traffic.require_delivered()
            self._wait(board, "draining", self._unfinished)
            status = self._worker.stop()
        finally:
            self.traffic.halt()
            self.listener.halt()
        self.count.refresh()  # the worker flushes when it stops
        board.show(self._figures(), phase="done")
        if status != 0:
            raise WorkerFailed(f"the worker ended with status {status}:\n{self._worker.last_words()}")
        return self._outcome()

    def _wait(self, board: Board, phase: str, going_on: Callable[[], bool]) -> None:
        last, moved_at = -1, time.monotonic()
        while going_on():
            if self._worker.exit_status is not None:
                raise WorkerFailed(f"the worker ended early:\n{self._worker.last_words()}")
            if self.listener.failure is not None:
                raise self.listener.failure
            figures = self._figures()
            board.show(figures, phase=phase)
            moved = figures.events_in + figures.explanations + figures.archived + figures.dead_letters
            if moved != last:
                last, moved_at = moved, time.monotonic()
            if time.monotonic() - moved_at > _STALLED_S:
                return  # the outcome reports what is missing
            time.sleep(_SHOW_EVERY_S)

    def _unfinished(self) -> bool:
        done = self.listener.events + self.listener.dead_letters >= self.traffic.sent
        return not (done and self.count.rows >= self.listener.items)

    def _figures(self) -> Figures:
        return Figures(
            elapsed_s=time.monotonic() - self._began,
            events_in=self.traffic.sent,
            items_in=self.traffic.items,
            explanations=self.listener.events,
            items_explained=self.listener.items,
            archived=self.count.refresh(),
            dead_letters=self.listener.dead_letters,
            latency_ms=self.listener.latency_ms(),
            types=self.listener.types.copy(),
        )

    def _outcome(self) -> Outcome:
        return Outcome(
            events_in=self.traffic.sent,
            items_in=self.traffic.items,
            items_explained=self.listener.items,
            rows_archived=self.count.rows,
            dead_letters=self.listener.dead_letters,
            latency_ms=self.listener.latency_ms(),
            types={kind: self.listener.types[kind] for kind in EXPLANATION_TYPES},
            archive=self._settings.archive_url,
        )


def _row(plan: Plan, settings: Settings, bundle: Bundle) -> list[Parcel]:
    count = max(1, round(plan.duration_s * plan.rate))
    histories = simulate(min(count, _DISTINCT_SLATES), _SEED)
    slates = list(impressions(bundle, histories))
    now_ms = int(time.time() * 1000)
    topic = settings.topic("impressions")
    return list(parcels(slates, count, plan.rate, codec_of(settings), topic, now_ms=now_ms))


def _settings(plan: Plan, stamp: str, archive: str) -> Settings:
    """Return the settings of the worker; on a real Kafka, the demonstration has its own topics and consumer group."""
    changes: dict[str, object] = {
        "archive_url": archive if plan.archive is None else _absolute(plan.archive),
        "flush_max_age_s": FLUSH_EVERY_S,
        "consumer_group": f"whyrec-demo-{stamp}",
        "instance_id": None,
    }
    if plan.bootstrap is not None:
        changes["bootstrap_servers"] = plan.bootstrap
        changes |= {f"{role}_topic": f"demo-{stamp}-{topic.name}" for role, topic in TOPICS.items()}
        changes["partitions"] = DEMO_PARTITIONS
    return plan.settings.model_copy(update=changes)


def _environment(settings: Settings) -> dict[str, str]:
    names = ("bootstrap_servers", "archive_url", "flush_max_age_s", "consumer_group", "bundle_dir")
    topics = {f"{role}_topic": settings.topic(role) for role in TOPICS}
    return {name: str(getattr(settings, name)) for name in names} | topics | {"log_format": "json"}


def _absolute(url: str) -> str:
    return url if "://" in url else str(Path(url).absolute())


@contextmanager
def _own_topics(settings: Settings) -> Iterator[None]:
    cluster = Cluster(settings)
    cluster.create()
    try:
        yield
    finally:
        cluster.delete()


def _verdict(console: Console, outcome: Outcome, folder: Path, *, embedded: bool) -> None:
    console.print()
    if faults := outcome.faults():
        console.print("[bold red]The counts do not agree:[/]")
        for fault in faults:
            console.print(f"  {fault}", highlight=False)
        console.print(f"The worker's log: {folder / 'worker.log'}", highlight=False)
        if embedded:
            console.print("The embedded broker keeps a few MB: try a lower --rate, or a real Kafka with --bootstrap.")
        return
    console.print(
        f"[bold green]All agree:[/] {outcome.events_in:,} events with {outcome.items_in:,} items\n"
        f"         = {outcome.items_explained:,} items explained\n"
        f"         = {outcome.rows_archived:,} rows archived\n"
        f"Latency of an explanation: p50 {outcome.latency_ms['p50']:.0f} ms, p99 {outcome.latency_ms['p99']:.0f} ms",
        highlight=False,
    )
