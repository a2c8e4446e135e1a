"""What the selector reads: one ordered list, about the user, the claim's strength, and the type it is asked about."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.events import ExplanationType

TYPES: Final[tuple[ExplanationType, ...]] = ("watch_history", "category_match", "trending")
"""The types among which there is a choice; the one that claims nothing is said where none of them holds."""

CONTEXT: Final = (
    "position",
    "history_length",
    "hours_since_last",
    "engaged_share",
    "skip_share",
    "top_category_share",
    "usual_popularity",
    "category_match",
    "category_titles",
    "cited",
    "largest_drop",
    "ranks_lost",
    "popularity",
    "trend",
    "personal_share",
)
"""Per item; NaN where unknown. Nothing of what the user *is* enters, only what was watched and what was measured."""

FEATURES: Final = (*CONTEXT, *(f"is_{name}" for name in TYPES))


def rows(context: NDArray[np.float64], kind: NDArray[np.int64]) -> NDArray[np.float64]:
    """Put contexts float64 [n, len(CONTEXT)] and types int64 [n] (places in TYPES) together: [n, len(FEATURES)]."""
    return np.hstack([context, kind[:, None] == np.arange(len(TYPES))]).astype(np.float64)
