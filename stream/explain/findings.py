"""The results of all stages for a batch of slates, from which an explanation is selected and worded."""

from __future__ import annotations

from dataclasses import dataclass

from models.bundle import Bundle
from stream.explain.ablate import Citations
from stream.explain.attribute import Signals
from stream.explain.score import Scores
from stream.explain.slates import Slates


@dataclass(frozen=True, slots=True)
class Findings:
    """The columns of all stages; all are over the same slates and items."""

    bundle: Bundle
    slates: Slates
    scores: Scores
    signals: Signals
    citations: Citations

    def title(self, index: int) -> str:
        """Title of an item of the catalogue, by its index (1 or more)."""
        return self.bundle.catalog.titles[index - 1]
