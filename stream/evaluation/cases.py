"""Impressions to audit or to calibrate on: of users whom no model has learnt from, with the true cause where known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from models.bundle import Bundle
from models.data.sessions import Sessions
from models.data.slates import impressions
from schemas.events import Impression

AUDIT_SEED: Final = 7_001
"""Simulated users that audits look at; nothing is trained or calibrated on them."""

CALIBRATION_SEED: Final = 8_001
"""Simulated users that margins are calibrated on."""

USERS: Final = 8_000
"""Simulated at a time: enough for every item's statistics to mean something."""

DECISIVE: Final = 0.95
"""A cause counts as known for certain where the world's own odds give one event more than this."""

_ITEMS: Final = 20


@dataclass(frozen=True, slots=True)
class Cause:
    """What led to the item that the user watched next.

    item_id: that item; event: the index in the session of the event that led to it; likeliest: the event that has
    the highest odds of having done so, by the simulator's own rules; odds: those odds.
    """

    item_id: str
    event: int
    odds: float
    likeliest: int


@dataclass(frozen=True, slots=True)
class Case:
    """An impression, and what led to what came next where that is known."""

    impression: Impression
    cause: Cause | None


def simulated(bundle: Bundle, seed: int) -> Iterator[Case]:
    """Yield a case for each simulated user, without end."""
    from models.data.simulator import simulate

    for number in itertools.count(seed):
        users = simulate(USERS, number)
        yield from map(Case, impressions(bundle, users, items=_ITEMS, seed=number), _causes(users))


def movielens(bundle: Bundle, directory: Path, *, part: int) -> Iterator[Case]:
    """Yield cases of real users, until there are no more; part 2 is for figures only, part 1 chose the models.

    One round makes a slate per history, each round one event further back in time.
    """
    from models.data.movielens import load

    everything = load(directory)
    users = everything.parts()[part]
    for held_out in range(1, int(users.lengths.max(initial=1))):
        for impression in impressions(bundle, users, items=_ITEMS, held_out=held_out, log=everything, seed=held_out):
            yield Case(impression, None)


def _causes(users: Sessions) -> Iterator[Cause | None]:
    from models.data.simulator import cause_probabilities

    newest = users.offsets[1:] - 1
    odds = cause_probabilities(users)
    width = odds.shape[1]
    likeliest = odds.argmax(axis=1)
    for row, (cause, item) in enumerate(zip(users.cause[newest].tolist(), users.item[newest].tolist(), strict=True)):
        if cause < 0:
            yield None
            continue
        oldest = width - int(users.lengths[row]) + 1
        yield Cause(
            item_id=users.catalog.item_ids[item - 1],
            event=cause,
            odds=float(np.max(odds[row])),
            likeliest=int(likeliest[row]) - oldest,
        )
