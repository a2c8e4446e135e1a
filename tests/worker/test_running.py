"""What a running worker owes its topics, the same on the embedded broker and on Apache Kafka."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from models.bundle import Bundle
from schemas.codec import Codec
from tests.bundles import tiny_impression
from tests.worker.bus import PARTITIONS, Bus
from tests.worker.running import archived_rows, running, until_archived, worker_on

pytestmark = pytest.mark.slow

ITEMS = 6


@pytest.fixture(scope="module")
def slates(bundle: Bundle) -> list[dict[str, Any]]:
    distinct = [tiny_impression(bundle, items=ITEMS, seed=seed) for seed in range(8)]
    return [distinct[n % 8] | {"request_id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(n)))} for n in range(240)]


@pytest.fixture(scope="module")
def encoded(slates: list[dict[str, Any]], codec: Codec) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
    made = (codec.encode("impression", slate, "recommendation-impressions") for slate in slates)
    return [(each.value, each.headers) for each in made]


def request_ids(messages: list[Message], codec: Codec) -> Counter[str]:
    return Counter(codec.decode("explanation", m.value(), m.headers() or ())["request_id"] for m in messages)


def test_every_impression_is_explained_archived_committed_and_counted(
    bus: Bus, codec: Codec, encoded: list[Any], slates: list[dict[str, Any]], tmp_path: Path
) -> None:
    with running(bus.settings, tmp_path / "log") as worker:
        bus.send_all(encoded[:100])
        odd = bus.send(b"no impression", key=b"a key", headers=[("trace", b"1")], partition=2)
        with bus.reader("explanations") as reader:
            explanations = reader.until(lambda got: len(got) >= 100)
        with bus.reader("audit") as reader:
            audits = reader.until(lambda got: len(got) >= 100)
        with bus.reader("dead_letters") as reader:
            [letter] = reader.until(lambda got: len(got) >= 1)
        rows = until_archived(bus.settings, 100 * ITEMS)
        metrics = worker.metrics()
        assert worker.stop() == 0

    assert request_ids(explanations, codec) == Counter(slate["request_id"] for slate in slates[:100])
    users = {slate["request_id"]: slate["user_id_hash"] for slate in slates}
    for message in explanations:
        explanation = codec.decode("explanation", message.value(), message.headers() or ())
        assert (message.key() or b"").decode() == explanation["user_id_hash"] == users[explanation["request_id"]]
        assert [item["position"] for item in explanation["items"]] == list(range(1, ITEMS + 1))
    for message in audits:
        audit = codec.decode("audit", message.value(), message.headers() or ())
        assert audit["source_partition"] == message.partition()

    headers = dict(letter.headers() or ())
    assert (letter.key(), letter.value(), headers["trace"]) == (b"a key", b"no impression", b"1")
    assert headers["topic"] == bus.settings.topic("impressions").encode()
    assert (headers["partition"], headers["offset"]) == (b"2", str(odd.offset).encode())
    assert headers["stage"] == b"decode"

    assert set(rows.values()) == {ITEMS}
    assert len(rows) == 100
    assert bus.committed() == [25, 25, 26, 25]
    assert re.search(r"^whyrec_events_in_total 101\.0$", metrics, re.MULTILINE)
    assert re.search(r"^whyrec_explanations_total 100\.0$", metrics, re.MULTILINE)
    assert re.search(r'^whyrec_slates_explained_total\{version="tiny@1"\} 100\.0$', metrics, re.MULTILINE)
    assert re.search(r'^whyrec_dead_letters_total\{stage="decode"\} 1\.0$', metrics, re.MULTILINE)
    assert re.search(r'^whyrec_stage_seconds_count\{stage="score"\} [1-9]', metrics, re.MULTILINE)
    assert re.search(rf"^whyrec_archived_rows_total {100 * ITEMS}\.0$", metrics, re.MULTILINE)


def test_a_worker_killed_in_mid_stream_leaves_nothing_out_and_archives_nothing_twice(
    bus: Bus, codec: Codec, encoded: list[Any], slates: list[dict[str, Any]], tmp_path: Path
) -> None:
    with bus.reader("explanations") as reader:
        with running(bus.settings, tmp_path / "log") as first:
            bus.send_all(encoded)
            # Some are done, some are not: this is the moment.
            reader.until(lambda got: len(got) >= 50)
            first.kill()
        with running(bus.settings, tmp_path / "log") as second:
            everything = {slate["request_id"] for slate in slates}
            reader.until(lambda got: len(got) >= len(slates) and set(request_ids(got, codec)) == everything)
            until_archived(bus.settings, len(slates) * ITEMS)
            assert second.stop() == 0
    rows = archived_rows(bus.settings)
    assert set(rows) == {(n % PARTITIONS, n // PARTITIONS) for n in range(len(slates))}
    assert set(rows.values()) == {ITEMS}


def test_a_worker_told_to_end_in_mid_stream_finishes_its_batches_and_the_next_repeats_nothing(
    bus: Bus, codec: Codec, encoded: list[Any], slates: list[dict[str, Any]], tmp_path: Path
) -> None:
    with bus.reader("explanations") as reader:
        with running(bus.settings, tmp_path / "log", batch_max_slates="1", batches_in_flight="1") as first:
            bus.send_all(encoded)
            reader.until(lambda got: len(got) >= 20)
            began = time.monotonic()
            assert first.stop() == 0
            assert time.monotonic() - began < 30
        so_far = bus.committed()
        assert 20 <= sum(so_far) < len(slates), "it was not in mid-stream"
        reader.until(lambda got: len(got) >= sum(so_far))
        assert len(archived_rows(bus.settings)) <= sum(so_far)
        with running(bus.settings, tmp_path / "log") as second:
            reader.until(lambda got: len(got) >= len(slates))
            until_archived(bus.settings, len(slates) * ITEMS)
            assert second.stop() == 0
        assert request_ids(reader.messages, codec) == Counter(slate["request_id"] for slate in slates)
    assert set(archived_rows(bus.settings).values()) == {ITEMS}


@pytest.mark.parametrize(
    "bus", [pytest.param("kafka", marks=pytest.mark.server("kafka"))], indirect=True
)  # the embedded broker's groups take one member
def test_workers_that_come_and_go_share_the_stream_and_lose_nothing(
    bus: Bus, codec: Codec, encoded: list[Any], slates: list[dict[str, Any]], tmp_path: Path
) -> None:
    with (
        bus.reader("explanations") as reader,
        running(bus.settings, tmp_path / "first.log", batch_max_slates="8") as first,
    ):
        bus.send_all(encoded[:60])
        second = worker_on(bus.settings, tmp_path / "second.log", batch_max_slates="8")
        second.start()
        try:
            bus.send_all(encoded[60:120])
            second.wait_until_ready()
            bus.send_all(encoded[120:180])
            reader.until(lambda got: len(set(request_ids(got, codec))) >= 150)
            assert second.stop() == 0
            bus.send_all(encoded[180:])
            everything = {slate["request_id"] for slate in slates}
            reader.until(lambda got: len(got) >= len(slates) and set(request_ids(got, codec)) == everything)
            until_archived(bus.settings, len(slates) * ITEMS)
            assert first.stop() == 0
        finally:
            second.kill()
    rows = archived_rows(bus.settings)
    assert (len(rows), set(rows.values())) == (len(slates), {ITEMS})


@pytest.mark.parametrize("bus", ["embedded"], indirect=True)
def test_one_agent_alone_leaves_the_other_its_work(
    bus: Bus, encoded: list[Any], slates: list[dict[str, Any]], tmp_path: Path
) -> None:
    with running(bus.settings, tmp_path / "log", "--agents", "explain") as explaining:
        bus.send_all(encoded[:20])
        with bus.reader("audit") as reader:
            reader.until(lambda got: len(got) >= 20)
        assert explaining.stop() == 0
    assert not archived_rows(bus.settings)
    with running(bus.settings, tmp_path / "log", "--agents", "sink") as archiving:
        until_archived(bus.settings, 20 * ITEMS)
        assert archiving.stop() == 0
