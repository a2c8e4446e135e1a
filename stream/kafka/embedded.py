"""A Kafka broker inside this process, for the demo and the tests: librdkafka's mock cluster, on real TCP.

It implements enough of the protocol for producers, consumer groups and transactions. Each partition holds only its
last few MB, so consumers must keep up. Topics have four partitions and are created on first use.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Producer

from stream.errors import ConfigurationError

PARTITIONS: Final = 4
"""Partitions of every topic, as the mock cluster decides."""

_TIMEOUT_S = 10.0


class EmbeddedBroker:
    """One broker with one address, which runs while this object is open.

    Example: ``with EmbeddedBroker(["my-topic"]) as broker: connect(broker.bootstrap_servers)``
    """

    def __init__(self, topics: Iterable[str] = ()) -> None:
        self._topics = tuple(topics)
        self._owner: Producer | None = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        # The mock cluster runs inside a client. This producer sends nothing; it owns the broker. Without log level 0 it
        # would announce on standard error that it is a mock.
        self._owner = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1, "log_level": 0})
        brokers = self._owner.list_topics(timeout=_TIMEOUT_S).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        for topic in self._topics:
            self.create(topic)
        return self

    def create(self, topic: str) -> None:
        """Create a topic with :data:`PARTITIONS` partitions, if it does not exist.

        Raises:
            ConfigurationError: the broker is not open.

        """
        if self._owner is None:
            raise ConfigurationError("the embedded broker is not running; use it in a with block")
        self._owner.list_topics(topic, timeout=_TIMEOUT_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner = None
        self.bootstrap_servers = ""
