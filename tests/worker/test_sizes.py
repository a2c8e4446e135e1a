"""A slate is shown and archived, or neither: outputs that a topic cannot take are known before anything is sent."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from models.bundle import Bundle
from schemas.codec import Codec
from stream.agents.sink import SinkAgent
from stream.archive.objects import MemoryStore
from stream.archive.writing.decode import Record, Unreadable
from stream.errors import DeliveryError, ProducerBroken
from stream.kafka.delivery import Output, Receipt
from stream.kafka.embedded import EmbeddedBroker
from stream.kafka.lookup import limits_of
from stream.kafka.topics import TopicRole
from stream.metrics import Metrics
from stream.settings import Settings
from tests.archive.checks import eventually
from tests.bundles import tiny_impression
from tests.parts.kafka import Kafka
from tests.worker.bus import kafka_bus
from tests.worker.running import archived_rows, running, until_archived

NOISE = random.Random(1).randbytes(2_000)


@pytest.mark.parametrize(
    ("output", "fits"),
    [
        (Output("t", b"k", None), True),
        (Output("t", b"k", NOISE[:700]), True),
        (Output("t", b"k", NOISE[:1000]), False),
        (Output("t", b"k", bytes(100_000)), True),  # compressed, it is next to nothing
        (Output("t", NOISE, b"v"), False),
        (Output("t", b"k", b"v", [("h", NOISE)]), False),
    ],
)
def test_what_a_topic_takes_is_known_beforehand(output: Output, fits: bool) -> None:
    assert output.fits(1_000) is fits


def test_the_embedded_broker_tells_no_limits() -> None:
    with EmbeddedBroker(["t"]) as broker:
        assert limits_of(broker.bootstrap_servers, ["t"]) == {}


@pytest.mark.parametrize(("role", "limit"), [("explanations", 3_000), ("audit", 1_000)])
def test_a_slate_of_which_one_output_is_too_large_is_buried_whole(
    settings: Settings, kafka: Kafka, bundle: Bundle, codec: Codec, tmp_path: Path, role: TopicRole, limit: int
) -> None:
    small = tiny_impression(bundle, items=2)
    large = tiny_impression(bundle, items=60)
    made = [codec.encode("impression", slate, "recommendation-impressions") for slate in (small, large, small)]
    with kafka_bus(settings, kafka.bootstrap) as bus:
        _limit(bus.settings, role, limit)
        topic = bus.settings.topic(role)
        assert eventually(lambda: limits_of(kafka.bootstrap, [topic]) == {topic: limit})
        with running(bus.settings, tmp_path / "log") as worker:
            bus.send_all([(each.value, each.headers) for each in made])
            with bus.reader("dead_letters") as reader:
                [letter] = reader.until(lambda got: len(got) >= 1)
            until_archived(bus.settings, 4)
            with bus.reader("explanations") as reader:
                assert len(reader.until(lambda got: len(got) >= 2)) == 2
            assert worker.stop() == 0
        headers = dict(letter.headers() or ())
        assert letter.value() == made[1].value
        assert headers["stage"] == b"deliver"
        assert f"for {topic}, which takes {limit}".encode() in headers["error"]
        assert archived_rows(bus.settings).total() == 4


class _Fatal:
    """A KafkaError of a producer that has given up, as librdkafka reports it for each message."""

    def code(self) -> int:
        return -150

    def fatal(self) -> bool:
        return True

    def name(self) -> str:
        return "_FATAL"

    def str(self) -> str:
        return "out of order sequence number"


def test_a_producer_that_cannot_go_on_says_so() -> None:
    receipt = Receipt(1)
    receipt.report(0, _Fatal())  # type: ignore[arg-type]
    with pytest.raises(ProducerBroken, match="start anew"):
        receipt.future.result(0)


class Full:
    """Dead letters of which the topic takes none above so many bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: list[Output] = []

    def send(self, outputs: list[Output]) -> Receipt:
        receipt = Receipt(len(outputs))
        for index, output in enumerate(outputs):
            fits = len(output.value or b"") <= self.limit
            self.taken += [output] if fits else []
            receipt.report(index, None if fits else KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        return receipt


def test_an_unreadable_record_too_large_for_the_dead_letters_is_named_there(settings: Settings) -> None:
    topic = Full(100)
    agent = _sink_agent(settings, topic)
    records = [Record(1, offset, b"key", NOISE[:size], [("h", b"v")]) for offset, size in ((7, 50), (8, 500))]
    agent._bury([Unreadable(record, "garbage") for record in records])
    assert [output.value for output in topic.taken] == [NOISE[:50], None]
    headers = dict(topic.taken[1].headers)
    assert (headers["partition"], headers["offset"], headers["stage"]) == (b"1", b"8", b"archive")


def test_a_record_that_even_so_reaches_no_dead_letters_is_not_called_rejected(settings: Settings) -> None:
    agent = _sink_agent(settings, Full(-1))
    with pytest.raises(DeliveryError, match="not even a message without value"):
        agent._bury([Unreadable(Record(0, 0, None, b"v", []), "garbage")])


def _sink_agent(settings: Settings, delivery: Full) -> SinkAgent:
    app = SimpleNamespace(settings=settings, metrics=Metrics(), give_up=None)
    decoder = SimpleNamespace(decode=None)
    return SinkAgent(cast("Any", app), MemoryStore(), cast("Any", decoder), cast("Any", delivery))


def _limit(settings: Settings, role: TopicRole, limit: int) -> None:
    resource = ConfigResource(ResourceType.TOPIC, settings.topic(role))
    resource.add_incremental_config(
        ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    )
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    admin.incremental_alter_configs([resource])[resource].result()
