"""Impressions of a transactional producer: what it took back was never shown, and nothing is said of it."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from models.bundle import Bundle
from schemas.codec import Codec
from stream.settings import Settings
from tests.bundles import tiny_impression
from tests.parts.kafka import Kafka
from tests.worker.bus import Bus, kafka_bus
from tests.worker.running import running, until_archived

ITEMS = 6


def test_what_a_producer_takes_back_is_neither_explained_nor_archived(
    kafka: Kafka, settings: Settings, bundle: Bundle, codec: Codec, tmp_path: Path
) -> None:
    slates = [tiny_impression(bundle, items=ITEMS, seed=seed) for seed in range(12)]
    taken_back, kept = slates[:4], slates[4:]
    with kafka_bus(settings, kafka.bootstrap) as bus:
        recommender = Producer(
            {"bootstrap.servers": kafka.bootstrap, "transactional.id": str(uuid.uuid4()), "log_level": 0}
        )
        recommender.init_transactions(30)
        with running(bus.settings, tmp_path / "log"), bus.reader("explanations") as reader:
            for number, slate in enumerate(kept):
                if number % 2 == 0:
                    _send(recommender, bus, codec, taken_back[number // 2])
                    recommender.abort_transaction(30)
                _send(recommender, bus, codec, slate)
                recommender.commit_transaction(30)
            # The last slate is kept and stands behind all others: once it is there, so is all that will ever be.
            explained = reader.until(lambda got: len(got) >= len(kept))
            rows = until_archived(bus.settings, len(kept) * ITEMS)

    ids = Counter(codec.decode("explanation", m.value(), m.headers() or ())["request_id"] for m in explained)
    assert ids == Counter(slate["request_id"] for slate in kept)
    assert set(rows.values()) == {ITEMS}


def _send(recommender: Producer, bus: Bus, codec: Codec, slate: dict[str, Any]) -> None:
    """Begin a transaction and send a slate in it."""
    encoded = codec.encode("impression", slate, "recommendation-impressions")
    recommender.begin_transaction()
    recommender.produce(bus.settings.topic("impressions"), encoded.value, partition=0, headers=encoded.headers)
    recommender.flush(30)
