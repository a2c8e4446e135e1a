"""A slate is shown and archived, or neither: outputs that a topic cannot take are known before anything is sent."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from models.bundle import Bundle
from schemas.codec import Codec
from stream.errors import ProducerBroken
from stream.kafka.delivery import Output, Receipt
from stream.kafka.embedded import EmbeddedBroker
from stream.kafka.lookup import limits_of
from stream.kafka.topics import TopicRole
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
        assert limits_of(Settings(bootstrap_servers=broker.bootstrap_servers), ["t"]) == {}


@pytest.mark.parametrize(("role", "limit"), [("explanations", 3_000), ("audit", 1_000)])
def test_a_slate_of_which_one_output_is_too_large_becomes_a_dead_letter(
    settings: Settings, kafka: Kafka, bundle: Bundle, codec: Codec, tmp_path: Path, role: TopicRole, limit: int
) -> None:
    small = tiny_impression(bundle, items=2)
    large = tiny_impression(bundle, items=60)
    made = [codec.encode("impression", slate, "recommendation-impressions") for slate in (small, large, small)]
    with kafka_bus(settings, kafka.bootstrap) as bus:
        _limit(bus.settings, role, limit)
        topic = bus.settings.topic(role)
        assert eventually(lambda: limits_of(bus.settings, [topic]) == {topic: limit})
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


@pytest.mark.parametrize(("role", "limit", "rows"), [("audit", 1_000, 4), ("explanations", 3_000, 64)])
def test_a_slate_is_not_shown_when_its_audit_record_is_refused_and_only_what_is_shown_is_counted(
    settings: Settings, kafka: Kafka, bundle: Bundle, codec: Codec, tmp_path: Path, role: TopicRole, limit: int,
    rows: int,
) -> None:  # fmt: skip
    """Somebody lowers a topic's limit while the worker runs, which still knows the old one."""
    slates = [tiny_impression(bundle, items=items, seed=seed) for seed, items in enumerate((2, 60, 2))]
    made = [codec.encode("impression", slate, "recommendation-impressions") for slate in slates]
    with kafka_bus(settings, kafka.bootstrap) as bus:
        one_by_one = {"batch_max_slates": "1", "batches_in_flight": "1"}
        with running(bus.settings, tmp_path / "log", **one_by_one) as worker:
            _limit(bus.settings, role, limit)
            topic = bus.settings.topic(role)
            assert eventually(lambda: limits_of(bus.settings, [topic]) == {topic: limit})
            bus.send_all([(each.value, each.headers) for each in made])
            with bus.reader("dead_letters") as reader:
                [letter] = reader.until(lambda got: len(got) >= 1)
            until_archived(bus.settings, rows)
            assert eventually(lambda: bus.committed() == [1, 1, 1, 0])
            metrics = worker.metrics()
            assert worker.stop() == 0
        with bus.reader("explanations") as reader:
            shown = reader.until(lambda got: len(got) >= 2)
        archived = archived_rows(bus.settings)
    found = {codec.decode("explanation", each.value(), each.headers() or ())["request_id"] for each in shown}
    assert found == {slates[0]["request_id"], slates[2]["request_id"]}
    assert letter.value() == made[1].value
    assert b"the broker refuses the " in dict(letter.headers() or ())["error"]
    assert archived.total() == rows
    counted = {
        name: float(value) for name, value in (line.rsplit(" ", 1) for line in metrics.splitlines() if line[0] != "#")
    }
    assert counted["whyrec_explanations_total"] == 2
    assert sum(value for name, value in counted.items() if name.startswith("whyrec_items_explained_total")) == 4
    assert counted['whyrec_dead_letters_total{stage="deliver"}'] == 1


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


def _limit(settings: Settings, role: TopicRole, limit: int) -> None:
    resource = ConfigResource(ResourceType.TOPIC, settings.topic(role))
    resource.add_incremental_config(
        ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    )
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    admin.incremental_alter_configs([resource])[resource].result()
