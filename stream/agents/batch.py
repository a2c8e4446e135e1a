"""One batch of impressions as bytes, answered: explanation and audit for each slate, or a dead letter.

Synchronous and without Kafka, so that it runs in a thread beside the event loop and in a test as it stands.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

import structlog

from schemas.codec import Codec
from schemas.codec import Encoded as Framed
from schemas.errors import InvalidEvent, UndecodableEvent, WhyrecError
from schemas.registry import RegistryUnavailable
from stream.explain.columns import Sheet
from stream.explain.encode import Encoded
from stream.explain.pipeline import Answer as Spoken
from stream.explain.pipeline import Explained, Rejected
from stream.kafka.delivery import Output, Refused
from stream.settings import Settings

T = TypeVar("T")

Said = tuple[str, Sequence[tuple[str, str]], Framed, Framed]
"""The user, type and status of each item, the explanation and the audit record."""

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_ERROR_CHARACTERS: Final = 1000

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


@dataclass(slots=True)
class Answer:
    """What to send for a batch, and what happened in it. ``owners[i]`` is the place in the batch of output i."""

    outputs: list[Output] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    explained: int = 0
    items: Counter[tuple[str, str]] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)


class SlateExplainer(Protocol):
    """What the batch needs of :class:`stream.explain.pipeline.Explainer`."""

    def read(self, bodies: Sequence[bytes | memoryview | None]) -> Sheet:
        """Return those impressions of the newest version that can be read and explained without further ado."""

    def encode(self, impressions: Sequence[Mapping[str, Any]]) -> list[Spoken]:
        """Return one outcome per impression, in order."""


class BatchWork:
    """Decode, explain, encode. Bad input becomes a dead letter; only what no input can cause is raised."""

    def __init__(
        self,
        explainer: SlateExplainer,
        codec: Codec,
        settings: Settings,
        *,
        source_topic_id: str = "",
        limits: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Make it.

        ``source_topic_id`` is Kafka's id of the impressions topic; ``limits`` is max.message.bytes by topic, as far as
        the broker tells.
        """
        self._explainer = explainer
        self._codec = codec
        self._source_topic_id = source_topic_id
        self._limits = limits
        self._patience_s = settings.delivery_timeout_s
        self._explanations = settings.topic("explanations")
        self._audit = settings.topic("audit")
        self._dead_letters = settings.topic("dead_letters")

    def answer(self, batch: Sequence[Received]) -> Answer:
        """Answer a batch.

        Raises:
            RegistryUnavailable: the schema registry did not answer for ``delivery_timeout_s`` seconds.
            IncompatibleSchema: the registry refuses the schema of an output.

        """
        answer = Answer()
        sheet = self._read(batch)
        outcomes = dict(zip(sheet.places, self._explain(sheet), strict=True))
        decoded: list[dict[str, Any]] = []
        places: list[int] = []
        for place, received in enumerate(batch):
            if place in outcomes:
                continue
            try:
                decoded.append(self._decode(received))
            except UndecodableEvent as error:
                self._bury(answer, place, received, "decode", str(error))
            except (WhyrecError, MemoryError):
                raise
            except Exception as error:
                # No message, however odd, may stop the stream.
                log.exception("decoding failed in an unforeseen way")
                self._bury(answer, place, received, "decode", f"{type(error).__name__}: {error}")
            else:
                places.append(place)
        outcomes |= zip(places, self._explain(decoded), strict=True)
        for place, outcome in sorted(outcomes.items(), key=itemgetter(0)):
            if isinstance(outcome, Rejected):
                self._bury(answer, place, batch[place], outcome.stage, outcome.error)
            else:
                self._speak(answer, place, batch[place], outcome)
        return answer

    def bury_refused(self, batch: Sequence[Received], answer: Answer, refused: Sequence[Refused]) -> Answer:
        """Return dead letters for the slates of which the broker refused an output for good."""
        burial = Answer()
        for place in sorted({answer.owners[each.index] for each in refused}):
            reason = next(each.error for each in refused if answer.owners[each.index] == place)
            self._bury(burial, place, batch[place], "deliver", f"the broker refuses the output: {reason}")
        return burial

    def bury_without_original(self, batch: Sequence[Received], burial: Answer) -> Answer:
        """Return the last resort for dead letters that are themselves too large: where what they lack is to be read."""
        last = Answer()
        for place in sorted(set(burial.owners)):
            size = len(batch[place].value or b"")
            self._bury(
                last, place, batch[place], "deliver",
                f"the {size} bytes of the value, with key and headers, are too large for this topic; read them at the "
                "offset named here, and raise max.message.bytes of the dead letters",
                keep_original=False,
            )  # fmt: skip
        return last

    def _read(self, batch: Sequence[Received]) -> Sheet:
        """Read what is as it mostly is; what is left out, for whatever reason, is decoded one by one."""
        try:
            return self._explainer.read(
                [self._codec.newest_body("impression", each.value, each.headers) for each in batch]
            )
        except MemoryError:
            raise
        except Exception:
            log.exception("reading a whole batch failed in an unforeseen way")
            return self._explainer.read([])

    def _decode(self, received: Received) -> dict[str, Any]:
        return self._patiently(lambda: self._codec.decode("impression", received.value, received.headers))

    def _explain(self, impressions: Sequence[Mapping[str, Any]]) -> list[Spoken]:
        """Run the pipeline; when it fails as a whole, halve until the slates that make it fail stand alone."""
        if not impressions:
            return []
        try:
            return self._explainer.encode(impressions)
        except MemoryError:
            raise
        except Exception as error:
            if len(impressions) == 1:
                log.exception("a slate makes the pipeline fail", request_id=impressions[0].get("request_id"))
                return [Rejected("explain", f"{type(error).__name__}: {error}")]
            middle = len(impressions) // 2
            return self._explain(impressions[:middle]) + self._explain(impressions[middle:])

    def _speak(self, answer: Answer, place: int, received: Received, outcome: Encoded | Explained) -> None:
        try:
            if isinstance(outcome, Encoded):
                user, items, said, kept = self._frame(received, outcome)
            else:
                user, items, said, kept = self._encode(received, outcome)
        except InvalidEvent as error:
            self._bury(answer, place, received, "encode", str(error))
            return
        key = user.encode()
        outputs = (
            Output(self._explanations, key, said.value, said.headers),
            Output(self._audit, key, kept.value, kept.headers, partition=received.partition),
        )
        # Refused by the broker, one would be missing where the other is: what is shown must be what is archived.
        if (reason := self._too_large(outputs)) is not None:
            self._bury(answer, place, received, "deliver", reason)
            return
        answer.outputs += outputs
        answer.owners += (place, place)
        answer.explained += 1
        answer.items.update(items)

    def _frame(self, received: Received, outcome: Encoded) -> Said:
        audit = outcome.audit(self._source_topic_id, received.partition, received.offset)
        said, kept = self._patiently(
            lambda: (
                self._codec.frame("explanation", outcome.explanation, self._explanations),
                self._codec.frame("audit", audit, self._audit),
            )
        )
        return outcome.user_id_hash, outcome.items, said, kept

    def _encode(self, received: Received, outcome: Explained) -> Said:
        explanation, audit = outcome.explanation, outcome.audit
        # The sink recognises a repeat by where its impression stood.
        audit["source_topic_id"] = self._source_topic_id
        audit["source_partition"] = received.partition
        audit["source_offset"] = received.offset
        return (
            explanation["user_id_hash"],
            [(item["type"], item["status"]) for item in explanation["items"]],
            self._patiently(lambda: self._codec.encode("explanation", explanation, self._explanations)),
            self._patiently(lambda: self._codec.encode("audit", audit, self._audit)),
        )

    def _too_large(self, outputs: Sequence[Output]) -> str | None:
        for output in outputs:
            limit = self._limits.get(output.topic)
            if limit is not None and not output.fits(limit):
                return (
                    f"{len(output.value or b'')} bytes for {output.topic}, which takes {limit}: raise its "
                    "max.message.bytes, or show fewer items at once"
                )
        return None

    def _bury(
        self, answer: Answer, place: int, received: Received, stage: str, error: str, *, keep_original: bool = True
    ) -> None:
        headers = [
            *(received.headers if keep_original else ()),
            ("topic", received.topic.encode()),
            ("partition", str(received.partition).encode()),
            ("offset", str(received.offset).encode()),
            ("stage", stage.encode()),
            ("error", error[:_ERROR_CHARACTERS].encode(errors="backslashreplace")),
        ]
        key, value = (received.key, received.value) if keep_original else (None, None)
        answer.outputs.append(Output(self._dead_letters, key, value, headers))
        answer.owners.append(place)
        answer.dead[stage] += 1
        log.warning(
            "impression to the dead letters", stage=stage, error=error[:_ERROR_CHARACTERS],
            partition=received.partition, offset=received.offset,
        )  # fmt: skip

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call again while the registry is away; it is no fault of the message, and no reason to drop it."""
        give_up = time.monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except RegistryUnavailable as error:
                if time.monotonic() + pause_s > give_up:
                    raise
                log.warning("schema registry away; trying again", error=str(error), pause_s=pause_s)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
