"""A worker process on a bus, and what it has archived."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from stream.archive.log import commitlog
from stream.archive.rows import segment
from stream.archive.store import open_archive
from stream.demo.worker_process import WorkerProcess
from stream.kafka.topics import TOPICS
from stream.settings import Settings
from tests.worker.bus import PATIENCE_S

SESSION_TIMEOUT_S = 6.0


def worker_on(settings: Settings, log: Path, *arguments: str, **changes: str) -> WorkerProcess:
    """Return a worker with these settings, not started."""
    given = {
        "bootstrap_servers": settings.bootstrap_servers,
        "consumer_group": settings.consumer_group,
        "bundle_dir": str(settings.bundle_dir),
        "archive_url": settings.archive_url,
        "session_timeout_s": str(SESSION_TIMEOUT_S),
        "flush_max_age_s": "1",
        "log_format": "json",
        **{f"{role}_topic": settings.topic(role) for role in TOPICS},
        **changes,
    }
    return WorkerProcess(given, log, *arguments)


@contextmanager
def running(settings: Settings, log: Path, *arguments: str, **changes: str) -> Iterator[WorkerProcess]:
    """A worker that has its partitions; killed at the end, if it still runs."""
    worker = worker_on(settings, log, *arguments, **changes)
    worker.start()
    try:
        worker.wait_until_ready()
        yield worker
    finally:
        worker.kill()


def archived(settings: Settings) -> list[pa.Table]:
    """Read the objects that commit entries name."""
    store = open_archive(settings)
    tables = []
    for info in store.list(commitlog.COMMITS):
        entry = commitlog.decode(store.get(info.key))
        tables += [segment.read(store.get(ref.key)) for ref in entry.objects]
    return tables


def archived_rows(settings: Settings) -> Counter[tuple[int, int]]:
    """Count the archived rows of each impression, by source partition and offset."""
    rows: Counter[tuple[int, int]] = Counter()
    for table in archived(settings):
        places = zip(table["source_partition"].to_pylist(), table["source_offset"].to_pylist(), strict=True)
        rows.update(places)
    return rows


def until_archived(settings: Settings, rows: int, limit_s: float = PATIENCE_S) -> Counter[tuple[int, int]]:
    """Wait until as many rows are archived, and fail where that takes too long."""
    give_up = time.monotonic() + limit_s
    while (found := archived_rows(settings)).total() < rows:
        assert time.monotonic() < give_up, f"{found.total()} of {rows} rows are archived"
        time.sleep(0.2)
    return found
