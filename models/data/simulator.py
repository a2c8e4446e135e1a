"""Simulated StreamRec histories with known causes: for each event, the past event that led to it.

How an event is drawn: with probability LEAD_PROBABILITY a past event leads to one of the followers of its item; liked,
completed and recent events do so more often than skipped and old ones (`cause` is that event). Otherwise the user
discovers an item by taste or by its current popularity in the region (`cause` = -1). The user then skips, views,
completes, likes or shares the item, depending on taste, on the item's quality and on the engagement with the cause. The
engagement in turn changes the user's taste.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.sessions import COMPLETE, LIKE, NO_CAUSE, SHARE, SKIP, VIEW, InvalidSessions, Sessions, user_hash
from models.data.world import AUDIENCE, HORIZON_DAYS, ITEMS, ITEMS_PER_CATEGORY, World, streamrec

MIN_EVENTS, MAX_EVENTS = 5, 50
# Midnight, 1 November 2025, UTC: the default of now_ms, so that the seed alone determines the result.
REFERENCE_NOW_MS = 1_761_955_200_000
DAY_MS = 86_400_000

LEAD_PROBABILITY = 0.78  # that a past event leads to the next one
TASTE_PROBABILITY = 0.80  # that an item without a cause is discovered by taste; otherwise by popularity
ATTRACTION = np.array([0.0, 1.0, 3.0, 1.8, 4.0, 0.05])  # weight of a past event as a cause, by engagement code
RECENCY_FLOOR, RECENCY_DECAY = 0.04, 0.62
TASTE_SHIFT = np.array([1.0, 1.0, 1.15, 1.05, 1.25, 0.70])  # factor on the taste for the category, by engagement code
# Added to the utility of an item, by the engagement code of its cause.
RECEPTION = np.array([0.0, 0.0, 0.5, 0.2, 0.7, -0.5])
# A utility below the first edge is a skip; the next intervals are view, complete, like, share.
ENGAGEMENT_EDGES = np.array([-0.75, 0.55, 1.35, 2.35])
ENGAGEMENT_STEPS = np.array([SKIP, VIEW, COMPLETE, LIKE, SHARE])


def simulate(sessions: int, seed: int, *, now_ms: int = REFERENCE_NOW_MS) -> Sessions:
    """Simulate histories of 5 to 50 events, one per user, with the newest event in the week before `now_ms`.

    With one version of NumPy, equal arguments give identical histories. The catalogue does not depend on the seed.
    60,000 histories take about 4 s on one core.

    Raises:
        InvalidSessions: `sessions` is below 1.

    """
    if sessions < 1:
        raise InvalidSessions(f"expected at least 1 history to simulate, got {sessions}")
    rng = np.random.default_rng([seed, 7])
    world = streamrec()
    lengths = MIN_EVENTS + np.round((MAX_EVENTS - MIN_EVENTS) * rng.beta(1.1, 2.0, sessions)).astype(np.int64)
    # In order of decreasing length, the users that are active at a step are a leading slice of every array.
    order = np.argsort(-lengths, kind="stable")
    users = _Users.draw(world, lengths[order], now_ms, rng)
    for step in range(int(lengths.max())):
        users.advance(step, int((lengths > step).sum()), rng)

    row = np.empty(sessions, dtype=np.int64)
    row[order] = np.arange(sessions)
    real = np.arange(MAX_EVENTS) < lengths[:, None]
    audience = users.region[row]
    return Sessions(
        item=users.item[row][real].astype(np.int32),
        engagement=users.engagement[row][real].astype(np.int8),
        timestamp_ms=users.timestamp_ms[row][real],
        cause=users.cause[row][real].astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        user_id_hash=np.array([user_hash(f"streamrec/{seed}/{number}") for number in range(sessions)]),
        region=np.array([code for code, _, _ in AUDIENCE])[audience],
        locale=np.array([locale for _, locale, _ in AUDIENCE])[audience],
        catalog=world.catalog,
    )


def cause_probabilities(sessions: Sessions) -> NDArray[np.float64]:
    """Probability that each earlier event is the cause of the newest event, given that one of them is.

    By Bayes' rule from the simulator's own distributions: the weight of an event as a cause, by engagement and age,
    times the probability that its item leads to the newest item.

    Returns:
        float64 [n, W], with the second newest event in the last column; each row sums to 1, or to 0 if no event can be
        the cause.

    """
    world = streamrec()
    history = sessions.without_last()
    newest = sessions.item[sessions.offsets[1:] - 1]
    items, engagements = history.padded(int(history.lengths.max(initial=1)))
    recency = RECENCY_FLOOR + (1 - RECENCY_FLOOR) * RECENCY_DECAY ** np.arange(items.shape[1] - 1, -1, -1)
    is_newest = world.followers[items] == newest[:, None, None]
    transition = (world.follower_probability[items] * is_newest).sum(axis=2)
    weight = ATTRACTION[engagements] * recency * transition * (items > 0)
    total = weight.sum(axis=1, keepdims=True)
    return np.asarray(weight / np.where(total > 0, total, 1.0))


@dataclass
class _Users:
    """The state of all users: one row per user and one column per event."""

    world: World
    region: NDArray[np.int64]
    taste: NDArray[np.float64]
    fondness: NDArray[np.float64]
    leniency: NDArray[np.float64]
    item: NDArray[np.int64]
    engagement: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    cause: NDArray[np.int64]
    day: NDArray[np.int64]
    discovery: _Discovery

    @classmethod
    def draw(cls, world: World, lengths: NDArray[np.int64], now_ms: int, rng: np.random.Generator) -> _Users:
        """Draw users with histories of these lengths int64 [users]; timestamps are final, events still empty."""
        users, categories = len(lengths), int(world.category.max()) + 1
        region = rng.choice(len(AUDIENCE), size=users, p=[share for _, _, share in AUDIENCE])
        taste = rng.dirichlet(np.full(categories, 0.15), size=users) + 0.002
        timestamp_ms = _timestamps(lengths, now_ms, rng)
        empty = np.zeros((users, MAX_EVENTS), dtype=np.int64)
        return cls(
            world=world,
            region=region,
            taste=taste,
            fondness=_fondness(taste, rng),
            leniency=0.4 * rng.normal(size=users),
            item=empty,
            engagement=empty.copy(),
            timestamp_ms=timestamp_ms,
            cause=np.full_like(empty, NO_CAUSE),
            day=((now_ms - timestamp_ms) // DAY_MS).clip(0, HORIZON_DAYS - 1),
            discovery=_Discovery.of(world),
        )

    def advance(self, step: int, active: int, rng: np.random.Generator) -> None:
        """Draw event number `step`, from 0, of the first `active` users."""
        items = np.zeros(active, dtype=np.int64)
        causes = np.full(active, NO_CAUSE, dtype=np.int64)
        if step > 0:
            caused = np.flatnonzero(rng.random(active) < LEAD_PROBABILITY)
            items[caused], causes[caused] = self._followers(caused, step, rng)
        missing = np.flatnonzero(items == 0)
        while len(missing):
            items[missing] = self._discovered(missing, step, rng)
            missing = missing[self._seen(missing, items[missing], step)]

        categories = self.world.category[items]
        rows = np.arange(active)
        reception = np.where(causes >= 0, RECEPTION[self.engagement[rows, causes]] + 0.3, 0.0)
        utility = (
            self.fondness[rows, categories] + 0.75 * self.world.quality[items] + reception + self.leniency[:active]
        )
        utility += rng.normal(size=active)
        engagements = ENGAGEMENT_STEPS[np.searchsorted(ENGAGEMENT_EDGES, utility)]
        self.taste[rows, categories] *= TASTE_SHIFT[engagements]
        self.item[:active, step] = items
        self.engagement[:active, step] = engagements
        self.cause[:active, step] = causes

    def _seen(self, users: NDArray[np.int64], items: NDArray[np.int64], step: int) -> NDArray[np.bool_]:
        """Whether each of these users has had the item before: bool [n]."""
        seen: NDArray[np.bool_] = (self.item[users, :step] == items[:, None]).any(axis=1)
        return seen

    def _followers(
        self, users: NDArray[np.int64], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw a cause and one of its followers for each user: items, and causes; 0 and -1 after four seen items."""
        recency = RECENCY_FLOOR + (1 - RECENCY_FLOOR) * RECENCY_DECAY ** np.arange(step - 1, -1, -1)
        weight = np.cumsum(ATTRACTION[self.engagement[users, :step]] * recency, axis=1)
        items = np.zeros(len(users), dtype=np.int64)
        causes = np.full(len(users), NO_CAUSE, dtype=np.int64)
        waiting = np.arange(len(users))
        for _ in range(4):
            point = rng.random(len(waiting)) * weight[waiting, -1]
            cause = (weight[waiting] <= point[:, None]).sum(axis=1)
            leads = self.item[users[waiting], cause]
            cumulative = np.cumsum(self.world.follower_probability[leads], axis=1)
            column = (cumulative <= rng.random(len(waiting))[:, None]).sum(axis=1).clip(max=cumulative.shape[1] - 1)
            chosen = self.world.followers[leads, column]
            unseen = ~self._seen(users[waiting], chosen, step)
            items[waiting[unseen]], causes[waiting[unseen]] = chosen[unseen], cause[unseen]
            waiting = waiting[~unseen]
        return items, causes

    def _discovered(self, users: NDArray[np.int64], step: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw an item for each user by taste or by popularity: int64 [n]."""
        cumulative = np.cumsum(self.taste[users], axis=1)
        point = rng.random(len(users))[:, None] * cumulative[:, -1:]
        category = (cumulative <= point).sum(axis=1).clip(max=cumulative.shape[1] - 1)
        category[rng.random(len(users)) >= TASTE_PROBABILITY] = -1
        return self.discovery.draw(self.region[users], self.day[users, step], category, rng)


@dataclass(frozen=True)
class _Discovery:
    """The distribution of items by appeal, for every region and day.

    cumulative is float64 [regions * days * (items + 1)]: one cumulative distribution after the other, each shifted by
    the number of distributions before it, so that a single binary search draws for all users.
    """

    cumulative: NDArray[np.float64]

    @classmethod
    def of(cls, world: World) -> _Discovery:
        since = world.burst_day[None, :] - np.arange(HORIZON_DAYS)[:, None]
        # A burst starts within a day and decays by the factor e in 6 days; days count backwards from now.
        burst = 1.0 + 12.0 * np.where(since >= 0, np.exp(-since / 6.0), 0.0) * (since < HORIZON_DAYS)
        weight = world.regional_preference[:, None, :] * burst[None, :, :] * world.appeal
        cumulative = np.cumsum(weight, axis=2)
        cumulative /= cumulative[:, :, -1:]
        shift = np.arange(cumulative.shape[0] * cumulative.shape[1], dtype=np.float64).reshape(cumulative.shape[:2])
        return cls((cumulative + shift[:, :, None]).ravel())

    def draw(
        self,
        region: NDArray[np.int64],
        day: NDArray[np.int64],
        category: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Draw items int64 [n] for these regions, days before now, and categories (-1 for the whole catalogue)."""
        block = (region * HORIZON_DAYS + day) * (ITEMS + 1)
        low = self.cumulative[block + np.where(category < 0, 0, category * ITEMS_PER_CATEGORY)]
        high = self.cumulative[block + np.where(category < 0, ITEMS, (category + 1) * ITEMS_PER_CATEGORY)]
        point = low + (high - low) * rng.random(len(category))
        items: NDArray[np.int64] = (np.searchsorted(self.cumulative, point, side="right") - block).clip(1, ITEMS)
        return items


def _fondness(taste: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw how much each user enjoys each category, float64 [n, categories]: in part by taste, in part at random."""
    by_taste = np.log(taste / taste.mean(axis=1, keepdims=True)).clip(-2, 2)
    return np.asarray(0.3 * by_taste + 0.8 * rng.normal(size=taste.shape))


def _timestamps(lengths: NDArray[np.int64], now_ms: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw times, int64 [n, MAX_EVENTS]: visits of a few events, minutes apart, with about a day between visits."""
    shape = (len(lengths), MAX_EVENTS)
    minutes = np.exp(rng.normal(np.log(24.0), 0.7, shape))
    pause = np.exp(rng.normal(np.log(26.0 * 60), 0.8, shape))
    gap = np.where(rng.random(shape) < 0.3, pause, minutes)
    elapsed = (np.cumsum(gap, axis=1) * 60_000).astype(np.int64)
    newest = now_ms - (rng.random(len(lengths)) * 7 * DAY_MS).astype(np.int64) - 1
    return elapsed - elapsed[np.arange(len(lengths)), lengths - 1][:, None] + newest[:, None]
