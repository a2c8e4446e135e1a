"""The control topic: which versions of each bundle a worker holds ready, as JSON by the bundle's name, compacted.

A value such as ``{"default": "2", "previous": "1", "shares": {"3": 0.1}}`` says that version 2 is the default, that a
rollback returns to version 1, and that version 3 has a tenth of the users. A message without a value forgets the name.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Final, Self

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic

from stream.errors import ConfigurationError, DeliveryError
from stream.kafka.clients import Message, admin, producer
from stream.kafka.reading import TopicReader
from stream.settings import Settings

log = structlog.get_logger("whyrec.control")

_ANSWER_S: Final = 10.0
_READ_AGAIN_S: Final = 60.0
_DIGITS: Final = 13
_HEXADECIMAL: Final = re.compile(f"[0-9a-fA-F]{{{_DIGITS}}}")


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
        """Return the version of a user, always the same one.

        Users are divided by the first 52 bits of their hash, whose first 13 characters are hexadecimal digits; if they
        are not, by those of the SHA-256 of its text.
        """
        digits = user_id_hash[:_DIGITS]
        if not _HEXADECIMAL.fullmatch(digits):
            digits = sha256(user_id_hash.encode()).hexdigest()[:_DIGITS]
        place, below = int(digits, 16) / 16**_DIGITS, 0.0
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
        self._said: dict[str, Serving] = {}
        self._read_again_s = 0.0
        self.ends: dict[int, int] = {}
        """The offset after the last message of each partition, when the topic was last read."""

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def current(self) -> dict[str, Serving]:
        """Return what the topic says now, by the bundle's name; nothing where there is no topic.

        Raises:
            ConfigurationError: no broker answers, or it does not give all messages.

        """
        said: dict[str, Serving] = {}
        partitions = self._reader.partitions(self._topic)
        if not partitions:
            return said
        bounds = {partition: self._reader.bounds(self._topic, partition) for partition in partitions}
        self.ends = {partition: end for partition, (_, end) in bounds.items()}
        self._reader.begin_at_starts(self._topic)
        left = {partition for partition, (first, end) in bounds.items() if end > first}
        while left:
            message = self._reader.poll(_ANSWER_S)
            if message is None:
                raise ConfigurationError(
                    f"the broker does not give all messages of {self._topic}; is it up, and may this client read them?"
                )
            _apply(said, message.key(), message.value())
            offset, partition = message.offset(), message.partition()
            if offset is not None and partition is not None and offset + 1 >= self.ends[partition]:
                left.discard(partition)
        self._said, self._read_again_s = dict(said), time.monotonic() + _READ_AGAIN_S
        return said

    def changes(self, timeout_s: float) -> Iterator[dict[str, Serving | None]]:
        """Yield what has changed within a time; None for a name that is forgotten.

        Now and then the whole topic is read again and yielded, since it may have been created, or created anew,
        meanwhile.
        """
        message = self._reader.poll(timeout_s)
        if message is not None:
            before = dict(self._said)
            _apply(self._said, message.key(), message.value())
            yield {name: self._said.get(name) for name in before | self._said}
        elif time.monotonic() >= self._read_again_s and self._reader.partitions(self._topic):
            before = dict(self._said)
            yield dict.fromkeys(before) | self.current()


def publish(settings: Settings, name: str, serving: Serving, ends: Mapping[int, int]) -> None:
    """Say which versions of a bundle are served; the topic is created if it is missing.

    ends: where the partitions ended when the topic was read, see :attr:`ControlTopic.ends`.

    Raises:
        ConfigurationError: no broker answers.
        DeliveryError: the broker did not acknowledge the message, or somebody else changed the topic since it was read.

    """
    _create(settings)
    failures: list[str] = []
    places: list[tuple[int, int]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error.str())
        else:
            places.append((message.partition() or 0, message.offset() or 0))

    sender = producer(settings)
    sender.produce(settings.control_topic, key=name.encode(), value=serving.encoded(), on_delivery=delivered)
    if sender.flush(settings.delivery_timeout_s) or failures:
        reason = failures[0] if failures else "no answer in time"
        raise DeliveryError(f"{settings.control_topic} did not acknowledge the change ({reason}); try again")
    [(partition, offset)] = places
    if offset != ends.get(partition, 0):
        raise DeliveryError(
            f"somebody else changed {settings.control_topic} at the same time, and this change of {name} came last: "
            "see whyrec models live, and repeat what is missing"
        )


def _create(settings: Settings) -> None:
    config = {"cleanup.policy": "compact"}
    topic = NewTopic(settings.control_topic, 1, settings.replication_factor, config=config)
    client = admin(settings)
    try:
        if settings.control_topic in client.list_topics(timeout=_ANSWER_S).topics:
            return
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
