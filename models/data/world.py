"""The invented streaming service StreamRec: its catalogue, and which item leads on to which.

The world is always the same one, whatever the seed of a simulation: a model that was trained on it in one process can
be served events from it in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from models.catalog import Catalog
from models.data.titles import CATEGORIES, franchise_titles

ITEMS_PER_CATEGORY = 250
ITEMS = ITEMS_PER_CATEGORY * len(CATEGORIES)
FOLLOWERS = 7
HORIZON_DAYS = 90
# Region, locale, share of the users.
AUDIENCE = (
    ("US", "en-US", 0.28),
    ("GB", "en-GB", 0.20),
    ("DE", "de-DE", 0.20),
    ("CA", "en-CA", 0.10),
    ("FR", "fr-FR", 0.10),
    ("AT", "de-AT", 0.07),
    ("CH", "de-CH", 0.05),
)
_WORLD_SEED = 5000
_STYLE_DIMENSIONS = 4
_FRANCHISE_LENGTHS = np.array([1, 2, 3, 4])
_FRANCHISE_ODDS = np.array([0.62, 0.20, 0.12, 0.06])
_SEQUEL_WEIGHT = 0.5
_NEIGHBOUR_DECAY = 0.72


@dataclass(frozen=True)
class World:
    """What drives behaviour on StreamRec; every array has a row 0 for padding.

    Attributes:
        catalog: 5,000 items, 250 in each of 20 categories, those of one category side by side.
        category: int64 [n + 1], 0-based category of an item.
        followers: int64 [n + 1, FOLLOWERS], the items that one item leads on to: its sequel first where it has one,
            then items of its category in a similar style.
        follower_odds: float64 [n + 1, FOLLOWERS], their odds; each row adds up to 1.
        appeal: float64 [n + 1], how often an item is found without a lead, relative to the others.
        quality: float64 [n + 1], standard normal; how well an item is received by those who start it.
        burst_day: int64 [n + 1], the day before `now` at which an item has its burst of attention; far away for most.
        lean: float64 [regions, n + 1], by how much a region prefers an item.

    """

    catalog: Catalog
    category: NDArray[np.int64]
    followers: NDArray[np.int64]
    follower_odds: NDArray[np.float64]
    appeal: NDArray[np.float64]
    quality: NDArray[np.float64]
    burst_day: NDArray[np.int64]
    lean: NDArray[np.float64]


@cache
def streamrec() -> World:
    """Build the one world of StreamRec, once per process (about half a second)."""
    rng = np.random.default_rng(_WORLD_SEED)
    titles: list[str] = []
    taken: set[str] = set()
    sequel = np.zeros(ITEMS + 1, dtype=np.int64)
    franchise = np.zeros(ITEMS + 1, dtype=np.int64)
    for name in CATEGORIES:
        lengths = _franchise_lengths(rng)
        for parts in franchise_titles(name, lengths, rng, taken):
            first = len(titles) + 1
            sequel[first : first + len(parts) - 1] = np.arange(first + 1, first + len(parts))
            franchise[first : first + len(parts)] = first
            titles.extend(parts)

    category = np.concatenate([[-1], np.repeat(np.arange(len(CATEGORIES)), ITEMS_PER_CATEGORY)])
    # The parts of a franchise share their style and much of their reception.
    style = rng.normal(size=(ITEMS + 1, _STYLE_DIMENSIONS))[franchise] + 0.1 * rng.normal(
        size=(ITEMS + 1, _STYLE_DIMENSIONS)
    )
    quality = 0.8 * rng.normal(size=ITEMS + 1)[franchise] + 0.6 * rng.normal(size=ITEMS + 1)
    appeal = np.exp(1.0 * rng.normal(size=ITEMS + 1) + 0.3 * quality)
    appeal[0] = 0.0
    followers, odds = _followers(style, sequel)
    burst_day = np.where(rng.random(ITEMS + 1) < 0.15, rng.integers(0, HORIZON_DAYS, ITEMS + 1), 10 * HORIZON_DAYS)
    lean = np.exp(0.4 * rng.normal(size=(len(AUDIENCE), ITEMS + 1)))

    popularity = np.zeros(ITEMS + 1, dtype=np.float32)
    popularity[1 + np.argsort(appeal[1:], kind="stable")] = 100.0 * (np.arange(ITEMS) + 0.5) / ITEMS
    catalog = Catalog(
        item_ids=tuple(f"sr-{index:04d}" for index in range(1, ITEMS + 1)),
        titles=tuple(titles),
        categories=tuple(CATEGORIES[code] for code in category[1:]),
        popularity=popularity,
    )
    return World(catalog, category, followers, odds, appeal, quality, burst_day, lean)


def _franchise_lengths(rng: np.random.Generator) -> list[int]:
    lengths: list[int] = []
    while sum(lengths) < ITEMS_PER_CATEGORY:
        room = ITEMS_PER_CATEGORY - sum(lengths)
        lengths.append(min(room, int(rng.choice(_FRANCHISE_LENGTHS, p=_FRANCHISE_ODDS))))
    return lengths


def _followers(style: NDArray[np.float64], sequel: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    followers = np.zeros((ITEMS + 1, FOLLOWERS), dtype=np.int64)
    for first in range(1, ITEMS + 1, ITEMS_PER_CATEGORY):
        block = style[first : first + ITEMS_PER_CATEGORY]
        distance = ((block[:, None, :] - block[None, :, :]) ** 2).sum(axis=2)
        np.fill_diagonal(distance, np.inf)
        of_block = sequel[first : first + ITEMS_PER_CATEGORY]
        rows = np.flatnonzero(of_block)
        distance[rows, of_block[rows] - first] = -1.0
        followers[first : first + ITEMS_PER_CATEGORY] = (
            first + np.argsort(distance, axis=1, kind="stable")[:, :FOLLOWERS]
        )
    odds = np.tile(_NEIGHBOUR_DECAY ** np.arange(FOLLOWERS), (ITEMS + 1, 1))
    with_sequel = sequel > 0
    odds[with_sequel, 1:] *= (1 - _SEQUEL_WEIGHT) / odds[with_sequel, 1:].sum(axis=1, keepdims=True)
    odds[with_sequel, 0] = _SEQUEL_WEIGHT
    return followers, odds / odds.sum(axis=1, keepdims=True)
