"""From a batch of slates to explanations: decode, score, attribute, verify, select, word, record.

One synchronous function over columns; objects are made in the last step. It knows no Kafka and keeps no state between
batches, so it may run in any thread, one batch at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from models.bundle import Bundle
from schemas.errors import InvalidEvent, WhyrecError
from schemas.events import Audit, Explanation, Impression, validate_impression
from stream.errors import ConfigurationError
from stream.explain import records
from stream.explain.columns import check_features, to_columns
from stream.explain.evidence import verify
from stream.explain.findings import Findings
from stream.explain.kinds import KINDS, POLICIES
from stream.explain.models import Models
from stream.explain.scores import score
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
        clock: Callable[[], float] = time.time,
        observe: StageObserver | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise ConfigurationError(f"expected a policy out of {', '.join(POLICIES)}, got {policy!r}; choose one")
        self.bundle = bundle
        self.policy = policy
        self._clock = clock
        self._observe = observe
        self._models = Models.open(bundle, threads)

    @classmethod
    def load(cls, bundle_dir: Path | str, policy: str = "evidence", **options: Any) -> Self:
        """Open a bundle and be ready to explain; options are those of the constructor.

        Raises:
            BundleError: the folder is no bundle, or its parts do not fit together.
            ConfigurationError: there is no such policy.

        """
        return cls(Bundle.load(Path(bundle_dir)), policy, **options)

    def explain(self, impressions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Explain impressions, dictionaries of the shape of ``impression.v1.avsc``, as such of ``explanation.v1.avsc``.

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
        """
        try:
            return self._run(impressions)
        except _StageFailed as failure:
            if len(impressions) == 1:
                return [Rejected(failure.stage, _reason(failure.cause))]
        return [outcome for impression in impressions for outcome in self.run([impression])]

    def _run(self, impressions: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        started = time.perf_counter()
        with self._stage("decode"):
            admitted = [self._admit(impression) for impression in impressions]
            valid = [each for each in admitted if not isinstance(each, Rejected)]
            slates = to_columns(valid, self.bundle)
        with self._stage("score"):
            scores = score(slates, self._models)
        with self._stage("attribute"):
            signals = attribute(slates, scores, self._models)
        with self._stage("verify"):
            citations = verify(self.policy, slates, scores, self._models)
        findings = Findings(self.bundle, slates, scores, signals, citations)
        with self._stage("select"):
            chosen, statuses = select(findings, self.policy)
        with self._stage("word"):
            said = word(findings, chosen, statuses)
        with self._stage("record"):
            explanations = records.explanations(findings, said, self.policy, int(self._clock() * 1000))
            elapsed_ms = (time.perf_counter() - started) * 1000
            audits = records.audits(findings, explanations, elapsed_ms / max(1, len(slates.item)))
        made = iter(map(Explained, explanations, audits))
        return [each if isinstance(each, Rejected) else next(made) for each in admitted]

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
        except Exception as error:
            raise _StageFailed(name, error) from error
        if self._observe is not None:
            self._observe(name, time.perf_counter() - started)


def select(findings: Findings, policy: str) -> tuple[list[Any], list[Any]]:
    """Choose for each item the first kind, in the order of KINDS, whose claim the policy makes: kinds and statuses.

    An item whose scores our models do not reproduce gets the kind that claims nothing.
    """
    names, kinds = list(KINDS), list(KINDS.values())
    matches = findings.scores.matches
    made = np.stack([kind.rules[policy](findings) & matches for kind in kinds[:-1]] + [np.ones_like(matches)])
    chosen = made.argmax(axis=0)
    holds = np.stack([kind.holds(findings) for kind in kinds])[chosen, np.arange(len(matches))]
    statuses = np.array([kind.status for kind in kinds], dtype=object)[chosen]
    statuses = np.where(holds, statuses, "generic")
    return np.array(names, dtype=object)[chosen].tolist(), np.where(matches, statuses, "model_mismatch").tolist()


def word(findings: Findings, chosen: list[Any], statuses: list[Any]) -> records.Said:
    """Word each item's claim in the locale of its slate."""
    wordings = [wording_for(impression["locale"]) for impression in findings.slates.impressions]
    texts = [
        KINDS[name].sentence(findings, row, wordings[slate])
        for row, (name, slate) in enumerate(zip(chosen, findings.slates.slate.tolist(), strict=True))
    ]
    return records.Said(chosen, statuses, texts)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, WhyrecError) else f"{type(error).__name__}: {error}"
