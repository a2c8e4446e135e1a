"""The topics as they are on the brokers: created, described, and checked before a worker starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from stream.errors import ConfigurationError
from stream.kafka.clients import admin
from stream.kafka.topics import TOPICS, TopicRole
from stream.settings import Settings

_TIMEOUT_S: Final = 15.0
_VISIBLE_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic as the brokers describe it; ``settings`` by Kafka's names, empty where the broker tells none."""

    role: TopicRole
    name: str
    partitions: int
    replicas: int
    settings: dict[str, str]


class Cluster:
    """The brokers that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = admin(settings)

    def describe(self, *, with_settings: bool = True) -> dict[TopicRole, TopicState]:
        """Return those of our topics that exist.

        Raises:
            ConfigurationError: no broker answers.

        """
        try:
            found = self._admin.list_topics(timeout=_TIMEOUT_S).topics
        except KafkaException as error:
            raise ConfigurationError(
                f"no broker answers at {self._settings.bootstrap_servers} ({error.args[0].str()}); "
                "check WHYREC_BOOTSTRAP_SERVERS"
            ) from error
        states: dict[TopicRole, TopicState] = {}
        for role in TOPICS:
            name = self._settings.topic(role)
            if name not in found or found[name].error is not None:
                continue
            partitions = found[name].partitions
            replicas = min((len(each.replicas) for each in partitions.values()), default=0)
            said = self._settings_of(name) if with_settings else {}
            states[role] = TopicState(role, name, len(partitions), replicas, said)
        return states

    def create(self, *, min_insync_replicas: int | None = None) -> list[str]:
        """Create our topics that are missing, leave the others unchanged, and return the names of those created.

        ``min_insync_replicas`` is by default one less than the replicas, but at least one.

        Raises:
            ConfigurationError: the broker refuses, or the audit topic has fewer partitions than the impressions topic.

        """
        settings = self._settings
        before = self.describe(with_settings=False)
        partitions = settings.partitions
        if "impressions" in before:
            # An audit record goes to the partition number of its impression.
            partitions = max(partitions, before["impressions"].partitions)
        min_insync = max(1, settings.replication_factor - 1) if min_insync_replicas is None else min_insync_replicas
        missing = [
            NewTopic(
                settings.topic(role),
                num_partitions=topic.partitions or partitions,
                replication_factor=settings.replication_factor,
                config={
                    "cleanup.policy": "compact" if topic.compacted else "delete",
                    "retention.ms": str(topic.retention_ms),
                    "min.insync.replicas": str(min_insync),
                },
            )
            for role, topic in TOPICS.items()
            if role not in before
        ]
        created = [name for name, future in self._futures(missing).items() if self._is_new(name, future)]
        require_partitions(self._when_visible())
        return created

    def delete(self) -> None:
        """Delete our topics with their messages; for callers that created them for themselves, like the demo."""
        names = [state.name for state in self.describe(with_settings=False).values()]
        if names:
            for future in self._admin.delete_topics(names, operation_timeout=_TIMEOUT_S).values():
                future.result()

    def require(self) -> dict[TopicRole, TopicState]:
        """Return our topics, or raise an error that says how to create those that are missing.

        Raises:
            ConfigurationError: no broker answers, a topic is missing, or the audit topic has too few partitions.

        """
        states = self.describe(with_settings=False)
        # A worker without a control topic holds nothing ready; the first `whyrec models promote` creates the topic.
        missing = [self._settings.topic(role) for role in TOPICS if role not in states and role != "control"]
        if missing:
            raise ConfigurationError(
                f"topics missing at {self._settings.bootstrap_servers}: {', '.join(missing)}; "
                "create them with: whyrec topics create"
            )
        require_partitions(states)
        return states

    def _when_visible(self) -> dict[TopicRole, TopicState]:
        """Describe our topics as soon as all are visible: a broker sees a new topic a moment after its creation."""
        give_up = time.monotonic() + _TIMEOUT_S
        while len(states := self.describe(with_settings=False)) < len(TOPICS) and time.monotonic() < give_up:
            time.sleep(_VISIBLE_EVERY_S)
        return states

    def _futures(self, missing: list[NewTopic]) -> dict[str, Any]:
        return dict(self._admin.create_topics(missing, operation_timeout=_TIMEOUT_S)) if missing else {}

    def _is_new(self, name: str, future: Any) -> bool:
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise ConfigurationError(f"the broker refuses to create {name}: {error.args[0].str()}") from error
        return True

    def _settings_of(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            entries = self._admin.describe_configs([resource])[resource].result(timeout=_TIMEOUT_S)
        except KafkaException:
            return {}  # the embedded broker and some services do not tell their settings
        return {name: str(entry.value) for name, entry in entries.items()}


def require_partitions(states: dict[TopicRole, TopicState]) -> None:
    """Check that each partition number of the impressions topic exists on the audit topic.

    Raises:
        ConfigurationError: one does not exist.

    """
    impressions, audit = states.get("impressions"), states.get("audit")
    if impressions is not None and audit is not None and audit.partitions < impressions.partitions:
        raise ConfigurationError(
            f"{audit.name} has {audit.partitions} partitions, {impressions.name} has {impressions.partitions}; "
            f"audit records go to the partition number of their impression: add partitions to {audit.name}, e.g. "
            f"kafka-topics.sh --alter --topic {audit.name} --partitions {impressions.partitions}"
        )
