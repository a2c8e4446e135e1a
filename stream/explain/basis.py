"""Personal or popular: how much of an item's score comes from this user, in three steps."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from schemas.events import Basis
from stream.explain.columns import Floats
from stream.explain.signals import Signals
from stream.explain.wording import Wording

PERSONAL_FROM: Final = 0.8
"""At least this share of the absolute contributions comes from the user: the main part."""

POPULAR_BELOW: Final = 2 / 3
"""Less than this share does: how the item does with others counts for a third or more, a good part."""

# Between the terciles that were measured on held-out impressions, 0.77 and 0.83 in the shipped bundle, 0.69 and 0.75 in
# one trained on MovieLens (python -m bench.basis). The terciles of one bundle would call 80 % of the other's items
# popular; these steps, and the words for them, are true of both.


_STEPS: Final[tuple[Basis | None, ...]] = ("popular", "mixed", "personal", None)


def bases(signals: Signals) -> list[Basis | None]:
    """Name the step of each item, T of them; None where the contributions do not add up to the score."""
    return steps(np.where(signals.sound, signals.personal_share, np.nan).astype(np.float32))


def steps(share: Floats) -> list[Basis | None]:
    """Name the steps of shares from 0 to 1, float32 [T]; None for NaN."""
    place = np.searchsorted((POPULAR_BELOW, PERSONAL_FROM), share.astype(np.float64), side="right")
    return [_STEPS[each] for each in np.where(np.isnan(share), len(_STEPS) - 1, place).tolist()]


@lru_cache(maxsize=1_000)
def sentence(basis: Basis | None, words: Wording) -> str:
    """Say the step, or nothing."""
    return "" if basis is None else words.say(f"basis.{basis}")
