"""Outputs are acknowledged as a batch, refused one by one, and never lost in silence."""

from __future__ import annotations

import random

import pytest

from stream.errors import DeliveryError
from stream.kafka.delivery import Delivery, Output, Receipt
from stream.kafka.embedded import EmbeddedBroker
from stream.settings import Settings
from tests.parts.kafka import Kafka
from tests.worker.bus import Bus, kafka_bus


def test_a_batch_is_acknowledged_once_all_of_it_lies_on_the_broker(bus: Bus) -> None:
    delivery = Delivery(bus.settings)
    topic = bus.settings.topic("explanations")
    receipt = delivery.send([Output(topic, b"user", b"%d" % n, [("h", b"1")]) for n in range(500)])
    assert receipt.future.result(30) == []
    with bus.reader("explanations") as reader:
        read = reader.until(lambda messages: len(messages) >= 500)
    assert sorted(int(m.value() or b"") for m in read) == list(range(500))
    assert len({m.partition() for m in read}) == 1  # one key, one partition
    assert read[0].headers() == [("h", b"1")]
    assert delivery.close(10) == 0


def test_an_output_goes_to_the_partition_it_names(bus: Bus) -> None:
    delivery = Delivery(bus.settings)
    topic = bus.settings.topic("audit")
    assert delivery.send([Output(topic, b"same", b"v", partition=n % 4) for n in range(8)]).future.result(30) == []
    with bus.reader("audit") as reader:
        read = reader.until(lambda messages: len(messages) >= 8)
    assert sorted(m.partition() or 0 for m in read) == [0, 0, 1, 1, 2, 2, 3, 3]
    delivery.close(10)


def test_a_batch_of_nothing_is_acknowledged_at_once(bus: Bus) -> None:
    delivery = Delivery(bus.settings)
    assert delivery.send([]).future.result(0) == []
    delivery.close(10)


def test_a_partition_that_is_not_there_is_an_error_of_the_batch(bus: Bus) -> None:
    delivery = Delivery(bus.settings.model_copy(update={"delivery_timeout_s": 5}))
    topic = bus.settings.topic("audit")
    receipt = delivery.send([Output(topic, None, b"good"), Output(topic, None, b"lost", partition=77)])
    with pytest.raises(DeliveryError, match="UNKNOWN_PARTITION"):
        receipt.future.result(30)
    delivery.close(10)


def test_a_message_too_large_is_refused_by_its_place_and_the_rest_delivered(settings: Settings, kafka: Kafka) -> None:
    with kafka_bus(settings, kafka.bootstrap) as bus:
        delivery = Delivery(bus.settings)
        topic = bus.settings.topic("explanations")
        noise = random.Random(1).randbytes(4_000_000)  # the broker takes 1 MB
        receipt = delivery.send([Output(topic, b"a", b"1"), Output(topic, b"b", noise), Output(topic, b"c", b"3")])
        refused = receipt.future.result(30)
        assert [each.index for each in refused] == [1]
        assert "too large" in refused[0].error.lower()
        with bus.reader("explanations") as reader:
            assert sorted(m.value() or b"" for m in reader.until(lambda got: len(got) >= 2)) == [b"1", b"3"]
        delivery.close(10)


@pytest.mark.slow
def test_a_broker_that_stays_away_is_reported_after_the_time_given() -> None:
    with EmbeddedBroker(["t"]) as broker:
        address = broker.bootstrap_servers
    delivery = Delivery(Settings(bootstrap_servers=address, delivery_timeout_s=1))
    receipt = delivery.send([Output("t", None, b"v")])
    with pytest.raises(DeliveryError, match="did not acknowledge"):
        receipt.future.result(30)
    delivery.close(1)


def test_an_acknowledgement_that_nobody_waits_for_any_more_is_taken_all_the_same() -> None:
    receipt = Receipt(1)
    receipt.future.cancel()  # as the event loop does at its end with what was unfinished
    receipt.report(0, None)
    assert receipt.future.result(0) == []
