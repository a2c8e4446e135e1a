"""One batch of impressions as bytes, answered: an explanation and an audit record per slate, or a dead letter.

Synchronous and without Kafka, so that it runs in a thread beside the event loop, and in a test as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

import numpy as np
import structlog

from schemas.codec import Codec
from schemas.registry import RegistryUnavailable
from stream.agents.dead_letters import DeadLetter
from stream.agents.isolation import SlateExplainer
from stream.explain.encode import with_source
from stream.explain.pipeline import Explained, Outcome
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
    """What to send for a slate that was explained.

    ``items`` are the explanation type and status of each item; ``model_version`` is the version that explained.
    """

    explanation: Output
    audit: Output
    items: Sequence[Outcome]
    model_version: str


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
        decoded = self._with_registry(
            lambda: self._codec.decode_batch("impression", [(each.value, each.headers) for each in batch])
        )
        for place, error in sorted(decoded.errors.items()):
            answer.dead_letters[place] = _dead_letter(batch[place], "decode", error)
        explained = self._explainer.run(decoded.batch)
        for row, rejected in sorted(explained.rejected.items()):
            place = decoded.rows[row]
            answer.dead_letters[place] = _dead_letter(batch[place], rejected.stage, rejected.error)
        places = [decoded.rows[row] for row in explained.rows.tolist()]
        for place, slate in zip(places, self._encoded([batch[place] for place in places], explained), strict=True):
            # If the broker refused one of the two, an explanation would be shown without an audit record, or the
            # reverse. Both are checked before either is sent.
            if (reason := self._too_large(slate)) is not None:
                answer.dead_letters[place] = _dead_letter(batch[place], "deliver", reason)
            else:
                answer.slates[place] = slate
        return answer

    def _encoded(self, messages: Sequence[Received], explained: Explained) -> Iterator[AnsweredSlate]:
        """Encode what was explained of some messages, one by one; the sink recognises a repeat by its message."""
        sources = np.array([(each.partition, each.offset) for each in messages], dtype=np.int64).reshape(-1, 2)
        audits = with_source(explained.audits, self._source_topic_id, sources[:, 0], sources[:, 1])
        encoded = self._with_registry(
            lambda: (
                self._codec.encode_batch("explanation", explained.explanations, self._explanations),
                self._codec.encode_batch("audit", audits, self._audit),
            )
        )
        users = explained.explanations.column("user_id_hash").to_pylist()
        versions = explained.explanations.column("model_version").to_pylist()
        for received, user, version, items, explanation, audit in zip(
            messages, users, versions, explained.item_outcomes(), *encoded, strict=True
        ):
            key = user.encode()
            yield AnsweredSlate(
                Output(self._explanations, key, explanation.value, explanation.headers),
                Output(self._audit, key, audit.value, audit.headers, partition=received.partition),
                items,
                version,
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
