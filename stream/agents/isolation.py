"""Explain a batch so that a fault of a slate stays with that slate, and a fault of the worker stops the worker.

A dead letter is acknowledged and nobody repeats it. A worker whose memory or model runtime is broken fails on every
slate, so a failure alone proves nothing about a slate. The steps:

1. A failure that no slate can cause (memory, files, the registry) is raised at once.
2. After any other failure the batch is halved until each slate that fails stands alone.
3. The worker then explains its reference slate, which it explained at its start. If that fails, it raises
   :class:`stream.errors.WorkerUnfit`.
4. A slate that failed is tried once more. The explainer is deterministic: if the slate is the cause, it fails again.
   Only then is it rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from schemas.registry import RegistryUnavailable
from stream.errors import WorkerUnfit
from stream.explain.columns import Sheet
from stream.explain.pipeline import Answer as Outcome
from stream.explain.pipeline import Rejected

SYSTEM_FAULTS: Final = (MemoryError, OSError, RegistryUnavailable)
"""Failures that say nothing about the slate at hand."""

_INPUT_STAGE: Final = "validate"
"""The stage of the pipeline that rejects a slate for its content; all others fail in ways that nobody foresaw."""

log = structlog.get_logger("whyrec.explain")


class SlateExplainer(Protocol):
    """The part of :class:`stream.explain.pipeline.Explainer` that the agent needs."""

    def read(self, bodies: Sequence[bytes | memoryview | None]) -> Sheet:
        """Read the impressions of the newest version that need no decoding one by one."""

    def encode(self, impressions: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """Return one outcome per impression, in order."""


class IsolatingExplainer:
    """An explainer that rejects a slate only when the slate itself is the cause."""

    def __init__(self, explainer: SlateExplainer, reference: Mapping[str, Any]) -> None:
        """Explain the reference slate once, which also compiles and loads everything that the first batch needs.

        Raises:
            WorkerUnfit: the reference slate cannot be explained.

        """
        self._explainer = explainer
        self._reference = reference
        self.require_fit()

    def read(self, bodies: Sequence[bytes | memoryview | None]) -> Sheet:
        """Read the impressions of the newest version; those left out must be decoded one by one."""
        try:
            return self._explainer.read(bodies)
        except SYSTEM_FAULTS:
            raise
        except Exception:
            log.exception("reading a batch failed unexpectedly; its messages are decoded one by one")
            return self._explainer.read([])

    def encode(self, impressions: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """Explain a batch: one outcome per impression, in order.

        Raises:
            WorkerUnfit: the reference slate cannot be explained any more; no slate of the batch may be rejected.
            MemoryError, OSError, RegistryUnavailable: as raised by the explainer.

        """
        outcomes = self._halved(impressions)
        suspects = [place for place, outcome in enumerate(outcomes) if _is_unforeseen(outcome)]
        if suspects:
            self.require_fit()
            for place in suspects:
                [outcomes[place]] = self._halved(impressions[place : place + 1])
        return outcomes

    def require_fit(self) -> None:
        """Explain the reference slate.

        Raises:
            WorkerUnfit: it cannot be explained.

        """
        [outcome] = self._halved([self._reference])
        if isinstance(outcome, Rejected):
            raise WorkerUnfit(
                f"this worker cannot explain its reference slate ({outcome.stage}: {outcome.error}), so the fault lies "
                "with the worker and not with a message: check its memory and its model bundle (whyrec models check), "
                "and start it again"
            )

    def _halved(self, impressions: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        if not impressions:
            return []
        try:
            return self._explainer.encode(impressions)
        except SYSTEM_FAULTS:
            raise
        except Exception as error:
            if len(impressions) == 1:
                log.exception("explaining a slate failed", request_id=impressions[0].get("request_id"))
                return [Rejected("explain", f"{type(error).__name__}: {error}")]
            middle = len(impressions) // 2
            return self._halved(impressions[:middle]) + self._halved(impressions[middle:])


def _is_unforeseen(outcome: Outcome) -> bool:
    return isinstance(outcome, Rejected) and outcome.stage != _INPUT_STAGE
