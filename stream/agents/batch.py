"""One batch of impressions as bytes, answered: an explanation and an audit record per slate, or a dead letter.

Synchronous and without Kafka, so that it runs in a thread beside the event loop, and in a test as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, TypeVar

import structlog

from schemas.codec import Codec
from schemas.errors import InvalidEvent, UndecodableEvent, WhyrecError
from schemas.registry import RegistryUnavailable
from stream.agents.dead_letters import DeadLetter
from stream.agents.isolation import SYSTEM_FAULTS, SlateExplainer
from stream.explain.encode import Encoded
from stream.explain.pipeline import Explained, Rejected
from stream.kafka.delivery import Output
from stream.settings import Settings

T = TypeVar("T")

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0

log = structlog.get_logger("whyrec.explain")


@dataclass(frozen=True, slots=True)
class Received:
    """An impression as it came from Kafka."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class AnsweredSlate:
    """What to send for a slate that was explained; ``items`` are the explanation type and status of each item."""

    explanation: Output
    audit: Output
    items: Sequence[tuple[str, str]]


@dataclass(slots=True)
class Answer:
    """What to send for a batch. Each place in the batch is a key of exactly one of the two."""

    slates: dict[int, AnsweredSlate] = field(default_factory=dict)
    dead_letters: dict[int, DeadLetter] = field(default_factory=dict)


class BatchWork:
    """Decode, explain and encode a batch. Only what a message caused becomes a dead letter; all else is raised."""

    def __init__(
        self,
        explainer: SlateExplainer,
        codec: Codec,
        settings: Settings,
        *,
        source_topic_id: str = "",
        limits: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Prepare for batches of one topic.

        ``source_topic_id`` is Kafka's id of the impressions topic; ``limits`` is max.message.bytes by topic, for the
        topics of which it is known.
        """
        self._explainer = explainer
        self._codec = codec
        self._source_topic_id = source_topic_id
        self._limits = limits
        self._registry_timeout_s = settings.delivery_timeout_s
        self._explanations = settings.topic("explanations")
        self._audit = settings.topic("audit")

    def answer(self, batch: Sequence[Received]) -> Answer:
        """Answer a batch.

        Raises:
            WorkerUnfit: the fault lies with this worker and not with a message.
            RegistryUnavailable: the schema registry did not answer for ``delivery_timeout_s`` seconds.
            IncompatibleSchema: the registry refuses the schema of an output.
            MemoryError, OSError: as raised by what ran.

        """
        answer = Answer()
        sheet = self._explainer.read(
            [self._codec.newest_body("impression", each.value, each.headers) for each in batch]
        )
        outcomes = dict(zip(sheet.places, self._explainer.encode(sheet), strict=True))
        decoded: dict[int, dict[str, Any]] = {}
        for place, received in enumerate(batch):
            if place in outcomes:
                continue
            try:
                decoded[place] = self._decode(received)
            except UndecodableEvent as error:
                answer.dead_letters[place] = _dead_letter(received, "decode", str(error))
            except (WhyrecError, *SYSTEM_FAULTS):
                raise
            except Exception as error:
                # No message may stop the stream, however odd.
                log.exception("decoding failed unexpectedly")
                answer.dead_letters[place] = _dead_letter(received, "decode", f"{type(error).__name__}: {error}")
        outcomes |= zip(decoded, self._explainer.encode(list(decoded.values())), strict=True)
        for place, outcome in sorted(outcomes.items(), key=itemgetter(0)):
            received = batch[place]
            if isinstance(outcome, Rejected):
                answer.dead_letters[place] = _dead_letter(received, outcome.stage, outcome.error)
                continue
            try:
                slate = self._encode(received, outcome)
            except InvalidEvent as error:
                answer.dead_letters[place] = _dead_letter(received, "encode", str(error))
                continue
            # If the broker refused one of the two, an explanation would be shown without an audit record, or the
            # reverse. Both are checked before either is sent.
            if (reason := self._too_large(slate)) is not None:
                answer.dead_letters[place] = _dead_letter(received, "deliver", reason)
                continue
            answer.slates[place] = slate
        return answer

    def _decode(self, received: Received) -> dict[str, Any]:
        return self._with_registry(lambda: self._codec.decode("impression", received.value, received.headers))

    def _encode(self, received: Received, outcome: Encoded | Explained) -> AnsweredSlate:
        """Frame what was explained; the sink recognises a repeat by where the impression was."""
        if isinstance(outcome, Encoded):
            user, items = outcome.user_id_hash, outcome.items
            audit_body = outcome.audit(self._source_topic_id, received.partition, received.offset)
            explanation, audit = self._with_registry(
                lambda: (
                    self._codec.frame("explanation", outcome.explanation, self._explanations),
                    self._codec.frame("audit", audit_body, self._audit),
                )
            )
        else:
            user = outcome.explanation["user_id_hash"]
            items = [(item["type"], item["status"]) for item in outcome.explanation["items"]]
            outcome.audit["source_topic_id"] = self._source_topic_id
            outcome.audit["source_partition"] = received.partition
            outcome.audit["source_offset"] = received.offset
            explanation, audit = self._with_registry(
                lambda: (
                    self._codec.encode("explanation", outcome.explanation, self._explanations),
                    self._codec.encode("audit", outcome.audit, self._audit),
                )
            )
        key = user.encode()
        return AnsweredSlate(
            Output(self._explanations, key, explanation.value, explanation.headers),
            Output(self._audit, key, audit.value, audit.headers, partition=received.partition),
            items,
        )

    def _too_large(self, slate: AnsweredSlate) -> str | None:
        for output in (slate.explanation, slate.audit):
            limit = self._limits.get(output.topic)
            if limit is not None and not output.fits(limit):
                return (
                    f"{len(output.value or b'')} bytes for {output.topic}, which takes {limit}: raise its "
                    "max.message.bytes and restart the workers, or show fewer items at once"
                )
        return None

    def _with_registry(self, call: Callable[[], T]) -> T:
        """Call, and call again while the registry does not answer: that is no fault of the message."""
        give_up = time.monotonic() + self._registry_timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except RegistryUnavailable as error:
                if time.monotonic() + pause_s > give_up:
                    raise
                log.warning("the schema registry does not answer; trying again", error=str(error), pause_s=pause_s)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def refuse(answer: Answer, batch: Sequence[Received], place: int, error: str) -> None:
    """Make a dead letter of a slate of which the broker refused an output."""
    del answer.slates[place]
    answer.dead_letters[place] = _dead_letter(batch[place], "deliver", f"the broker refuses {error}")


def _dead_letter(received: Received, stage: str, error: str) -> DeadLetter:
    log.warning(
        "dead letter", stage=stage, error=error, topic=received.topic, partition=received.partition,
        offset=received.offset,
    )  # fmt: skip
    return DeadLetter(received.topic, received, stage, error)
