"""What happens to topics and buckets over the years: made anew, grown, cut by retention, shared by mistake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from stream.archive.log.commitlog import Gap
from stream.archive.proof.facts import facts_of
from stream.archive.proof.verify import LEFTOVER_AGE_S, verify
from stream.archive.reading import reader
from stream.kafka.cluster import Cluster
from stream.kafka.topics import TopicRole
from tests.archive.checks import archived_items, eventually, items_of, verdict_of
from tests.archive.sink_process import AuditProducer
from tests.faults.scene import PARTITIONS, Scene, scene
from tests.parts.kafka import Kafka


@pytest.fixture
def made(kafka: Kafka, bundle_dir: Path, tmp_path: Path) -> Iterator[Scene]:
    with scene(kafka.bootstrap, tmp_path, bundle_dir) as opened:
        yield opened


def make_anew(made: Scene, role: TopicRole) -> None:
    admin = AdminClient({"bootstrap.servers": made.settings.bootstrap_servers, "log_level": 0})
    topic = made.settings.topic(role)
    admin.delete_topics([topic])[topic].result(30)

    def there_again() -> bool:
        try:
            return topic in Cluster(made.settings).create()
        except KafkaException:
            return False

    assert eventually(there_again)
    assert eventually(lambda: topic in admin.list_topics(timeout=10).topics)


def test_the_impressions_topic_alone_is_made_anew(made: Scene) -> None:
    worker = made.worker()
    worker.start()
    made.send_impressions(10)
    assert made.archived()
    make_anew(made, "impressions")
    assert worker.wait() == 1
    assert worker.said("was deleted and created again")
    made.begin_offsets_anew()
    worker.start()
    made.send_impressions(15)
    result = made.result(1)
    assert result.expected == 25 * PARTITIONS * 3
    assert result.good, result
    topics = {source.topic for entry in reader.entries(made.store) for source in entry.sources}
    assert len(topics) == 2


def test_the_audit_topic_alone_is_made_anew(made: Scene) -> None:
    worker = made.worker("sink")
    worker.start()
    made.send_audits(10)
    assert made.archived()
    make_anew(made, "audit")
    assert worker.wait() == 1
    worker.start()
    # Its chain begins anew, at offset 0; what was in flight when it was deleted is sent again by the explain agent.
    made.send_audits(15)
    result = made.result(1)
    assert result.good, result
    chains = {entry.chain.name for entry in reader.entries(made.store)}
    assert len(chains) == 2
    assert all(name.partition("~")[0] == made.settings.topic("audit") for name in chains)


def test_retention_that_was_faster_than_the_archive_is_on_record(made: Scene) -> None:
    worker = made.worker("sink")
    worker.start()
    made.send_audits(10)
    assert made.archived()
    worker.end()
    made.send_audits(10, expected=False)
    topic = made.settings.topic("audit")
    admin = AdminClient({"bootstrap.servers": made.settings.bootstrap_servers, "log_level": 0})
    place = TopicPartition(topic, 0, 16)
    admin.delete_records([place])[place].result(30)
    made.expected += items_of(0, range(16, 20)) + items_of(1, range(10, 20))
    worker.start()
    result = made.result(1)
    assert result.good, result
    assert [gap for entry in reader.entries(made.store) for gap in entry.gaps] == [Gap(10, 16, "expired")]
    notices = [finding for finding in verdict_of(made.store).findings if finding.rule == 12]
    assert [finding.severity for finding in notices] == ["notice"]
    assert worker.said("the topic lacks offsets; the chain records a gap")


def test_partitions_are_added(made: Scene) -> None:
    worker = made.worker("sink")
    worker.start()
    made.send_audits(5)
    assert made.archived()
    admin = AdminClient({"bootstrap.servers": made.settings.bootstrap_servers, "log_level": 0})
    topic = made.settings.topic("audit")
    admin.create_partitions([NewPartitions(topic, PARTITIONS + 1)])[topic].result(30)
    assert worker.end() == 0
    worker.start()
    AuditProducer(made.settings.bootstrap_servers, topic).send(PARTITIONS, range(7))
    made.expected += items_of(PARTITIONS, range(7))
    made.send_audits(5)
    result = made.result(1)
    assert result.good, result
    assert {entry.chain.partition for entry in reader.entries(made.store)} == set(range(PARTITIONS + 1))


def test_two_consumer_groups_of_one_topic_write_each_row_once(made: Scene) -> None:
    for group in ("one", "other"):
        made.worker("sink", consumer_group=f"{made.settings.consumer_group}{group}").start()
    for _ in range(6):
        made.send_audits(8)
        assert made.archived()
    for worker in made.workers:
        worker.end()
    assert sorted(made.expected) == archived_items(made.store)
    assert made.sound() == ()


def test_another_cluster_that_writes_to_the_same_place_is_refused(made: Scene) -> None:
    ours = made.worker("sink")
    ours.start()
    made.send_audits(5)
    assert made.archived()
    with Kafka() as other:
        settings = made.settings.model_copy(update={"bootstrap_servers": other.bootstrap})
        Cluster(settings).create()
        theirs = made.worker("sink", bootstrap_servers=other.bootstrap)
        theirs.start()
        AuditProducer(other.bootstrap, settings.topic("audit")).send(0, range(50, 60))
        theirs.waits_for("give each Kafka cluster an archive URL of its own")
        made.send_audits(5)
        assert made.archived()
        theirs.kill()
    result = made.result(1)
    assert result.good, result


def test_clocks_are_wrong_and_events_come_late(made: Scene) -> None:
    worker = made.worker("sink")
    worker.start()
    producer = AuditProducer(made.settings.bootstrap_servers, made.settings.topic("audit"))
    for first, day in ((0, 0), (4, -700), (8, 300), (12, -700), (16, 0)):
        producer.send(0, range(first, first + 4), day=day)
        made.expected += items_of(0, range(first, first + 4))
        assert made.archived()
    result = made.result(1)
    assert result.good, result
    days = [ref.key.partition("/")[0] for ref in reader.objects(made.store)]
    assert len(set(days)) == 3
    assert len(days) > 3  # a day stays open, however late its events


def test_other_peoples_objects_lie_in_the_bucket(made: Scene) -> None:
    foreign = {
        "README.txt": b"who put this here?",
        "date=2026-01-01/region=EU/part-0.parquet": b"no rows of ours",
        f"_commits/{made.settings.topic('audit')}/0/notes.txt": b"an entry it is not",
        "logs/date=2026-01-01/x.json": b"{}",
    }
    for key, data in foreign.items():
        made.store.put_if_absent(key, data)
    worker = made.worker("sink")
    worker.start()
    made.send_audits(10)
    assert eventually(lambda: archived_items(made.store) == sorted(made.expected)), worker.last_words()
    assert worker.end() == 0
    worker.start()
    made.send_audits(10)
    assert eventually(lambda: archived_items(made.store) == sorted(made.expected)), worker.last_words()
    assert all(made.store.get(key) == data for key, data in foreign.items())
    stored = {info.key: LEFTOVER_AGE_S for info in made.store.list("") if not info.key.startswith("_commits/")}
    found = verify(reader.raw_entries(made.store), facts_of(made.store, deep=True), stored).findings
    # Rule 22 notices that the events of this test are older than their archiving.
    others = {(finding.rule, finding.key) for finding in found if finding.rule != 22}
    assert others == {(1, [*foreign][2]), (11, [*foreign][1])}
