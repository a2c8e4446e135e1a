"""Dead letters: messages that cannot be processed, kept with their original bytes.

Both agents write them. A dead letter has the key, the value and the headers of the message, and headers that say where
the message was and why it is here: ``topic``, ``partition``, ``offset``, ``stage`` and ``error``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from stream.errors import DeliveryError
from stream.kafka.delivery import Headers, Output, Receipt

_ERROR_CHARACTERS: Final = 1000


class Message(Protocol):
    """A message as it came from Kafka."""

    @property
    def partition(self) -> int:
        """The partition it was read from."""

    @property
    def offset(self) -> int:
        """Its offset there."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value."""

    @property
    def headers(self) -> Headers:
        """Its headers."""


class Sender(Protocol):
    """The part of :class:`stream.kafka.delivery.Delivery` that is needed here."""

    def send(self, outputs: Sequence[Output]) -> Receipt:
        """Send outputs and return the receipt for their acknowledgements."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of ``topic`` that cannot be processed: the stage that failed, and why."""

    topic: str
    message: Message
    stage: str
    error: str

    def output(self, dead_letters_topic: str) -> Output:
        """Return the dead letter with everything that the message had."""
        message = self.message
        headers = [*message.headers, *self._headers(self.error)]
        return Output(dead_letters_topic, message.key, message.value, headers)

    def notice(self, dead_letters_topic: str) -> Output:
        """Return a dead letter that only says where to read the message, for a topic that refuses the whole of it."""
        size = len(self.message.value or b"")
        error = (
            f"the dead letters do not take the {size} bytes of the value with key and headers: read the message at the "
            f"offset named here, and raise max.message.bytes of {dead_letters_topic}; {self.error}"
        )
        return Output(dead_letters_topic, None, None, self._headers(error))

    def _headers(self, error: str) -> Headers:
        return [
            ("topic", self.topic.encode()),
            ("partition", str(self.message.partition).encode()),
            ("offset", str(self.message.offset).encode()),
            ("stage", self.stage.encode()),
            ("error", error[:_ERROR_CHARACTERS].encode(errors="backslashreplace")),
        ]


def deliver(letters: Sequence[DeadLetter], sender: Sender, dead_letters_topic: str) -> None:
    """Send dead letters and wait until the broker has acknowledged each, as a notice where the whole is too large.

    Blocks: call it in a thread.

    Raises:
        DeliveryError: the broker did not acknowledge one in time, or refuses even a notice.

    """
    refused = sender.send([letter.output(dead_letters_topic) for letter in letters]).future.result()
    if not refused:
        return
    notices = [letters[each.index].notice(dead_letters_topic) for each in refused]
    if still := sender.send(notices).future.result():
        raise DeliveryError(
            f"{dead_letters_topic} refuses a dead letter even without key and value ({still[0].error}); check its "
            "max.message.bytes"
        )
