"""Questions that only the broker can answer: the id of a topic, the size of its messages, what a partition holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, ResourceType, TopicDescription

from stream.archive.log.commitlog import Origin
from stream.errors import ConfigurationError
from stream.kafka.clients import admin
from stream.kafka.reading import TopicReader
from stream.settings import Settings

log = structlog.get_logger("whyrec.worker")

_LOOK_LIMIT_S: Final = 10.0
_ASK_LIMIT_S: Final = 15.0
_WATCH_EVERY_S: Final = 1.0
_URL_SAFE: Final = str.maketrans("+/", "-_")
_EMBEDDED: Final = "mockCluster"
"""How the cluster ids of the embedded broker begin. It has no topic ids and no settings."""

_NO_SUCH_QUESTION: Final = frozenset(
    {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE, KafkaError.TOPIC_AUTHORIZATION_FAILED}  # noqa: SLF001 (a public code)
)
"""Errors of a broker that will never answer the question. After any other error it may answer in a moment."""


@cache
def origin_of(settings: Settings, topic: str) -> Origin | None:
    """Return the ids of the cluster and of the topic, or None where the broker has none.

    A worker asks once: what it writes under an id belongs to that id until the worker ends (:func:`until_recreated`).

    Raises:
        ConfigurationError: the broker does not answer now.

    """
    client = admin(settings)
    try:
        cluster = str(client.list_topics(timeout=_ASK_LIMIT_S).cluster_id)
        if cluster.startswith(_EMBEDDED):
            return None
        asked = client.describe_topics(TopicCollection([topic]), request_timeout=_ASK_LIMIT_S)
        found = topic_id(asked[topic].result())
    except KafkaException as error:
        _require_hopeless(error, f"the id of {topic}")
        log.warning("the broker does not tell a topic's id; a recreated topic is not recognised", error=str(error))
        return None
    return Origin(cluster, found) if found is not None else None


def topic_id(described: TopicDescription) -> str | None:
    """Return a topic's id as Kafka's own tools print it, or None where the broker has none.

    Kafka writes ids in the URL-safe alphabet of Base64 (RFC 4648, section 5). The client uses the standard alphabet,
    whose ``/`` would be a folder in the name of a commit chain.
    """
    if described.topic_id is None:
        return None
    return str(described.topic_id).translate(_URL_SAFE)


def limits_of(settings: Settings, topics: Sequence[str]) -> dict[str, int]:
    """Return max.message.bytes by topic, for those of which the broker tells it.

    A broker tells nothing to a client without the right DescribeConfigs. The worker then learns of a limit only when
    the broker refuses an output; it works all the same, see ``stream/agents/explain.py``.

    Raises:
        ConfigurationError: the broker does not answer now.

    """
    client = admin(settings)
    resources = {topic: ConfigResource(ResourceType.TOPIC, topic) for topic in topics}
    found: dict[str, int] = {}
    try:
        if str(client.list_topics(timeout=_ASK_LIMIT_S).cluster_id).startswith(_EMBEDDED):
            return {}
        answers = client.describe_configs(list(resources.values()), request_timeout=_ASK_LIMIT_S)
        for topic, resource in resources.items():
            found[topic] = int(answers[resource].result()["max.message.bytes"].value)
    except KafkaException as error:
        _require_hopeless(error, f"max.message.bytes of {', '.join(topics)}")
        log.warning("the broker does not tell how large messages may be; it may refuse some", error=str(error))
    return found


def until_recreated(settings: Settings, topics: Sequence[str]) -> str | None:
    """Wait until one of the topics has another id than :func:`origin_of` found, and return its name.

    Returns None at once where the broker has no ids.
    """
    known = {topic: origin.topic for topic in topics if (origin := origin_of(settings, topic)) is not None}
    if not known:
        return None
    client = admin(settings)

    def id_of(topic: str) -> str | None:
        asked = client.describe_topics(TopicCollection([topic]), request_timeout=_ASK_LIMIT_S)
        return topic_id(asked[topic].result())

    return first_changed(known, id_of)


def first_changed(known: Mapping[str, str], id_of: Callable[[str], str | None], every_s: float = _WATCH_EVERY_S) -> str:
    """Ask for the ids of topics again and again until one differs from the known id, and return that topic.

    A topic that is deleted and not yet created again, or a broker that does not answer, is asked again. Any other
    error is raised.
    """
    while True:
        for topic, known_id in known.items():
            time.sleep(every_s / len(known))
            try:
                found = id_of(topic)
            except KafkaException as error:
                log.debug("the broker does not tell a topic's id now; asking again", topic=topic, error=str(error))
                continue
            if found != known_id:
                return topic


def first_offset(settings: Settings, topic: str, partition: int, at: int) -> int | None:
    """Return the first offset, from ``at`` on, at which a partition has a record; None if it gives none in time."""
    with TopicReader(settings, "look") as reader:
        reader.begin_at(topic, partition, at)
        message = reader.poll(_LOOK_LIMIT_S)
    return message.offset() if message is not None else None


def _require_hopeless(error: KafkaException, wanted: str) -> None:
    if error.args[0].code() not in _NO_SUCH_QUESTION:
        raise ConfigurationError(f"the broker does not tell {wanted} ({error.args[0].str()}); is it up?") from error
