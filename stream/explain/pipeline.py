"""From a batch of slates to explanations: decode, score, attribute, verify, select, word, record.

One synchronous function over columns; objects are made in the last step. It knows no Kafka and keeps no state between
batches, so it may run in any thread, one batch at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import numpy as np

from models.bundle import Bundle
from models.errors import BundleError
from models.selector.runtime import MAX_EXPLORATION
from schemas.errors import InvalidEvent, WhyrecError
from schemas.events import STATUSES, Audit, Explanation, Impression, validate_impression
from stream.explain import basis, records
from stream.explain.ablate import ablate
from stream.explain.avro import Body, read
from stream.explain.basis import bases
from stream.explain.columns import Ints, Sheet, Slates, arrange, check_features, to_columns
from stream.explain.detail import detail
from stream.explain.encode import Encoded, Encoder
from stream.explain.findings import Findings
from stream.explain.kinds import KINDS
from stream.explain.models import Models
from stream.explain.score import score
from stream.explain.selector import Policy, choices, resolve
from stream.explain.signals import attribute
from stream.explain.wording import wording_for


@dataclass(frozen=True, slots=True)
class Explained:
    """A slate was explained. The audit's source partition and offset are -1, for the reader of the message to fill."""

    explanation: Explanation
    audit: Audit


@dataclass(frozen=True, slots=True)
class Rejected:
    """A slate could not be explained: the stage that failed, and why."""

    stage: str
    error: str


Outcome = Explained | Rejected
Answer = Encoded | Explained | Rejected

Made = TypeVar("Made")

_GENERIC: Final = STATUSES.index("generic")
_MISMATCH: Final = STATUSES.index("model_mismatch")

StageObserver = Callable[[str, float], None]
"""Told after each stage of a batch: its name, and the seconds it took."""


class _StageFailed(Exception):
    """Carries the stage's name past the columns, to where the slates can be told apart."""

    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(stage)
        self.stage = stage
        self.cause = cause


class Explainer:
    """Explains slates with the models of one bundle, under one policy."""

    def __init__(
        self,
        bundle: Bundle,
        policy: str = "evidence",
        *,
        threads: int = 1,
        max_exploration: float = MAX_EXPLORATION,
        clock: Callable[[], float] = time.time,
        observe: StageObserver | None = None,
    ) -> None:
        self._rules = resolve(bundle, policy, max_exploration)
        self.bundle = bundle
        self.policy = self._rules.name
        self._clock = clock
        self._observe = observe
        self._models = Models.open(bundle, threads)
        self._encoder = Encoder(bundle)

    @classmethod
    def load(cls, bundle_dir: Path | str, policy: str = "evidence", **options: Any) -> Self:
        """Open a bundle and be ready to explain; options are those of the constructor.

        Raises:
            BundleError: the folder is no bundle, or its parts do not fit together.
            ConfigurationError: there is no such policy.

        """
        return cls(Bundle.load(Path(bundle_dir)), policy, **options)

    def explain(self, impressions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Explain impressions, dictionaries of the shape of ``impression.v2.avsc``, as such of ``explanation.v2.avsc``.

        Raises:
            InvalidEvent: one of them cannot be explained; says which and why.

        """
        explained = []
        for number, outcome in enumerate(self.run(impressions)):
            if isinstance(outcome, Rejected):
                raise InvalidEvent(f"impression {number} cannot be explained ({outcome.stage}): {outcome.error}")
            explained.append(cast("dict[str, Any]", outcome.explanation))
        return explained

    def run(self, impressions: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """Explain a batch: one outcome per impression, in order; whatever is wrong with a slate stays with that slate.

        When a stage fails on the whole batch, each slate is run by itself, so that only those that fail are rejected.

        Raises:
            BundleError: a model cannot be run.
            MemoryError, OSError: as raised by a stage.

        """
        return self._run(impressions, self._records)

    def encode(self, impressions: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Like :meth:`run`, with what was explained as Avro, made without an object for each item.

        What Avro cannot be made of so, or has an item's whole ledger, comes as records.
        """
        return self._run(impressions, self._encoded)

    def read(self, bodies: Sequence[Body | None]) -> Sheet:
        """Read impressions from Avro bodies of the newest version, to be given to :meth:`encode` as they are.

        What is not there (``None`` is not, nor any that is damaged, invalid or asks for detail) is for
        :class:`schemas.codec.Codec` to decode; what is answered is the same either way.
        """
        with self._stage("read"):
            return read(bodies, self.bundle)

    def _run(
        self,
        impressions: Sequence[Mapping[str, Any]],
        make: Callable[[Findings, records.Said, float], Iterable[Made]],
    ) -> list[Made | Rejected]:
        try:
            return self._run_together(impressions, make)
        except _StageFailed as failure:
            if len(impressions) == 1:
                return [Rejected(failure.stage, _reason(failure.cause))]
        return [outcome for impression in impressions for outcome in self._run([impression], make)]

    def _run_together(
        self,
        impressions: Sequence[Mapping[str, Any]],
        make: Callable[[Findings, records.Said, float], Iterable[Made]],
    ) -> list[Made | Rejected]:
        started = time.perf_counter()
        with self._stage("decode"):
            admitted, slates = self._decode(impressions)
        with self._stage("score"):
            scores = score(slates, self._models)
        with self._stage("attribute"):
            signals = attribute(slates, scores, self._models)
        with self._stage("verify"):
            citations = ablate(self._rules.claims, slates, scores, self._models)
        findings = Findings(self.bundle, slates, scores, signals, citations)
        with self._stage("select"):
            chosen, statuses = select(findings, self._rules)
        with self._stage("word"):
            said = word(findings, chosen, statuses, self._models)
        with self._stage("record"):
            made = iter(make(findings, said, started))
        return [each if isinstance(each, Rejected) else next(made) for each in admitted]

    def _decode(self, impressions: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Impression | Rejected], Slates]:
        if isinstance(impressions, Sheet):  # checked as it was read
            return impressions, arrange(impressions.fields, self.bundle)
        admitted = [self._admit(impression) for impression in impressions]
        valid = [each for each in admitted if not isinstance(each, Rejected)]
        return admitted, to_columns(valid, self.bundle)

    def _records(self, findings: Findings, said: records.Said, started: float) -> list[Explained]:
        explanations = records.explanations(findings, said, self.policy, int(self._clock() * 1000))
        audits = records.audits(findings, explanations, _per_item_ms(findings, started))
        return list(map(Explained, explanations, audits))

    def _encoded(self, findings: Findings, said: records.Said, started: float) -> Sequence[Encoded | Explained]:
        produced_at_ms, took_ms = int(self._clock() * 1000), _per_item_ms(findings, started)
        encoded = self._encoder.encode(findings, said, self.policy, produced_at_ms, took_ms)
        if encoded is None:
            return self._records(findings, said, started)
        detailed = [bool(slate.get("detail")) for slate in findings.slates.impressions]
        if not any(detailed):
            return encoded
        told = self._records(findings, said, started)
        return [told[place] if whole else encoded[place] for place, whole in enumerate(detailed)]

    def _admit(self, record: Mapping[str, Any]) -> Impression | Rejected:
        try:
            impression = validate_impression(record)
            check_features(impression, self.bundle)
        except InvalidEvent as error:
            return Rejected("validate", str(error))
        return impression

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        except (MemoryError, OSError, BundleError):
            raise  # a fault of this process or of its models; no slate may be rejected for it
        except Exception as error:
            raise _StageFailed(name, error) from error
        if self._observe is not None:
            self._observe(name, time.perf_counter() - started)


def select(findings: Findings, policy: Policy) -> tuple[Ints, Ints]:
    """Choose for each item the first kind, in the order of KINDS, whose claim the policy makes.

    Returns places in KINDS, which are those in EXPLANATION_TYPES, and in STATUSES: int64 [T] each. A policy with a
    selector leaves the choice among the kinds whose claims hold to it. An item whose scores our models do not reproduce
    gets the kind that claims nothing.
    """
    kinds, matches = list(KINDS.values()), findings.scores.matches
    # A rule may serve as a policy's and say too where a claim holds.
    rules = {kind.holds for kind in kinds} | {kind.rules[policy.claims] for kind in kinds}
    true = {rule: rule(findings) for rule in rules}
    made = np.array([true[kind.rules[policy.claims]] & matches for kind in kinds])
    made[-1] = True
    chosen = made.argmax(axis=0) if policy.selector is None else choices(policy.selector, findings, made)
    holds = np.array([true[kind.holds] for kind in kinds])[chosen, np.arange(len(matches))]
    statuses = np.where(holds, np.array([STATUSES.index(kind.status) for kind in kinds])[chosen], _GENERIC)
    return chosen, np.where(matches, statuses, _MISMATCH)


def word(findings: Findings, chosen: Ints, statuses: Ints, models: Models) -> records.Said:
    """Word each item's claim in the locale of its slate, and lay open the items of slates that ask for it."""
    impressions = findings.slates.impressions
    wordings = [wording_for(impression["locale"]) for impression in impressions]
    words = [wordings[slate] for slate in findings.slates.slate.tolist()]
    texts = [""] * len(chosen)
    for number, kind in enumerate(KINDS.values()):
        rows = np.flatnonzero(chosen == number)
        places = rows.tolist()
        said = kind.sentences(findings, rows, [words[row] for row in places])
        for row, text in zip(places, said, strict=True):
            texts[row] = text
    steps = bases(findings.signals)
    basis_texts = [basis.sentences(each)[step] for each, step in zip(words, steps.tolist(), strict=True)]
    return records.Said(chosen, statuses, texts, steps, basis_texts, detail(findings, models, wordings))


def _per_item_ms(findings: Findings, started: float) -> float:
    return (time.perf_counter() - started) * 1000 / max(1, len(findings.slates.item))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, WhyrecError) else f"{type(error).__name__}: {error}"
