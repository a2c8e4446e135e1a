"""Topics and an archive of one story's own, what was sent there, and what must be found in the end."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from models.bundle import Bundle
from schemas.codec import Codec
from stream.archive.objects import Store
from stream.archive.proof.findings import Finding
from stream.archive.s3 import S3Options
from stream.archive.store import open_store
from stream.kafka.cluster import Cluster
from stream.kafka.topics import TOPICS
from stream.settings import Settings
from tests.archive.checks import Watch, archived_items, eventually, items_of, verdict_of
from tests.archive.sink_process import AuditProducer
from tests.bundles import tiny_impression
from tests.faults.worker import PATIENCE_S, Worker
from tests.parts.s3_server import S3Server

PARTITIONS: Final = 2
SLATE: Final = 3
SESSION_TIMEOUT_S: Final = 6.0

Row = tuple[int, int, str]


@dataclass(frozen=True)
class Result:
    """What a story came to."""

    runs: int
    expected: int
    lost: int
    twice: int
    findings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        return not (self.lost or self.twice or self.findings)


@dataclass
class Scene:
    """Where a story happens. ``expected`` are the rows that must be archived once each."""

    settings: Settings
    store: Store
    folder: Path
    environment: dict[str, str]
    expected: list[Row] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    _sent: Counter[int] = field(default_factory=Counter)
    _made: dict[str, Any] = field(default_factory=dict)

    def worker(self, *agents: str, **settings: str) -> Worker:
        """Return a worker, not started; ``settings`` by their names."""
        changed = {f"WHYREC_{name.upper()}": value for name, value in settings.items()}
        log = self.folder / f"worker-{len(self.workers)}.log"
        made = Worker(self.environment | changed, log, agents or ("explain", "sink"))
        self.workers.append(made)
        return made

    def send_audits(self, count: int, *, again: int = 0, expected: bool = True) -> None:
        """Send audit records to each partition, on three days, and before them the last ``again`` once more."""
        producer = self._made.setdefault(
            "audits", AuditProducer(self.settings.bootstrap_servers, self.settings.topic("audit"))
        )
        for partition in range(PARTITIONS):
            first = self._sent[partition]
            producer.send(partition, range(max(0, first - again), first + count), days=3)
            self._sent[partition] += count
            if expected:
                self.expected += items_of(partition, range(first, first + count))

    def send_impressions(self, count: int) -> None:
        """Send slates to each partition of the impressions' topic."""
        from confluent_kafka import Producer

        producer = self._made.setdefault(
            "impressions", Producer({"bootstrap.servers": self.settings.bootstrap_servers, "log_level": 0})
        )
        if "slates" not in self._made:
            bundle = Bundle.load(self.settings.bundle_dir)
            made = [tiny_impression(bundle, items=SLATE, seed=seed) for seed in range(4)]
            self._made["slates"] = [
                (Codec().encode("impression", slate, ""), [item["item_id"] for item in slate["items"]])
                for slate in made
            ]
        for partition in range(PARTITIONS):
            for offset in range(self._sent[partition], self._sent[partition] + count):
                encoded, items = self._made["slates"][offset % 4]
                producer.produce(
                    self.settings.topic("impressions"), encoded.value, headers=encoded.headers, partition=partition
                )
                self.expected += [(partition, offset, item) for item in items]
            self._sent[partition] += count
        assert producer.flush(60) == 0

    def begin_offsets_anew(self) -> None:
        """After a topic was made anew."""
        self._sent.clear()

    def archived(self, rows: int | None = None) -> bool:
        """Wait until so many rows, by default all that are expected, are archived."""
        watch = self._made.setdefault("watch", Watch(self.store))
        wanted = len(self.expected) if rows is None else rows
        return eventually(lambda: watch.rows() >= wanted, PATIENCE_S)

    def rows(self) -> int:
        """Rows archived so far."""
        return int(self._made.setdefault("watch", Watch(self.store)).rows())

    def sound(self) -> tuple[Finding, ...]:
        """What the verifier, rows included, holds against the archive as it is now; leftovers are none of it."""
        return tuple(finding for finding in verdict_of(self.store).findings if finding.severity == "error")

    def result(self, runs: int) -> Result:
        """Wait for the end of the story, end the workers, and compare."""
        self.archived()
        lag = "" if eventually(lambda: self.lag() == 0, 30.0) else f"lag of {self.lag()}"
        for worker in self.workers:
            worker.end()
        found, wanted = Counter(archived_items(self.store)), Counter(self.expected)
        findings = self.sound()
        if lag:
            findings += (Finding(0, "error", self.settings.topic("audit"), lag),)
        return Result(runs, wanted.total(), (wanted - found).total(), (found - wanted).total(), findings)

    def lag(self) -> int:
        """Records that the group has not finished, by what it told Kafka."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap_servers,
                "group.id": self.settings.consumer_group,
                "log_level": 0,
            }
        )
        try:
            lag = 0
            for topic in (self.settings.topic("impressions"), self.settings.topic("audit")):
                found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
                places = consumer.committed([TopicPartition(topic, number) for number in found], timeout=10)
                for place in places:
                    _, high = consumer.get_watermark_offsets(place, timeout=10)
                    lag += high - max(0, place.offset)
        except KafkaException:
            return -1
        finally:
            consumer.close()
        return lag


@contextmanager
def scene(
    bootstrap: str, folder: Path, bundle_dir: Path, server: S3Server | None = None, endpoint_url: str | None = None
) -> Iterator[Scene]:
    """Make a scene: on the S3 server (reached through ``endpoint_url``, if given), or in a folder without one."""
    mark = uuid.uuid4().hex[:8]
    names = {f"{role}_topic": f"{role}-{mark}" for role in TOPICS}
    url = str(folder / f"archive-{mark}") if server is None else f"s3://{server.bucket}/{mark}"
    settings = Settings(
        bootstrap_servers=bootstrap,
        consumer_group=f"faults-{mark}",
        partitions=PARTITIONS,
        bundle_dir=bundle_dir,
        archive_url=url,
        **names,  # type: ignore[arg-type]
    )
    environment = {
        "bootstrap_servers": bootstrap,
        "consumer_group": settings.consumer_group,
        "bundle_dir": str(bundle_dir),
        "archive_url": url,
        "session_timeout_s": str(SESSION_TIMEOUT_S),
        "flush_max_age_s": "0.3",
        "shutdown_timeout_s": "10",
        "delivery_timeout_s": "60",
        "metrics_port": "0",
        "log_format": "json",
        **names,
    }
    given = {f"WHYREC_{name.upper()}": value for name, value in environment.items()} | {"OMP_NUM_THREADS": "1"}
    if server is not None:
        given |= server.environment | ({} if endpoint_url is None else {"AWS_ENDPOINT_URL": endpoint_url})
        store = open_store(url, S3Options(server.endpoint_url, server.access_key, server.secret_key))
    else:
        store = open_store(url)
    folder = folder / mark
    folder.mkdir(parents=True)
    cluster = Cluster(settings)
    cluster.create()
    made = Scene(settings, store, folder, given)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.kill()
        cluster.delete()
