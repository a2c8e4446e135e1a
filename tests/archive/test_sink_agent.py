"""The sink agent as a process between a real broker and an archive: nothing lost, nothing twice, nothing silent."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.archive.log.commitlog import Gap
from stream.archive.reading import reader
from stream.archive.s3 import S3Options
from stream.archive.store import open_store
from stream.kafka.cluster import Cluster
from stream.kafka.embedded import EmbeddedBroker
from stream.kafka.topics import TOPICS
from stream.settings import Settings
from tests.archive.checks import Watch, archived_items, eventually, items_of, verdict_of
from tests.archive.sink_process import AuditProducer, SinkProcess
from tests.parts.fixtures import ExistingKafka
from tests.parts.kafka import Kafka
from tests.parts.s3_server import S3Server

PARTITIONS = 2


@dataclass(frozen=True)
class Bus:
    """Topics of this test's own on a real broker."""

    settings: Settings
    producer: AuditProducer

    @property
    def environment(self) -> dict[str, str]:
        names = {f"WHYREC_{role.upper()}_TOPIC": self.settings.topic(role) for role in TOPICS}
        return names | {"WHYREC_CONSUMER_GROUP": self.settings.consumer_group}

    def sink(self, archive_url: str, log: Path, **environment: str) -> SinkProcess:
        return SinkProcess(self.settings.bootstrap_servers, archive_url, log, self.environment | environment)


@pytest.fixture
def bus(kafka: Kafka | ExistingKafka) -> Iterator[Bus]:
    mark = uuid.uuid4().hex[:8]
    settings = Settings(
        bootstrap_servers=kafka.bootstrap,
        consumer_group=f"sink-{mark}",
        partitions=PARTITIONS,
        **{f"{role}_topic": f"{role}-{mark}" for role in TOPICS},  # type: ignore[arg-type]
    )
    cluster = Cluster(settings)
    cluster.create()
    yield Bus(settings, AuditProducer(settings.bootstrap_servers, settings.topic("audit")))
    cluster.delete()


@pytest.mark.slow
def test_on_the_embedded_broker_across_a_kill_and_a_clean_end(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "archive"))
    watch = Watch(store)
    expected = [item for partition in range(4) for item in items_of(partition, range(150))]
    with EmbeddedBroker([topic.name for topic in TOPICS.values()]) as broker:
        producer = AuditProducer(broker.bootstrap_servers)
        sink = SinkProcess(broker.bootstrap_servers, store.url, tmp_path / "sink.log")
        with sink:
            for partition in range(4):
                producer.send(partition, range(100))
            assert watch.has(400)
            sink.signal(signal.SIGKILL)
            for partition in range(4):
                # An explain worker that was killed repeats itself.
                producer.send(partition, range(50, 150))
            sink.start()
            assert watch.has(len(expected))
            sink.signal(signal.SIGTERM)
    assert archived_items(store) == expected
    verdict = verdict_of(store)
    assert verdict.consistent, verdict.findings
    assert verdict.rows == len(expected)


def test_the_archive_and_not_kafka_says_where_to_go_on_and_losses_are_on_record(bus: Bus, tmp_path: Path) -> None:
    settings = bus.settings
    audit_topic = settings.topic("audit")
    store = open_store(str(tmp_path / "archive"))
    watch = Watch(store)
    bus.producer.send(0, range(100))
    bus.producer.send(1, range(100))
    bus.producer.send_raw(1, b"\x00\x01no audit record", [("trace", b"kept")])
    bus.producer.flush()
    # Retention was faster on partition 1, and somebody committed offsets that were never archived.
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    admin.delete_records([TopicPartition(audit_topic, 1, 30)])[TopicPartition(audit_topic, 1)].result()
    reset = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.consumer_group})
    reset.commit(offsets=[TopicPartition(audit_topic, 0, 60), TopicPartition(audit_topic, 1, 60)], asynchronous=False)
    reset.close()

    expected = items_of(0, range(110)) + items_of(1, range(30, 100))
    with bus.sink(store.url, tmp_path / "sink.log", WHYREC_FLUSH_MAX_AGE_S="3") as sink:
        assert watch.has(len(expected) - 20)
        # What is still in memory at SIGTERM is written before the end.
        sink.signal(signal.SIGTERM)
        assert "worker ended" in sink.log
        sink.start()
        bus.producer.send(0, range(100, 110))
        assert watch.has(len(expected))
        sink.signal(signal.SIGTERM)
    assert archived_items(store) == expected

    entries = list(reader.entries(store))
    assert [gap for entry in entries for gap in entry.gaps] == [Gap(0, 30, "expired")]
    assert [entry.rejected.spans for entry in entries if len(entry.rejected)] == [((100, 101),)]
    assert all(entry.origin is not None for entry in entries)
    assert verdict_of(store).consistent
    letter = _first_message(settings, settings.topic("dead_letters"))
    headers = dict(letter.headers() or [])
    assert letter.value() == b"\x00\x01no audit record"
    assert (headers["stage"], headers["partition"], headers["offset"]) == (b"archive", b"1", b"100")
    assert headers["trace"] == b"kept"
    # For people who look at Kafka, the group's offset is where the archive ends.
    look = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.consumer_group})
    told = look.committed([TopicPartition(audit_topic, n) for n in range(PARTITIONS)], timeout=10)
    look.close()
    assert [each.offset for each in told] == [110, 101]


def test_a_frozen_worker_that_wakes_as_a_zombie_changes_nothing(bus: Bus, s3_server: S3Server, tmp_path: Path) -> None:
    url = f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"
    store = open_store(url, S3Options(s3_server.endpoint_url, s3_server.access_key, s3_server.secret_key))
    watch = Watch(store)
    expected = [item for partition in range(PARTITIONS) for item in items_of(partition, range(300))]
    slow = s3_server.environment | {"WHYREC_FLUSH_MAX_AGE_S": "4"}
    with bus.sink(url, tmp_path / "first.log", **slow) as first:
        bus.producer.send(0, range(100))
        bus.producer.send(1, range(100))
        assert watch.has(400)
        bus.producer.send(0, range(100, 200))
        bus.producer.send(1, range(100, 200))
        # Frozen with rows in memory, past its session timeout.
        first.signal(signal.SIGSTOP)
        with bus.sink(url, tmp_path / "second.log", **s3_server.environment) as second:
            assert watch.has(800)
            first.signal(signal.SIGCONT)
            bus.producer.send(0, range(200, 300))
            bus.producer.send(1, range(200, 300))
            assert watch.has(len(expected))
            second.signal(signal.SIGTERM)
        first.signal(signal.SIGTERM)
    assert archived_items(store) == expected
    verdict = verdict_of(store)
    assert verdict.consistent, verdict.findings


def test_a_store_that_is_away_is_waited_for(bus: Bus, tmp_path: Path) -> None:
    expected = [item for partition in range(PARTITIONS) for item in items_of(partition, range(200))]
    with S3Server() as server:
        url = f"s3://{server.bucket}/archive"
        store = open_store(url, S3Options(server.endpoint_url, server.access_key, server.secret_key))
        watch = Watch(store)
        bus.producer.send(0, range(100))
        bus.producer.send(1, range(100))
        server.kill()
        with bus.sink(url, tmp_path / "sink.log", **server.environment) as sink:
            # Away when the partitions are assigned...
            assert eventually(lambda: "can't be continued yet" in sink.log)
            server.start()
            assert watch.has(400)
            # ... and away when a flush is due.
            server.kill()
            bus.producer.send_in_transaction(0, range(100, 150))
            bus.producer.send(0, range(150, 200))
            bus.producer.send(1, range(100, 200))
            assert eventually(lambda: "trying again" in sink.log)
            server.start()
            assert watch.has(len(expected))
            assert server.secret_key not in sink.log
            # Where the transaction ended, the broker has no record: it is asked, and that is written down.
            gaps = [gap for entry in reader.entries(store) for gap in entry.gaps]
            assert gaps == [Gap(150, 151, "absent")]
            sink.signal(signal.SIGTERM)
        assert archived_items(store) == expected
        assert verdict_of(store).consistent


def _first_message(settings: Settings, topic: str) -> Message:
    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "test"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    return message
