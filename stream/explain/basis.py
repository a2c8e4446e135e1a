"""Personal or popular: how much of an item's score comes from this user, in three steps."""

from __future__ import annotations

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


def bases(signals: Signals) -> list[Basis | None]:
    """Name the step of each item, T of them; None where the contributions do not add up to the score."""
    share: Floats = np.where(signals.sound, signals.personal_share, np.nan).astype(np.float32)
    return [step(each) for each in share.tolist()]


def step(share: float) -> Basis | None:
    """Name the step of a share from 0 to 1; None for NaN."""
    if share >= PERSONAL_FROM:
        return "personal"
    if share >= POPULAR_BELOW:
        return "mixed"
    return "popular" if share < POPULAR_BELOW else None


def sentence(basis: Basis | None, words: Wording) -> str:
    """Say the step, or nothing."""
    return "" if basis is None else words.say(f"basis.{basis}")
