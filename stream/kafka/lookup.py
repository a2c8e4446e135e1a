"""What only the broker can say: which topic bears a name, and where in a partition there is something to read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from functools import cache
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType, TopicDescription

from stream.archive.log.commitlog import Origin
from stream.errors import ConfigurationError

log = structlog.get_logger("whyrec.sink")

_LOOK_LIMIT_S: Final = 10.0
_ASK_LIMIT_S: Final = 15.0
_WATCH_EVERY_S: Final = 1.0
_URL_SAFE: Final = str.maketrans("+/", "-_")
_EMBEDDED: Final = "mockCluster"
"""How the embedded broker's ids begin. It knows no topic ids or settings, and would keep us waiting for an answer."""

_NO_SUCH_QUESTION: Final = frozenset(
    {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE, KafkaError.TOPIC_AUTHORIZATION_FAILED}  # noqa: SLF001 (a public code)
)
"""What a broker says that will never tell; anything else may be over in a moment."""


@cache
def origin_of(bootstrap_servers: str, topic: str) -> Origin | None:
    """Return the ids of the cluster and of the topic, or None where the broker has none.

    It is asked once: what a worker writes under an id belongs to that id, to the worker's end (:func:`made_anew`).

    Raises:
        ConfigurationError: the broker does not say now.

    """
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        cluster = str(admin.list_topics(timeout=_ASK_LIMIT_S).cluster_id)
        if cluster.startswith(_EMBEDDED):
            return None
        asked = admin.describe_topics(TopicCollection([topic]), request_timeout=_ASK_LIMIT_S)
        found = topic_id(asked[topic].result())
    except KafkaException as error:
        _require_hopeless(error, f"the id of {topic}")
        log.warning("the broker does not tell a topic's id; a topic made anew is not recognised", error=str(error))
        return None
    return Origin(cluster, found) if found is not None else None


def topic_id(described: TopicDescription) -> str | None:
    """Return a topic's id as Kafka's own tools print it, or None where the broker has none.

    Kafka writes ids in the URL-safe alphabet of Base64 (RFC 4648, section 5); the client in the other one, whose ``/``
    would be a folder in the name of a chain.
    """
    if described.topic_id is None:
        return None
    return str(described.topic_id).translate(_URL_SAFE)


def limits_of(bootstrap_servers: str, topics: Sequence[str]) -> dict[str, int]:
    """Return max.message.bytes by topic, of those for which the broker tells it.

    Raises:
        ConfigurationError: the broker does not say now.

    """
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    resources = {topic: ConfigResource(ResourceType.TOPIC, topic) for topic in topics}
    found: dict[str, int] = {}
    try:
        if str(admin.list_topics(timeout=_ASK_LIMIT_S).cluster_id).startswith(_EMBEDDED):
            return {}
        answers = admin.describe_configs(list(resources.values()), request_timeout=_ASK_LIMIT_S)
        for topic, resource in resources.items():
            found[topic] = int(answers[resource].result()["max.message.bytes"].value)
    except KafkaException as error:
        _require_hopeless(error, f"max.message.bytes of {', '.join(topics)}")
        log.warning("the broker does not tell how large messages may be; it may refuse some", error=str(error))
    return found


def made_anew(bootstrap_servers: str, topics: Sequence[str]) -> str | None:
    """Wait until one of the topics bears another id than :func:`origin_of` found, and return its name.

    Returns None where the broker has no ids.
    """
    known = {topic: origin for topic in topics if (origin := origin_of(bootstrap_servers, topic)) is not None}
    if not known:
        return None
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    while True:
        time.sleep(_WATCH_EVERY_S)
        asked = admin.describe_topics(TopicCollection(list(known)), request_timeout=_ASK_LIMIT_S)
        for topic, origin in known.items():
            # Deleted and not yet there again, or no broker that answers: go on asking.
            with contextlib.suppress(KafkaException):
                if topic_id(asked[topic].result()) != origin.topic:
                    return topic


def _require_hopeless(error: KafkaException, wanted: str) -> None:
    if error.args[0].code() not in _NO_SUCH_QUESTION:
        raise ConfigurationError(f"the broker does not tell {wanted} ({error.args[0].str()}); is it up?") from error


def first_offset(bootstrap_servers: str, topic: str, partition: int, at: int) -> int | None:
    """Return the first offset, from ``at`` on, at which a partition has a record; None if it gives none in time."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "whyrec-look",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "log_level": 0,
        }
    )
    try:
        reader.assign([TopicPartition(topic, partition, at)])
        message = reader.poll(_LOOK_LIMIT_S)
    finally:
        reader.close()
    return message.offset() if message is not None and message.error() is None else None
