"""The fictitious streaming service StreamRec: its catalogue, and which item leads to which.

The world does not depend on the seed of a simulation, so that a model trained on simulated histories fits the events of
every other simulation.
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
_FRANCHISE_PROBABILITY = np.array([0.62, 0.20, 0.12, 0.06])
_SEQUEL_WEIGHT = 0.5
_NEIGHBOUR_DECAY = 0.72


@dataclass(frozen=True)
class World:
    """The parameters of simulated behaviour; row 0 (or column 0) of every array is padding.

    Attributes:
        catalog: 5,000 items, 250 in each of 20 categories; the items of a category are contiguous.
        category: int64 [n + 1], category of each item, from 0.
        followers: int64 [n + 1, FOLLOWERS], the items that an item leads to: its sequel first if there is one, then
            items of its category with a similar style.
        follower_probability: float64 [n + 1, FOLLOWERS], the probability of each follower; each row sums to 1.
        appeal: float64 [n + 1], relative frequency with which an item is discovered without a preceding event.
        quality: float64 [n + 1], standard normal; raises the engagement with an item.
        burst_day: int64 [n + 1], the day, counted backwards from `now`, on which an item's burst of popularity starts;
            far before the simulated period for most items.
        regional_preference: float64 [regions, n + 1], factor on the appeal of an item in a region.

    """

    catalog: Catalog
    category: NDArray[np.int64]
    followers: NDArray[np.int64]
    follower_probability: NDArray[np.float64]
    appeal: NDArray[np.float64]
    quality: NDArray[np.float64]
    burst_day: NDArray[np.int64]
    regional_preference: NDArray[np.float64]


@cache
def streamrec() -> World:
    """Build the world of StreamRec, once per process (about 0.5 s)."""
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
    # The parts of a franchise have a similar style and a similar quality.
    style = rng.normal(size=(ITEMS + 1, _STYLE_DIMENSIONS))[franchise] + 0.1 * rng.normal(
        size=(ITEMS + 1, _STYLE_DIMENSIONS)
    )
    quality = 0.8 * rng.normal(size=ITEMS + 1)[franchise] + 0.6 * rng.normal(size=ITEMS + 1)
    appeal = np.exp(1.0 * rng.normal(size=ITEMS + 1) + 0.3 * quality)
    appeal[0] = 0.0
    followers, follower_probability = _followers(style, sequel)
    burst_day = np.where(rng.random(ITEMS + 1) < 0.15, rng.integers(0, HORIZON_DAYS, ITEMS + 1), 10 * HORIZON_DAYS)
    regional_preference = np.exp(0.4 * rng.normal(size=(len(AUDIENCE), ITEMS + 1)))

    popularity = np.zeros(ITEMS + 1, dtype=np.float32)
    popularity[1 + np.argsort(appeal[1:], kind="stable")] = 100.0 * (np.arange(ITEMS) + 0.5) / ITEMS
    catalog = Catalog(
        item_ids=tuple(f"sr-{index:04d}" for index in range(1, ITEMS + 1)),
        titles=tuple(titles),
        categories=tuple(CATEGORIES[code] for code in category[1:]),
        popularity=popularity,
    )
    return World(catalog, category, followers, follower_probability, appeal, quality, burst_day, regional_preference)


def _franchise_lengths(rng: np.random.Generator) -> list[int]:
    lengths: list[int] = []
    while sum(lengths) < ITEMS_PER_CATEGORY:
        remaining = ITEMS_PER_CATEGORY - sum(lengths)
        lengths.append(min(remaining, int(rng.choice(_FRANCHISE_LENGTHS, p=_FRANCHISE_PROBABILITY))))
    return lengths


def _followers(style: NDArray[np.float64], sequel: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the followers of each item and their probabilities, [n + 1, FOLLOWERS] each."""
    followers = np.zeros((ITEMS + 1, FOLLOWERS), dtype=np.int64)
    for first in range(1, ITEMS + 1, ITEMS_PER_CATEGORY):
        block = style[first : first + ITEMS_PER_CATEGORY]
        distance = ((block[:, None, :] - block[None, :, :]) ** 2).sum(axis=2)
        np.fill_diagonal(distance, np.inf)
        sequel_of = sequel[first : first + ITEMS_PER_CATEGORY]
        rows = np.flatnonzero(sequel_of)
        distance[rows, sequel_of[rows] - first] = -1.0
        followers[first : first + ITEMS_PER_CATEGORY] = (
            first + np.argsort(distance, axis=1, kind="stable")[:, :FOLLOWERS]
        )
    weight = np.tile(_NEIGHBOUR_DECAY ** np.arange(FOLLOWERS), (ITEMS + 1, 1))
    with_sequel = sequel > 0
    weight[with_sequel, 1:] *= (1 - _SEQUEL_WEIGHT) / weight[with_sequel, 1:].sum(axis=1, keepdims=True)
    weight[with_sequel, 0] = _SEQUEL_WEIGHT
    return followers, weight / weight.sum(axis=1, keepdims=True)
