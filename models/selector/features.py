"""The selector's ordered features: the user's behaviour, the strength of each claim, and the explanation type."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.events import ExplanationType

TYPES: Final[tuple[ExplanationType, ...]] = ("watch_history", "category_match", "trending")
"""The types to choose from; personalized, which claims nothing, is used only if none of them holds."""

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
"""Features per item, NaN where unknown. None describes personal traits, only behaviour and measurements."""

FEATURES: Final = (*CONTEXT, *(f"is_{name}" for name in TYPES))


def rows(context: NDArray[np.float64], kind: NDArray[np.int64]) -> NDArray[np.float64]:
    """Combine contexts float64 [n, len(CONTEXT)] and types int64 [n], positions in TYPES: [n, len(FEATURES)]."""
    return np.hstack([context, kind[:, None] == np.arange(len(TYPES))]).astype(np.float64)
