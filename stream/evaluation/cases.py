"""Impressions to evaluate or calibrate on: held-out users, with the true cause of the next item where it is known."""

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

EVALUATION_SEED: Final = 7_001
"""Seed of the simulated users that evaluations use; nothing is trained or calibrated on these users."""

CALIBRATION_SEED: Final = 8_001
"""Seed of the simulated users that margins are calibrated on."""

USERS: Final = 8_000
"""Users simulated at a time: enough for the statistics of every item to be meaningful."""

DECISIVE: Final = 0.95
"""A cause is decisive where the odds of one event, by the simulator's own rules, exceed this value."""

_ITEMS: Final = 20


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that led the user to the next item.

    item_id is the next item; event is the index, in the session, of the event that caused it; likeliest is the index of
    the event with the highest odds of being the cause, by the simulator's own rules; odds are the odds of that event.
    """

    item_id: str
    event: int
    odds: float
    likeliest: int


@dataclass(frozen=True, slots=True)
class Case:
    """One slate, and the cause of the item that the user chose next, where the cause is known."""

    impression: Impression
    cause: Cause | None


def simulated(bundle: Bundle, seed: int) -> Iterator[Case]:
    """Yield one case for each simulated user, without end."""
    from models.data.simulator import simulate

    for number in itertools.count(seed):
        users = simulate(USERS, number)
        yield from map(Case, impressions(bundle, users, items=_ITEMS, seed=number), _causes(users))


def movielens(bundle: Bundle, directory: Path, *, part: int) -> Iterator[Case]:
    """Yield the cases of the real users in one part of MovieLens 100K.

    Part 1 (validation) was used to choose the models; part 2 (test) is for reported figures only. Each round yields one
    slate per history, and each round holds out one event more than the round before.
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
