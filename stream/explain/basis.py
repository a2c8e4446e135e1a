"""Personal or popular: how much of an item's score comes from this user, in three steps."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from schemas.events import Basis
from stream.explain.attribute import Signals
from stream.explain.slates import Floats, Ints
from stream.explain.wording import Wording

PERSONAL_FROM: Final = 0.8
"""At least this share of the absolute contributions comes from the user: the main part."""

POPULAR_BELOW: Final = 2 / 3
"""Less than this share does: how the item does with others counts for a third or more, a good part."""

# Between the terciles that were measured on held-out impressions, 0.77 and 0.83 in the shipped bundle, 0.70 and 0.76 in
# one trained on MovieLens (python -m bench.basis). The terciles of one bundle would call 80 % of the other's items
# popular; these steps, and the words for them, are true of both.


BASES: Final[tuple[Basis, ...]] = ("personal", "mixed", "popular")
"""The steps, in the order of the schema."""


def bases(signals: Signals) -> Ints:
    """Find the step of each item, its place in BASES, int64 [T]; -1 where contributions do not add up to the score."""
    return places(np.where(signals.sound, signals.personal_share, np.float32(np.nan)))


def places(share: Floats) -> Ints:
    """Find the steps of shares from 0 to 1, float32 [T]: places in BASES, int64 [T]; -1 for NaN."""
    # A float64 beside each, for 0.8 and 2 / 3 are none of float32.
    wide = share.astype(np.float64)
    return np.where(np.isnan(wide), -1, (wide < PERSONAL_FROM).astype(np.int64) + (wide < POPULAR_BELOW))


def steps(share: Floats) -> list[Basis | None]:
    """Name the steps of shares from 0 to 1, float32 [T]; None for NaN."""
    return [name_of(place) for place in places(share).tolist()]


def name_of(place: int) -> Basis | None:
    """Name a step by its place in BASES; None for -1."""
    return BASES[place] if place >= 0 else None


@lru_cache(maxsize=1_000)
def sentences(words: Wording) -> tuple[str, ...]:
    """Say each step, in the order of BASES, and last, at -1, nothing."""
    return (*(words.say(f"basis.{basis}") for basis in BASES), "")


def sentence(basis: Basis | None, words: Wording) -> str:
    """Say the step, or nothing."""
    return sentences(words)[-1 if basis is None else BASES.index(basis)]
