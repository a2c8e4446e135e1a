"""Everything found out about a batch of slates: what the kinds of explanation choose from and speak of."""

from __future__ import annotations

from dataclasses import dataclass

from models.bundle import Bundle
from stream.explain.columns import Slates
from stream.explain.evidence import Citations
from stream.explain.scores import Scores
from stream.explain.signals import Signals


@dataclass(frozen=True, slots=True)
class Findings:
    """The columns of all stages, over the same slates and items."""

    bundle: Bundle
    slates: Slates
    scores: Scores
    signals: Signals
    citations: Citations

    def title(self, index: int) -> str:
        """Title of an item of the catalogue, by its index (1 or more)."""
        return self.bundle.catalog.titles[index - 1]
