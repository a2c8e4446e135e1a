"""Explain a batch so that a fault of a slate stays with that slate, and a fault of the worker stops the worker.

A dead letter is acknowledged and nobody repeats it. A worker whose memory or model runtime is broken fails on every
slate, so a failure alone proves nothing about a slate. The steps:

1. A failure that no slate can cause (memory, files, the registry) is raised at once.
2. After any other failure the pipeline halves the batch until each slate that fails stands alone.
3. The worker then explains its reference slate, which it explained at its start. If that fails, it raises
   :class:`stream.errors.WorkerUnfit`.
4. A slate that failed is tried once more. The explainer is deterministic: if the slate is the cause, it fails again.
   Only then is it rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import pyarrow as pa
import structlog

from schemas.columnar import from_records
from stream.errors import WorkerUnfit
from stream.explain.pipeline import Explained

_INPUT_STAGE: Final = "validate"
"""The stage of the pipeline that rejects a slate for its content; all others fail in ways that nobody foresaw."""

log = structlog.get_logger("whyrec.explain")


class SlateExplainer(Protocol):
    """The part of :class:`stream.explain.pipeline.Explainer` that the agent needs."""

    def run(self, impressions: pa.RecordBatch) -> Explained:
        """Explain a batch, ``impression.avsc`` in Arrow; raise only what no impression can cause."""


class IsolatingExplainer:
    """An explainer that rejects a slate only when the slate itself is the cause."""

    def __init__(self, explainer: SlateExplainer, reference: Mapping[str, Any]) -> None:
        """Explain the reference slate once, which also compiles and loads everything that the first batch needs.

        Raises:
            WorkerUnfit: the reference slate cannot be explained.

        """
        self._explainer = explainer
        self._reference = from_records("impression", [reference])
        self.require_fit()

    def run(self, impressions: pa.RecordBatch) -> Explained:
        """Explain a batch, as :meth:`stream.explain.pipeline.Explainer.run` does.

        Raises:
            WorkerUnfit: the reference slate cannot be explained any more; no slate of the batch may be rejected.
            MemoryError, OSError: as raised by the explainer.

        """
        explained = self._explainer.run(impressions)
        suspects = {row: why for row, why in explained.rejected.items() if why.stage != _INPUT_STAGE}
        if not suspects:
            return explained
        self.require_fit()
        certain = {row: why for row, why in explained.rejected.items() if row not in suspects}
        parts = [
            (Explained(explained.rows, certain, explained.explanations, explained.audits), range(impressions.num_rows))
        ]
        for row, why in suspects.items():
            log.error("explaining a slate failed; it is tried once more", stage=why.stage, error=why.error)
            parts.append((self._explainer.run(impressions.slice(row, 1)), range(row, row + 1)))
        return Explained.joined(parts)

    def require_fit(self) -> None:
        """Explain the reference slate.

        Raises:
            WorkerUnfit: it cannot be explained.

        """
        for why in self._explainer.run(self._reference).rejected.values():
            raise WorkerUnfit(
                f"this worker cannot explain its reference slate ({why.stage}: {why.error}), so the fault lies with "
                "the worker and not with a message: check its memory and its model bundle (whyrec models check), and "
                "start it again"
            )
