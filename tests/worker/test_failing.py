"""What a worker does when it cannot go on: it logs why, ends with status 1, and acknowledges nothing unfinished."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from models.bundle import Bundle
from schemas.codec import Codec
from stream.cli import app
from stream.demo.worker_process import WorkerProcess
from stream.errors import ConfigurationError, WorkerFailed
from stream.kafka.embedded import EmbeddedBroker
from stream.settings import Settings
from tests.bundles import tiny_impression
from tests.parts.kafka import Kafka
from tests.worker.bus import Bus, embedded_bus, kafka_bus
from tests.worker.running import archived_rows, running, until_archived, worker_on

ITEMS = 6
SLATES = 200


def until_ended(worker: WorkerProcess, limit_s: float = 60) -> int:
    give_up = time.monotonic() + limit_s
    while (status := worker.exit_status) is None:
        assert time.monotonic() < give_up, f"it still runs:\n{worker.last_words()}"
        time.sleep(0.05)
    return status


@pytest.fixture(scope="module")
def encoded(bundle: Bundle) -> list[Any]:
    codec = Codec()
    slate = tiny_impression(bundle, items=ITEMS)
    made = [codec.encode("impression", slate, "recommendation-impressions")] * SLATES
    return [(each.value, each.headers) for each in made]


@pytest.mark.slow
def test_without_its_topics_a_worker_does_not_start(settings: Settings, tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        changed = settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
        worker = worker_on(changed, tmp_path / "log", log_format="console")
        worker.start()
        with pytest.raises(WorkerFailed, match="topics create"):
            worker.wait_until_ready()
        assert worker.exit_status == 1


@pytest.mark.slow
def test_a_registry_that_stays_away_ends_the_worker_and_loses_nothing(
    settings: Settings, encoded: list[Any], tmp_path: Path
) -> None:
    away = {"schema_registry_url": "http://127.0.0.1:1", "delivery_timeout_s": "2"}
    with embedded_bus(settings) as bus:
        with running(bus.settings, tmp_path / "log", "--agents", "explain", **away) as worker:
            bus.send_all(encoded[:8])
            assert until_ended(worker) == 1
            assert "registry" in worker.last_words()
        assert bus.committed() == [0, 0, 0, 0]
        with running(bus.settings, tmp_path / "log") as worker:
            until_archived(bus.settings, 8 * ITEMS)
            assert worker.stop() == 0


@pytest.mark.slow
def test_the_lag_is_told_of_partitions_on_which_nothing_was_ever_finished(
    settings: Settings, encoded: list[Any], tmp_path: Path
) -> None:
    away = {"schema_registry_url": "http://127.0.0.1:1", "delivery_timeout_s": "60"}
    with (
        embedded_bus(settings) as bus,
        running(bus.settings, tmp_path / "log", "--agents", "explain", **away) as worker,
    ):
        bus.send_all(encoded[:8])
        topic = bus.settings.topic("impressions")
        wanted = {f'whyrec_lag{{partition="{number}",topic="{topic}"}} 2.0' for number in range(4)}
        give_up = time.monotonic() + 30
        while not wanted <= set(worker.metrics().splitlines()):
            assert time.monotonic() < give_up, worker.metrics()
            time.sleep(0.2)


@pytest.fixture
def kafka_alone(settings: Settings, kafka: Kafka) -> Any:
    with kafka_bus(settings, kafka.bootstrap) as bus:
        yield bus, kafka


def test_a_broker_that_is_away_for_a_moment_is_waited_for(
    kafka_alone: tuple[Bus, Kafka], encoded: list[Any], tmp_path: Path
) -> None:
    bus, kafka = kafka_alone
    with running(bus.settings, tmp_path / "log", delivery_timeout_s="60", batch_max_slates="4") as worker:
        bus.send_all(encoded)
        with bus.reader("explanations") as reader:
            reader.until(lambda got: len(got) >= 10)
        kafka.kill()
        time.sleep(2)
        kafka.start()
        until_archived(bus.settings, SLATES * ITEMS)
        assert worker.stop() == 0
    rows = archived_rows(bus.settings)
    assert (len(rows), set(rows.values())) == (SLATES, {ITEMS})


def test_a_broker_that_stays_away_ends_the_worker_and_the_next_one_goes_on(
    kafka_alone: tuple[Bus, Kafka], encoded: list[Any], tmp_path: Path
) -> None:
    bus, kafka = kafka_alone
    one_by_one = {"batch_max_slates": "1", "batches_in_flight": "2"}
    with running(bus.settings, tmp_path / "log", delivery_timeout_s="2", **one_by_one) as worker:
        bus.send_all(encoded)
        with bus.reader("explanations") as reader:
            reader.until(lambda got: len(got) >= 10)
        kafka.kill()
        assert until_ended(worker) == 1
        assert "did not acknowledge" in worker.last_words()
    kafka.start()
    assert sum(bus.committed()) < SLATES
    with running(bus.settings, tmp_path / "log") as worker:
        until_archived(bus.settings, SLATES * ITEMS)
        assert worker.stop() == 0
    rows = archived_rows(bus.settings)
    assert (len(rows), set(rows.values())) == (SLATES, {ITEMS})


@pytest.mark.parametrize("agents", ["", "explain,dance", ","])
def test_agents_that_do_not_exist_are_named(agents: str) -> None:
    result = CliRunner().invoke(app, ["worker", "--agents", agents])
    assert isinstance(result.exception, ConfigurationError)
    assert "explain and sink" in str(result.exception)
