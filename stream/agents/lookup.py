"""What only the broker can say: which topic bears a name, and where in a partition there is something to read."""

from __future__ import annotations

from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.archive.commitlog import Origin

log = structlog.get_logger("whyrec.sink")

_LOOK_LIMIT_S: Final = 10.0
_ORIGIN_LIMIT_S: Final = 15.0
_EMBEDDED: Final = "mockCluster"
"""How the embedded broker's ids begin. It knows no topic ids, and would keep us waiting for an answer."""


def origin_of(bootstrap_servers: str, topic: str) -> Origin | None:
    """Return the ids of the cluster and of the topic, or None where the broker has none."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        cluster = str(admin.list_topics(timeout=_ORIGIN_LIMIT_S).cluster_id)
        if cluster.startswith(_EMBEDDED):
            return None
        asked = admin.describe_topics(TopicCollection([topic]), request_timeout=_ORIGIN_LIMIT_S)
        found = asked[topic].result().topic_id
    except KafkaException as error:
        log.warning("the broker does not tell a topic's id; a topic made anew is not recognised", error=str(error))
        return None
    return Origin(cluster, str(found)) if found is not None else None


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
