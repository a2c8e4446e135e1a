"""``whyrec produce`` against the embedded broker: the topic contains every slate that is reported as delivered."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import typer
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner, Result

from models.bundle import Bundle
from models.data.movielens import load
from models.data.world import streamrec
from models.session.config import SessionConfig
from schemas.codec import Codec
from schemas.columnar import to_records
from schemas.errors import WhyrecError
from schemas.events import Impression
from schemas.validation import faults
from stream.commands.produce import produce
from stream.kafka.embedded import PARTITIONS, EmbeddedBroker
from stream.kafka.load import Ahead, limit_of
from tests.bundles import tiny_bundle
from tests.data.test_movielens import write_grouplens

TOPIC = "recommendation-impressions"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = SessionConfig(items=5000, d=16, heads=2, d_ff=32)
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), config=size, catalog=streamrec().catalog)


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker([TOPIC]) as broker:
        yield broker


def call(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(produce)
    return CliRunner().invoke(app, list(arguments))


def arrived(broker: EmbeddedBroker, expected: int) -> list[tuple[bytes, Impression]]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "test", "log_level": 0})
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
    messages = consumer.consume(expected, timeout=10.0) + consumer.consume(1, timeout=0.3)
    consumer.close()
    received = [message for message in messages if message.error() is None]
    decoded = Codec().decode_batch("impression", [(message.value(), message.headers()) for message in received])
    assert not decoded.errors
    assert not faults(decoded.batch, int(time.time() * 1000))
    records = [cast("Impression", record) for record in to_records("impression", decoded.batch)]
    return [(message.key(), record) for message, record in zip(received, records, strict=True)]


def test_the_topic_contains_the_slates_reported_as_delivered(broker: EmbeddedBroker, bundle: Path) -> None:
    where = ("--bundle", str(bundle), "--bootstrap", broker.bootstrap_servers)
    result = call("--simulated", *where, "--rate", "200", "--count", "40", "--slate-size", "5")

    assert result.exit_code == 0, result.output
    assert re.search(r"sent 40 slates \(200 items\) .* delivered 40\b", result.output)
    events = arrived(broker, 40)
    assert len({event["request_id"] for _, event in events}) == 40
    assert all(key.decode() == event["user_id_hash"] for key, event in events)
    assert {len(event["items"]) for _, event in events} == {5}
    times = sorted(event["timestamp_ms"] for _, event in events)
    assert {later - sooner for sooner, later in itertools.pairwise(times)} == {5}, "one slate every 5 ms"


@pytest.mark.slow
def test_a_duration_limits_the_number_of_slates(broker: EmbeddedBroker, bundle: Path) -> None:
    where = ("--bundle", str(bundle), "--bootstrap", broker.bootstrap_servers)
    result = call("--simulated", *where, "--rate", "5", "--duration", "3", "--slate-size", "3", "--seed", "7")

    assert result.exit_code == 0, result.output
    assert "sent 15 slates" in result.output
    assert len(arrived(broker, 15)) == 15


def test_users_are_repeated_with_new_request_ids(broker: EmbeddedBroker, tmp_path: Path) -> None:
    folder = tmp_path / "movielens"
    folder.mkdir()
    write_grouplens(folder)
    films = [1, 3, 7, 9, 12]
    rows = [(user, films[(user + place) % 5], 4, 1000 + place) for user in range(1, 11) for place in range(5)]
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    catalog = load(folder).catalog
    size = SessionConfig(items=5, d=16, heads=2, d_ff=32, max_length=4)
    made = tiny_bundle(tmp_path / "bundle", config=size, catalog=catalog)

    where = ("--bundle", str(made), "--bootstrap", broker.bootstrap_servers)
    result = call("--movielens", str(folder), *where, "--rate", "500", "--count", "12", "--slate-size", "20")

    assert result.exit_code == 0, result.output
    events = [event for _, event in arrived(broker, 12)]
    assert len({event["request_id"] for event in events}) == 12
    assert {event["user_id_hash"] for event in events} == set(load(folder).parts()[2].user_id_hash.tolist())
    assert {len(event["session"]) for event in events} == {1, 2, 3, 4}
    assert all(event["items"] for event in events)


@pytest.mark.parametrize("sources", [(), ("--simulated", "--movielens", ".")])
def test_exactly_one_source_is_required(sources: tuple[str, ...]) -> None:
    result = call(*sources)

    assert result.exit_code == 1
    assert "needs one source" in str(result.exception)


@pytest.mark.slow
def test_without_a_broker_the_error_names_the_address(bundle: Path) -> None:
    result = call("--simulated", "--bundle", str(bundle), "--bootstrap", "127.0.0.1:1")

    assert isinstance(result.exception, WhyrecError)
    assert "no broker answers at 127.0.0.1:1" in str(result.exception)


def test_an_error_while_slates_are_made_is_raised_to_the_sender(bundle: Path) -> None:
    def failing() -> Iterator[Impression]:
        Bundle.load(bundle / "nowhere")
        yield from ()

    ahead = Ahead(failing())
    ahead.fill(1)
    with pytest.raises(WhyrecError, match=r"manifest\.json"):
        ahead.take()
    ahead.close()


def test_the_smaller_of_count_and_duration_is_the_limit() -> None:
    assert limit_of(10, 5, None) == 5
    assert limit_of(10, None, 2) == 20
    assert limit_of(10, 5, 2) == 5
    assert limit_of(10, 50, 2) == 20
    with pytest.raises(WhyrecError, match="--count N or --duration S"):
        limit_of(10, None, None)
