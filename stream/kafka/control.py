"""The control topic: which versions of each bundle a worker holds ready, as JSON by the bundle's name, compacted.

A value such as ``{"default": "2", "previous": "1", "shares": {"3": 0.1}}`` says that version 2 is the default, that a
rollback returns to version 1, and that version 3 has a tenth of the users. A message without a value forgets the name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic

from stream.errors import ConfigurationError, DeliveryError
from stream.kafka.clients import admin, producer
from stream.kafka.reading import TopicReader
from stream.settings import Settings

log = structlog.get_logger("whyrec.control")

_ANSWER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Serving:
    """The versions of one bundle that are served: the default, the one before it, and shares of users of others."""

    default: str
    previous: str | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions to be held ready, the default first."""
        return tuple(dict.fromkeys((self.default, *self.shares)))

    def version_for(self, user_id_hash: str) -> str:
        """Return the version of a user: users are divided by the first 52 bits of their hash, always alike."""
        place, below = int(user_id_hash[:13], 16) / 16**13, 0.0
        for version, share in sorted(self.shares.items()):
            below += share
            if place < below:
                return version
        return self.default

    def promoted(self, version: str) -> Serving:
        """Make a version the default for all users."""
        return Serving(version, self.default if version != self.default else self.previous)

    def shared(self, version: str, share: float) -> Serving:
        """Give a version a share of the users, 0 to take it away.

        Raises:
            ConfigurationError: the shares would be more than all users.

        """
        shares = {each: size for each, size in self.shares.items() if each != version}
        if share:
            shares[version] = share
        if not 0 <= share <= 1 or sum(shares.values()) > 1:
            raise ConfigurationError(f"expected shares of users of at most 1 in all, got {shares}: lower a share")
        return Serving(self.default, self.previous, shares)

    def rolled_back(self) -> Serving:
        """Return to the version before, for all users.

        Raises:
            ConfigurationError: there is none.

        """
        if self.shares:
            return Serving(self.default, self.previous)
        if self.previous is None:
            raise ConfigurationError(f"there is no version before {self.default} to go back to: promote one")
        return Serving(self.previous, self.default)

    def encoded(self) -> bytes:
        """Return the message's value."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def decoded(cls, value: bytes) -> Self:
        """Read a message's value; raises ValueError if it is none."""
        record: Any = json.loads(value)
        if not isinstance(record, dict) or not isinstance(record.get("default"), str):
            raise ValueError('expected an object with "default"')  # noqa: TRY004 (what a reader of bytes raises)
        shares, previous = record.get("shares") or {}, record.get("previous")
        numbers = isinstance(shares, dict) and all(isinstance(each, int | float) for each in shares.values())
        if not numbers or any(each < 0 for each in shares.values()) or sum(shares.values()) > 1:
            raise ValueError("expected shares of users by version, at most 1 in all")
        return cls(record["default"], previous if isinstance(previous, str) else None, shares)


class ControlTopic:
    """Follows the control topic from its first message on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.control_topic
        self._reader = TopicReader(settings, "control")
        self._begun = False

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def current(self) -> dict[str, Serving]:
        """Return what the topic says now, by the bundle's name; nothing where there is no topic."""
        said: dict[str, Serving] = {}
        partitions = self._reader.partitions(self._topic)
        if not partitions:
            return said
        ends = {partition: self._reader.bounds(self._topic, partition)[1] for partition in partitions}
        self._reader.begin_at_starts(self._topic)
        self._begun = True
        left = {partition for partition, end in ends.items() if end > 0}
        while left and (message := self._reader.poll(_ANSWER_S)) is not None:
            _apply(said, message.key(), message.value())
            offset, partition = message.offset(), message.partition()
            if offset is not None and partition is not None and offset + 1 >= ends[partition]:
                left.discard(partition)
        return said

    def changes(self, timeout_s: float) -> Iterator[dict[str, Serving | None]]:
        """Yield changes that come within a time; None for a name that is forgotten."""
        if not self._begun:
            if self._reader.partitions(self._topic):
                yield dict(self.current())
            return
        message = self._reader.poll(timeout_s)
        if message is not None:
            change: dict[str, Serving] = {}
            key = message.key()
            _apply(change, key, message.value())
            if key is not None:
                yield {_text(key): change.get(_text(key))}


def publish(settings: Settings, name: str, serving: Serving) -> None:
    """Say which versions of a bundle are served; the topic is created if it is missing.

    Raises:
        ConfigurationError: no broker answers.
        DeliveryError: the broker did not acknowledge the message.

    """
    _create(settings)
    failures: list[str] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            failures.append(error.str())

    sender = producer(settings)
    sender.produce(settings.control_topic, key=name.encode(), value=serving.encoded(), on_delivery=delivered)
    if sender.flush(settings.delivery_timeout_s) or failures:
        reason = failures[0] if failures else "no answer in time"
        raise DeliveryError(f"{settings.control_topic} did not acknowledge the change ({reason}); try again")


def _create(settings: Settings) -> None:
    config = {"cleanup.policy": "compact"}
    topic = NewTopic(settings.control_topic, 1, settings.replication_factor, config=config)
    client = admin(settings)
    try:
        client.create_topics([topic])[settings.control_topic].result(_ANSWER_S)
    except (KafkaException, TimeoutError) as error:
        fault = error.args[0] if isinstance(error, KafkaException) else None
        if fault is None or fault.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            reason = "no answer in time" if fault is None else fault.str()
            raise ConfigurationError(
                f"{settings.control_topic} cannot be created at {settings.bootstrap_servers} ({reason}): check "
                "WHYREC_BOOTSTRAP_SERVERS, or create it with cleanup.policy=compact and one partition"
            ) from error


def _apply(said: dict[str, Serving], key: bytes | str | None, value: bytes | str | None) -> None:
    if key is None:
        return
    name = _text(key)
    if value is None:
        said.pop(name, None)
        return
    try:
        said[name] = Serving.decoded(value if isinstance(value, bytes) else value.encode())
    except ValueError as error:
        log.warning("a message of the control topic is ignored", name=name, error=str(error))


def _text(key: bytes | str) -> str:
    return key if isinstance(key, str) else key.decode("utf-8", "replace")
