"""All clients of confluent-kafka are made here, from the settings.

:func:`connection` is what they share. The worker's consumer is Faust's: ``stream/kafka/app.py`` makes it from the same
settings.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from stream.settings import Settings

__all__ = ["BATCH_BYTES", "KafkaError", "Message", "admin", "connection", "consumer", "producer", "producer_settings"]

BATCH_BYTES: Final = 1_000_000
"""Bytes of a record batch, unless a topic takes less."""

NONE: Final[Mapping[str, Any]] = MappingProxyType({})

_MESSAGE_BYTES: Final = 64 * 1024 * 1024


def connection(settings: Settings) -> dict[str, Any]:
    """Return how any client reaches the brokers, in librdkafka's names.

    The clients log nothing: what goes wrong is raised, and the worker's producer has a logger of its own.
    """
    return {"bootstrap.servers": settings.bootstrap_servers, "client.id": "whyrec", "log_level": 0}


def admin(settings: Settings) -> AdminClient:
    """Return a client that describes and creates topics."""
    return AdminClient(connection(settings))


def consumer(settings: Settings, group: str, changes: Mapping[str, Any] = NONE) -> Consumer:
    """Return a consumer that commits only when told to; ``changes`` are settings of librdkafka."""
    return Consumer(connection(settings) | {"group.id": group, "enable.auto.commit": False} | dict(changes))


def producer(settings: Settings, changes: Mapping[str, Any] = NONE, *, smallest_limit: int = BATCH_BYTES) -> Producer:
    """Return a producer with :func:`producer_settings`; ``changes`` are settings of librdkafka."""
    return Producer(producer_settings(settings, smallest_limit=smallest_limit) | dict(changes))


def producer_settings(settings: Settings, *, smallest_limit: int = BATCH_BYTES) -> dict[str, Any]:
    """Return the settings of the worker's producer; ``python -m bench.produce`` measures what each costs.

    ``smallest_limit`` is the smallest max.message.bytes of the topics, which limits a record batch as well.
    """
    own = {
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": int(settings.delivery_timeout_s * 1000),
        "retry.backoff.ms": 50,
        "retry.backoff.max.ms": 2000,
        "reconnect.backoff.max.ms": 2000,
        "linger.ms": 2.0,
        "compression.type": "lz4",
        # The limit of the broker (1 MB by default) decides which message is too large, not that of the client.
        "message.max.bytes": _MESSAGE_BYTES,
        "batch.size": min(BATCH_BYTES, smallest_limit),
        # Java clients place keys like this, so a user's explanations are on the partition where services expect them.
        "partitioner": "murmur2_random",
        "log_level": 6,
        "logger": logging.getLogger("librdkafka"),
    }
    return connection(settings) | own
