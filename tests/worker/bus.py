"""A broker with topics of this test's own, and what is needed to write to them and read from them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from stream.kafka.cluster import Cluster
from stream.kafka.embedded import EmbeddedBroker
from stream.kafka.topics import TOPICS, TopicRole
from stream.settings import Settings

PARTITIONS = 4
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Sent:
    """Where a message came to lie."""

    partition: int
    offset: int


@dataclass
class Bus:
    """One broker with topics of its own; `settings` are those that a worker on it needs."""

    settings: Settings
    _producer: Producer = field(init=False)

    def __post_init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": self.settings.bootstrap_servers, "log_level": 0})

    def send(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = -1,
    ) -> Sent:
        """Send to the impressions' topic and say where it lies."""
        places: list[Message] = []
        self._producer.produce(
            self.settings.topic("impressions"),
            value,
            key,
            partition=partition,
            headers=list(headers),
            on_delivery=lambda error, message: places.append(message) if error is None else None,
        )
        self._producer.flush(10)
        return Sent(places[0].partition() or 0, places[0].offset() or 0)

    def send_all(self, values: Sequence[tuple[bytes, Sequence[tuple[str, bytes]]]]) -> None:
        """Send many to the impressions' topic, evenly over the partitions."""
        for number, (value, headers) in enumerate(values):
            self._producer.produce(
                self.settings.topic("impressions"), value, partition=number % PARTITIONS, headers=list(headers)
            )
            self._producer.poll(0)
        self._producer.flush(30)

    @contextmanager
    def reader(self, *roles: TopicRole) -> Iterator[Reader]:
        """Read topics from their first message."""
        consumer = Consumer({"bootstrap.servers": self.settings.bootstrap_servers, "group.id": "test", "log_level": 0})
        consumer.assign([TopicPartition(self.settings.topic(role), n, 0) for role in roles for n in range(PARTITIONS)])
        try:
            yield Reader(consumer)
        finally:
            consumer.close()

    def committed(self) -> list[int]:
        """Return the next offset that the worker's group would read, for each partition of the impressions."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap_servers,
                "group.id": self.settings.consumer_group,
                "log_level": 0,
            }
        )
        try:
            topic = self.settings.topic("impressions")
            give_up = time.monotonic() + PATIENCE_S
            while True:
                try:
                    parts = consumer.committed([TopicPartition(topic, n) for n in range(PARTITIONS)], timeout=10)
                except KafkaException:  # a broker that has just come back may not coordinate groups yet
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(0.2)
                else:
                    return [max(0, part.offset) for part in parts]
        finally:
            consumer.close()


class Reader:
    """What has been read so far, in the order of arrival."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.messages: list[Message] = []

    def until(self, enough: Callable[[list[Message]], bool], limit_s: float = PATIENCE_S) -> list[Message]:
        """Read until it is enough, and fail where that takes too long."""
        give_up = time.monotonic() + limit_s
        while not enough(self.messages):
            assert time.monotonic() < give_up, f"only {len(self.messages)} messages in {limit_s:.0f} s"
            self.messages += [m for m in self._consumer.consume(500, timeout=0.1) if m.error() is None]
        return self.messages


@contextmanager
def embedded_bus(base: Settings) -> Iterator[Bus]:
    """A bus on a broker inside this process."""
    with EmbeddedBroker(base.topic(role) for role in TOPICS) as broker:
        yield Bus(base.model_copy(update={"bootstrap_servers": broker.bootstrap_servers}))


@contextmanager
def kafka_bus(base: Settings, bootstrap: str) -> Iterator[Bus]:
    """A bus on a real broker, with topics and a group that nobody else uses."""
    mark = uuid.uuid4().hex[:8]
    names = {f"{role}_topic": f"{mark}-{topic.name}" for role, topic in TOPICS.items()}
    settings = base.model_copy(
        update={"bootstrap_servers": bootstrap, "partitions": PARTITIONS, "consumer_group": f"whyrec-{mark}", **names}
    )
    cluster = Cluster(settings)
    cluster.create()
    try:
        yield Bus(settings)
    finally:
        cluster.delete()
