"""From a batch of impressions to explanations: decode, score, attribute, ablate, select, word, detail, encode.

Each stage is a module of this package, and a function from columns to columns. The pipeline knows no Kafka and keeps no
state between batches, so it may run in any thread, one batch at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from models.attribution.ablation import names
from models.bundle import Bundle
from models.selector.runtime import MAX_EXPLORATION
from schemas.columnar import from_records, list_offsets, to_records
from schemas.errors import InvalidEvent, WhyrecError
from schemas.events import EXPLANATION_TYPES, STATUSES, Contrast
from stream.errors import ConfigurationError
from stream.explain.ablate import ablate
from stream.explain.attribute import attribute
from stream.explain.decode import decode
from stream.explain.detail import detail
from stream.explain.detail.contrast import contrast
from stream.explain.encode import Encoder
from stream.explain.findings import Findings
from stream.explain.models import Models
from stream.explain.policy import resolve
from stream.explain.score import score
from stream.explain.select import select
from stream.explain.slates import Ints
from stream.explain.word import word, wordings_of

SYSTEM_FAULTS: Final = (MemoryError, OSError)
"""Failures that no impression can cause: the pipeline raises them as they are."""

StageObserver = Callable[[str, float], None]
"""Called after each stage of a batch with its name and the seconds that it took."""

_OUTCOMES: Final = [(kind, status) for kind in EXPLANATION_TYPES for status in STATUSES]
"""Type and status of an item, by the index of the type times the number of statuses plus the index of the status."""


Outcome = tuple[str, str, str | None]
"""Type and status of an item and, for the status model_mismatch, its cause."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An impression that could not be explained: the stage that failed, and why."""

    stage: str
    error: str


@dataclass(frozen=True, slots=True)
class Explained:
    """What became of a batch of impressions.

    rows int64 [S]: which impressions were explained, in order; rejected: the others, by row; explanations and audits:
    one event per explained impression, ``explanation.avsc`` and ``audit.avsc`` in Arrow. The source of the audit
    records is still to be filled in, see ``stream.explain.encode.with_source``.
    """

    rows: Ints
    rejected: dict[int, Rejected]
    explanations: pa.RecordBatch
    audits: pa.RecordBatch

    @classmethod
    def joined(cls, parts: Sequence[tuple[Explained, Sequence[int]]]) -> Explained:
        """Put together what became of parts of a batch, each with the rows of the batch that it consisted of."""
        rows = np.concatenate([np.asarray(taken, dtype=np.int64)[part.rows] for part, taken in parts])
        rejected = {taken[row]: reason for part, taken in parts for row, reason in part.rejected.items()}
        explanations = pa.concat_batches([part.explanations for part, _ in parts])
        audits = pa.concat_batches([part.audits for part, _ in parts])
        order = pa.array(np.argsort(rows))
        return cls(np.sort(rows), rejected, explanations.take(order), audits.take(order))

    def item_outcomes(self) -> list[list[Outcome]]:
        """Return the outcome of each item, by slate."""
        slates = self.explanations.column("items")
        offsets, items = list_offsets(slates).tolist(), slates.flatten()
        codes = items.field("type").to_numpy() * len(STATUSES) + items.field("status").to_numpy()
        mismatches = items.field("mismatch").to_pylist()
        outcomes = [(*_OUTCOMES[code], mismatch) for code, mismatch in zip(codes.tolist(), mismatches, strict=True)]
        return [outcomes[first:last] for first, last in pairwise(offsets)]


class _StageFailed(Exception):
    """Names the stage that failed, until it is known which impression is the cause."""

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
        models: Models | None = None,
    ) -> None:
        """Open the bundle's models, unless they are opened already, and be ready to explain.

        Args:
            bundle: what scored the slates.
            policy: ``evidence``, ``attention`` or ``learned``.
            threads: of ONNX Runtime, within one run.
            max_exploration: of the policy ``learned``, a share of the items.
            clock: seconds since 1970; timestamps are judged by it, and explanations carry it.
            observe: called after each stage of a batch.
            models: the bundle's models, opened.

        """
        self._rules = resolve(bundle, policy, max_exploration)
        self.bundle = bundle
        self.policy = self._rules.name
        self._clock = clock
        self._observe = observe
        self._models = Models.open(bundle, threads) if models is None else models
        if self._rules.claims == "attention" and not self._models.session.has_attention:
            raise ConfigurationError(
                f"expected a session model with attention for the policy attention, got that of {bundle.model_version} "
                "without: choose the policy evidence"
            )
        self._encoder = Encoder(bundle, self.policy, names(self._models.session))

    @classmethod
    def load(cls, bundle_dir: Path | str, policy: str = "evidence", **options: Any) -> Self:
        """Open a bundle and be ready to explain; options are those of the constructor.

        Raises:
            BundleError: the folder is no bundle, or its parts do not fit together.
            ConfigurationError: there is no such policy, or it needs attention, which the session model has not.

        """
        return cls(Bundle.load(Path(bundle_dir)), policy, **options)

    def explain(self, impressions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Explain impressions, records of the shape of ``impression.avsc``, as records of ``explanation.avsc``.

        Raises:
            InvalidEvent: one of them cannot be explained; says which and why.

        """
        explained = self.run(_batch_of(list(impressions)))
        for row, rejected in sorted(explained.rejected.items()):
            raise InvalidEvent(f"impression {row} cannot be explained ({rejected.stage}): {rejected.error}")
        return to_records("explanation", explained.explanations)

    def contrast(self, impression: Mapping[str, Any], item_id: str, other_item_id: str) -> Contrast:
        """Say why one item of an impression rather than another: differences of scores, contributions and effects.

        Raises:
            InvalidEvent: the impression cannot be explained, lacks one of the items, or the models do not reproduce the
                scores of one of them.

        """
        [explanation] = self.explain([{**impression, "detail": True}])
        details = {item["item_id"]: item for item in explanation["items"]}
        for each in (item_id, other_item_id):
            if each not in details:
                raise InvalidEvent(f"expected items of the slate, got {each!r}; name two of {', '.join(details)}")
            if details[each]["detail"] is None:
                raise InvalidEvent(
                    f"the scores of {each!r} are not those of {self.bundle.model_version} "
                    f"({details[each]['mismatch']}); nothing can be said of their difference"
                )
        return contrast(details[item_id]["detail"], details[other_item_id]["detail"], other_item_id, limit=None)

    def run(self, impressions: pa.RecordBatch) -> Explained:
        """Explain a batch, ``impression.avsc`` in Arrow. One impression's fault does not affect the others.

        When a stage fails, the batch is halved until each impression that makes it fail stands alone and is rejected.

        Raises:
            MemoryError, OSError: a failure that no impression can cause.

        """
        try:
            return self._run_together(impressions)
        except _StageFailed as failure:
            count = impressions.num_rows
            if count <= 1:
                return self._nothing({0: Rejected(failure.stage, _reason(failure.cause))})
        halves = range(count // 2), range(count // 2, count)
        return Explained.joined([(self.run(impressions.slice(half.start, len(half))), half) for half in halves])

    def _run_together(self, impressions: pa.RecordBatch) -> Explained:
        started = time.perf_counter()
        with self._stage("decode"):
            now_ms = int(self._clock() * 1000)
            decoded = decode(impressions, self.bundle, now_ms)
            slates = decoded.slates
        with self._stage("score"):
            scores = score(slates, self._models)
        with self._stage("attribute"):
            signals = attribute(slates, scores, self._models)
        with self._stage("ablate"):
            citations = ablate(self._rules.claims, slates, scores, self._models)
        findings = Findings(self.bundle, slates, scores, signals, citations)
        with self._stage("select"):
            selection = select(findings, self._rules)
        with self._stage("word"):
            wordings = wordings_of(slates)
            texts = word(findings, selection, wordings)
        with self._stage("detail"):
            details = detail(findings, self._models, wordings)
        with self._stage("encode"):
            explanations = self._encoder.explanations(findings, selection, texts, details, now_ms)
            per_item_ms = (time.perf_counter() - started) * 1000 / max(1, len(slates.item))
            audits = self._encoder.audits(findings, selection, texts, per_item_ms)
        rejected = {row: Rejected("validate", error) for row, error in decoded.errors.items()}
        return Explained(decoded.rows, rejected, explanations, audits)

    @staticmethod
    def _nothing(rejected: dict[int, Rejected]) -> Explained:
        return Explained(np.zeros(0, np.int64), rejected, from_records("explanation", []), from_records("audit", []))

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        except SYSTEM_FAULTS:
            raise
        except Exception as error:
            raise _StageFailed(name, error) from error
        if self._observe is not None:
            self._observe(name, time.perf_counter() - started)


def _batch_of(impressions: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Turn records into columns; InvalidEvent says which of them cannot be."""
    try:
        return from_records("impression", impressions)
    except InvalidEvent:
        for row, impression in enumerate(impressions):
            try:
                from_records("impression", [impression])
            except InvalidEvent as error:
                raise InvalidEvent(f"impression {row} cannot be explained: {error}") from error
        raise


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, WhyrecError) else f"{type(error).__name__}: {error}"
