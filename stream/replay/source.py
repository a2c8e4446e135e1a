"""Read the original impression, from its offset on Kafka or from a file."""

from __future__ import annotations

from typing import Any, Final, cast
from uuid import UUID

from schemas.codec import Codec
from schemas.errors import WhyrecError
from schemas.events import Impression
from stream.errors import ConfigurationError
from stream.kafka.lookup import origin_of
from stream.kafka.reading import TopicReader
from stream.replay.archived import Source
from stream.settings import Settings

_ANSWER_S: Final = 10.0
_NEEDED: Final = "give the impression event itself with --impression FILE (as JSON, or in the Confluent wire format)"


class ImpressionGone(WhyrecError):
    """Kafka does not hold the impression, or no longer holds it."""


class OtherRequest(WhyrecError):
    """The impression belongs to another request than the archived rows."""


def from_kafka(settings: Settings, codec: Codec, source: Source, request: UUID) -> Impression:
    """Read one impression event from its topic, partition and offset.

    Raises:
        ImpressionGone: the retention of the topic has passed, or the topic was created again; the message names
            the cause and the remedy.
        ConfigurationError: no broker answers.
        UndecodableEvent: the record is not an impression event.

    """
    topic = settings.topic("impressions")
    place = f"{topic}, partition {source.partition}, offset {source.offset}"
    with TopicReader(settings, "replay") as reader:
        low, high = _bounds(reader, settings, topic, source.partition)
        _require_same_topic(settings, topic, source)
        if source.offset < low:
            raise ImpressionGone(f"Kafka no longer holds {place}: its retention has reached offset {low}; {_NEEDED}")
        if source.offset >= high:
            raise ImpressionGone(f"Kafka has no {place}: it ends at {high}, so the topic was created again; {_NEEDED}")
        reader.begin_at(topic, source.partition, source.offset)
        message = reader.poll(_ANSWER_S)
    if message is None or message.offset() != source.offset:
        raise ImpressionGone(f"Kafka returned no record at {place}; {_NEEDED}")
    impression = codec.decode("impression", message.value(), message.headers())
    if not _is_of(impression, request):
        raise ImpressionGone(f"{place} holds another request, so the topic was created again; {_NEEDED}")
    return cast("Impression", impression)


def from_bytes(codec: Codec, value: bytes, request: UUID) -> Impression:
    """Read one impression event that was kept elsewhere.

    Raises:
        OtherRequest: the event belongs to another request.
        UndecodableEvent: the bytes are not an impression event.

    """
    impression = codec.decode("impression", value)
    if not _is_of(impression, request):
        raise OtherRequest(f"the file holds request {impression['request_id']!r}; expected {request}")
    return cast("Impression", impression)


def _is_of(impression: dict[str, Any], request: UUID) -> bool:
    return str(impression["request_id"]).lower() == str(request)


def _require_same_topic(settings: Settings, topic: str, source: Source) -> None:
    if not source.topic_id:
        return
    origin = origin_of(settings, topic)
    if origin is not None and origin.topic != source.topic_id:
        raise ImpressionGone(
            f"{topic} was created again: its id is {origin.topic}, but the impression was sent to {source.topic_id}; "
            f"{_NEEDED}"
        )


def _bounds(reader: TopicReader, settings: Settings, topic: str, partition: int) -> tuple[int, int]:
    try:
        if partition not in reader.partitions(topic):
            raise ImpressionGone(f"{settings.bootstrap_servers} has no {topic} with a partition {partition}; {_NEEDED}")
        return reader.bounds(topic, partition)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}, or {_NEEDED}") from error
