"""The citation margin: how much a past event must have done for an item to be cited."""

from __future__ import annotations

from typing import Final

import numpy as np

from stream.explain.models import Models
from stream.explain.slates import Floats

RELATIVE: Final = 0.25
"""Share of the margin that the centred score drop must exceed; the score drop itself must exceed the full margin.

The items of a slate are alike, so an event does much the same for most of them; only the rest of its effect tells one
item from another.
"""


def citation_margin(models: Models) -> float:
    """Return the bundle's margin as a score drop, at least the smallest that its score tolerance lets us measure."""
    manifest, spread = models.bundle.manifest, models.spread
    margin = max(manifest.citation_margin * spread.margin, manifest.score_tolerance * spread.session / RELATIVE)
    # Drops are float32, and a margin of the same precision compares alike in numpy and in kernels.
    return float(np.float32(margin))


def age_weights(width: int, ageing: float) -> Floats:
    """Weights of the score drops of W events, the newest last, so that one margin holds for all: float32 [W].

    The newest event has weight 1. With an ageing above 0, older events must do more. Newer events repeat much of what
    an old event contributed; the little that it still does alone is the least certain, and integrated gradients, which
    reduce all events together, seldom confirm it.
    """
    return np.arange(width, 0, -1, dtype=np.float32) ** np.float32(-ageing)


def margin_drop(drop: Floats, centred: Floats, weight: Floats) -> Floats:
    """Smaller of drop and centred drop / RELATIVE, times the age weight: what is compared with the margin; [n] each."""
    smaller: Floats = np.minimum(drop, centred / np.float32(RELATIVE)) * weight
    return smaller
