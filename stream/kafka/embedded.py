"""A Kafka broker inside this process, for the demo and the tests: librdkafka's mock cluster, on real TCP.

It speaks enough of the protocol for producers, consumer groups and transactions, and keeps nothing: each partition
holds a bounded tail (a few MB), so consumers must keep up. Topics have four partitions and appear on first use.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Producer

from stream.errors import ConfigurationError

PARTITIONS: Final = 4
"""Of every topic; the mock cluster decides it."""

_TIMEOUT_S = 10.0


class EmbeddedBroker:
    """One broker with one address, alive as long as this object is open.

    Example: ``with EmbeddedBroker(["my-topic"]) as broker: connect(broker.bootstrap_servers)``
    """

    def __init__(self, topics: Iterable[str] = ()) -> None:
        self._topics = tuple(topics)
        self._owner: Producer | None = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        # The mock cluster lives inside a client: this producer sends nothing, it owns the broker.
        # Its log stays silent (level 0), since it would announce on standard error that it is a mock.
        self._owner = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1, "log_level": 0})
        brokers = self._owner.list_topics(timeout=_TIMEOUT_S).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        for topic in self._topics:
            self.create(topic)
        return self

    def create(self, topic: str) -> None:
        """Make a topic appear, with :data:`PARTITIONS` partitions; a second time does nothing.

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
