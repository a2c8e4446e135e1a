"""Read messages from chosen places on topics, outside any consumer group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaException, Message, TopicPartition

from stream.errors import ConfigurationError
from stream.kafka.clients import NONE, consumer
from stream.settings import Settings

__all__ = ["Message", "TopicReader"]

_ANSWER_S: Final = 10.0
_MANY: Final = 100
_MANY_WITHIN_S: Final = 0.2


class TopicReader:
    """Reads partitions from the offsets it is given. It takes no messages from other consumers and commits nothing.

    Example: ``with TopicReader(settings, "watch") as reader: reader.begin_at_ends(topic); reader.poll(1.0)``
    """

    def __init__(self, settings: Settings, name: str, changes: Mapping[str, Any] = NONE) -> None:
        """Connect; ``name`` is how the broker's logs show the reader, ``changes`` are settings of librdkafka."""
        self._bootstrap_servers = settings.bootstrap_servers
        # An offset that retention has deleted is an error, and not a reason to read from somewhere else.
        self._consumer = consumer(settings, f"whyrec-{name}", {"auto.offset.reset": "error"} | dict(changes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def partitions(self, topic: str) -> list[int]:
        """Return the numbers of a topic's partitions, none where there is no such topic.

        Raises:
            ConfigurationError: no broker answers.

        """
        try:
            found = self._consumer.list_topics(topic, timeout=_ANSWER_S).topics[topic]
        except KafkaException as error:
            raise self._no_answer(error) from error
        return [] if found.error is not None else sorted(found.partitions)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset that a partition still holds and the offset after its last.

        Raises:
            ConfigurationError: no broker answers.

        """
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ANSWER_S)
        except KafkaException as error:
            raise self._no_answer(error) from error
        return low, high

    def begin_at(self, topic: str, partition: int, offset: int) -> None:
        """Read one partition from an offset on."""
        self._consumer.assign([TopicPartition(topic, partition, offset)])

    def begin_at_starts(self, *topics: str) -> None:
        """Read topics from the first messages they hold."""
        self._begin(topics, 0)

    def begin_at_ends(self, *topics: str) -> None:
        """Read topics from the messages that come after this call."""
        self._begin(topics, 1)

    def poll(self, timeout_s: float) -> Message | None:
        """Return the next message; None where none came in time, or the broker is away for a moment."""
        message = self._consumer.poll(timeout_s)
        return None if message is None or message.error() is not None else message

    def messages(self) -> Iterator[Message]:
        """Yield messages as they come, without end.

        Raises:
            ConfigurationError: no broker answers.

        """
        while True:
            try:
                found = self._consumer.consume(_MANY, timeout=_MANY_WITHIN_S)
            except KafkaException as error:
                raise self._no_answer(error) from error
            yield from (message for message in found if message.error() is None)

    def _begin(self, topics: tuple[str, ...], bound: int) -> None:
        self._consumer.assign(
            [
                TopicPartition(topic, partition, self.bounds(topic, partition)[bound])
                for topic in topics
                for partition in self.partitions(topic)
            ]
        )

    def _no_answer(self, error: KafkaException) -> ConfigurationError:
        return ConfigurationError(
            f"no broker answers at {self._bootstrap_servers} ({error.args[0].str()}); check WHYREC_BOOTSTRAP_SERVERS"
        )
