"""Topics are created once, described as they are, and refused where the archive could not tell repeats."""

from __future__ import annotations

import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from stream.commands.topics import app
from stream.errors import ConfigurationError
from stream.kafka.cluster import Cluster
from stream.kafka.embedded import PARTITIONS, EmbeddedBroker
from stream.kafka.topics import TOPICS
from stream.settings import Settings
from tests.parts.kafka import Kafka
from tests.worker.bus import kafka_bus


@pytest.fixture
def fresh(settings: Settings, kafka: Kafka) -> Settings:
    names = {f"{role}_topic": f"{settings.archive_url[-30:].replace('/', '.')}-{role}" for role in TOPICS}
    return settings.model_copy(update={"bootstrap_servers": kafka.bootstrap, "partitions": 3, **names})


def made(settings: Settings, *topics: NewTopic) -> None:
    """Create topics behind whyrec's back, and wait until the broker has heard of them."""
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    for future in admin.create_topics(list(topics)).values():
        future.result()
    give_up = time.monotonic() + 30
    while not {topic.topic for topic in topics} <= admin.list_topics(timeout=10).topics.keys():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_creating_twice_creates_once_with_the_retention_of_the_table(settings: Settings, kafka: Kafka) -> None:
    with kafka_bus(settings, kafka.bootstrap) as bus:
        cluster = Cluster(bus.settings)
        assert cluster.create() == []
        states = cluster.describe()
        assert set(states) == set(TOPICS)
        for role, state in states.items():
            assert (state.partitions, state.replicas) == (TOPICS[role].partitions or 4, 1)
            assert state.settings["cleanup.policy"] == ("compact" if TOPICS[role].compacted else "delete")
            assert state.settings["retention.ms"] == str(TOPICS[role].retention_ms)
            assert state.settings["min.insync.replicas"] == "1"
        cluster.require()


def test_an_audit_topic_with_fewer_partitions_than_impressions_is_refused(fresh: Settings) -> None:
    made(fresh, NewTopic(fresh.topic("impressions"), 4, 1), NewTopic(fresh.topic("audit"), 2, 1))
    cluster = Cluster(fresh)
    with pytest.raises(ConfigurationError, match="2 partitions"):
        cluster.create()
    cluster.delete()


def test_an_audit_topic_made_later_gets_as_many_partitions_as_the_impressions_have(fresh: Settings) -> None:
    made(fresh, NewTopic(fresh.topic("impressions"), 5, 1))
    cluster = Cluster(fresh)
    assert len(cluster.create()) == len(TOPICS) - 1
    assert cluster.require()["audit"].partitions == 5
    cluster.delete()


def test_missing_topics_are_named_with_the_command_that_makes_them(fresh: Settings) -> None:
    with pytest.raises(ConfigurationError, match="whyrec topics create"):
        Cluster(fresh).require()


def test_a_broker_that_does_not_answer_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.kafka.cluster._TIMEOUT_S", 0.5)
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:1 .*WHYREC_BOOTSTRAP_SERVERS"):
        Cluster(settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})).require()


def test_the_commands_create_and_describe(fresh: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in TOPICS:
        monkeypatch.setenv(f"WHYREC_{role.upper()}_TOPIC", fresh.topic(role))
    bootstrap = ["--bootstrap", fresh.bootstrap_servers]
    run = CliRunner().invoke
    missing = run(app, ["describe", *bootstrap])
    assert missing.exit_code == 1
    assert "missing" in missing.output
    created = run(app, ["create", *bootstrap, "--partitions", "2"])
    assert created.output.count("created ") == len(TOPICS)
    assert run(app, ["create", *bootstrap]).output.strip() == "all topics exist"
    shown = run(app, ["describe", *bootstrap])
    assert shown.exit_code == 0, shown.output
    Cluster(fresh).delete()


def test_topics_of_the_embedded_broker_are_described_and_fit() -> None:
    settings = Settings()
    with EmbeddedBroker(settings.topic(role) for role in TOPICS) as broker:
        states = Cluster(settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})).require()
    assert {state.partitions for state in states.values()} == {PARTITIONS}


def test_the_embedded_broker_serves_only_while_it_is_open() -> None:
    with pytest.raises(ConfigurationError, match="with block"):
        EmbeddedBroker().create("t")
