"""Simulated StreamRec histories in which it is known which past event led to the next one.

The story of an event: most often something the user saw before leads on to it, liked and finished things far more than
skipped ones, recent ones more than old ones (`cause` says which). Otherwise the user finds it by taste, or because many
watch it in this region these days (`cause` = -1). Then the user skips, views, completes, likes or shares it, depending
on taste, on the item's quality, and on how well what led to it was received. Likes and skips move the taste.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.sessions import COMPLETE, LIKE, NO_CAUSE, SHARE, SKIP, VIEW, InvalidSessions, Sessions, user_hash
from models.data.world import AUDIENCE, HORIZON_DAYS, ITEMS, ITEMS_PER_CATEGORY, World, streamrec

MIN_EVENTS, MAX_EVENTS = 5, 50
# Midnight, 1 November 2025, UTC: "now" where a caller names none, so that a seed alone fixes the outcome.
REFERENCE_NOW_MS = 1_761_955_200_000
DAY_MS = 86_400_000

LEAD_ODDS = 0.78  # how often a past event leads to the next one
TASTE_ODDS = 0.80  # of the rest: by taste; what still remains, by what is popular
ATTRACTION = np.array([0.0, 1.0, 3.0, 1.8, 4.0, 0.05])  # of a past event, by its engagement code
RECENCY_FLOOR, RECENCY_DECAY = 0.04, 0.62
TASTE_SHIFT = np.array([1.0, 1.0, 1.15, 1.05, 1.25, 0.70])  # of the item's category, by engagement code
RECEPTION = np.array([0.0, 0.0, 0.5, 0.2, 0.7, -0.5])  # what a well-received lead adds to what follows
# Utility below the first edge: skip; then view, complete, like, share.
ENGAGEMENT_EDGES = np.array([-0.75, 0.55, 1.35, 2.35])
ENGAGEMENT_STEPS = np.array([SKIP, VIEW, COMPLETE, LIKE, SHARE])


def simulate(sessions: int, seed: int, *, now_ms: int = REFERENCE_NOW_MS) -> Sessions:
    """Simulate that many users' histories of 5 to 50 events, the newest of each within the week before `now_ms`.

    The same arguments give the same histories, bit for bit, with the same NumPy. All seeds share one catalogue. Takes
    about 4 s for 60,000 histories on one core.

    Raises:
        InvalidSessions: if `sessions` is below 1.

    """
    if sessions < 1:
        raise InvalidSessions(f"expected at least 1 history to simulate, got {sessions}")
    rng = np.random.default_rng([seed, 7])
    world = streamrec()
    lengths = MIN_EVENTS + np.round((MAX_EVENTS - MIN_EVENTS) * rng.beta(1.1, 2.0, sessions)).astype(np.int64)
    # Longest first: the users still active at step t are then a leading slice of every array.
    order = np.argsort(-lengths, kind="stable")
    crowd = _Crowd.gather(world, lengths[order], now_ms, rng)
    for step in range(int(lengths.max())):
        crowd.advance(step, int((lengths > step).sum()), rng)

    back = np.empty(sessions, dtype=np.int64)
    back[order] = np.arange(sessions)
    shown = np.arange(MAX_EVENTS) < lengths[:, None]
    audience = crowd.region[back]
    return Sessions(
        item=crowd.item[back][shown].astype(np.int32),
        engagement=crowd.engagement[back][shown].astype(np.int8),
        timestamp_ms=crowd.timestamp_ms[back][shown],
        cause=crowd.cause[back][shown].astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        user_id_hash=np.array([user_hash(f"streamrec/{seed}/{number}") for number in range(sessions)]),
        region=np.array([code for code, _, _ in AUDIENCE])[audience],
        locale=np.array([locale for _, locale, _ in AUDIENCE])[audience],
        catalog=world.catalog,
    )


def lead_odds(sessions: Sessions) -> NDArray[np.float64]:
    """How likely each earlier event led to the newest one of its history, given that one of them did.

    By Bayes' rule from the story itself: an event leads on as its engagement and its age pull, and to an item as the
    world's followers have it. float64 [n, W] with the event before the newest in the last column; each row adds up to
    1, or is 0 where none could have led there.
    """
    world = streamrec()
    history = sessions.without_last()
    newest = sessions.item[sessions.offsets[1:] - 1]
    items, engagements = history.padded(int(history.lengths.max(initial=1)))
    recency = RECENCY_FLOOR + (1 - RECENCY_FLOOR) * RECENCY_DECAY ** np.arange(items.shape[1] - 1, -1, -1)
    leads_there = world.followers[items] == newest[:, None, None]
    odds = ATTRACTION[engagements] * recency * (world.follower_odds[items] * leads_there).sum(axis=2) * (items > 0)
    total = odds.sum(axis=1, keepdims=True)
    return np.asarray(odds / np.where(total > 0, total, 1.0))


@dataclass
class _Crowd:
    """All users at once: one row per user, one column per event so far."""

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
    finds: _Finds

    @classmethod
    def gather(cls, world: World, lengths: NDArray[np.int64], now_ms: int, rng: np.random.Generator) -> _Crowd:
        users, categories = len(lengths), int(world.category.max()) + 1
        region = rng.choice(len(AUDIENCE), size=users, p=[share for _, _, share in AUDIENCE])
        taste = rng.dirichlet(np.full(categories, 0.15), size=users) + 0.002
        timestamp_ms = _timestamps(lengths, now_ms, rng)
        blank = np.zeros((users, MAX_EVENTS), dtype=np.int64)
        return cls(
            world=world,
            region=region,
            taste=taste,
            fondness=_fondness(taste, rng),
            leniency=0.4 * rng.normal(size=users),
            item=blank,
            engagement=blank.copy(),
            timestamp_ms=timestamp_ms,
            cause=np.full_like(blank, NO_CAUSE),
            day=((now_ms - timestamp_ms) // DAY_MS).clip(0, HORIZON_DAYS - 1),
            finds=_Finds.of(world),
        )

    def advance(self, step: int, active: int, rng: np.random.Generator) -> None:
        """Let the first `active` users have their event number `step`."""
        items = np.zeros(active, dtype=np.int64)
        causes = np.full(active, NO_CAUSE, dtype=np.int64)
        if step > 0:
            led = np.flatnonzero(rng.random(active) < LEAD_ODDS)
            items[led], causes[led] = self._led(led, step, rng)
        unled = np.flatnonzero(items == 0)
        while len(unled):
            items[unled] = self._found(unled, step, rng)
            unled = unled[self._seen(unled, items[unled], step)]

        kinds = self.world.category[items]
        rows = np.arange(active)
        received = np.where(causes >= 0, RECEPTION[self.engagement[rows, causes]] + 0.3, 0.0)
        utility = self.fondness[rows, kinds] + 0.75 * self.world.quality[items] + received + self.leniency[:active]
        utility += rng.normal(size=active)
        engagements = ENGAGEMENT_STEPS[np.searchsorted(ENGAGEMENT_EDGES, utility)]
        self.taste[rows, kinds] *= TASTE_SHIFT[engagements]
        self.item[:active, step] = items
        self.engagement[:active, step] = engagements
        self.cause[:active, step] = causes

    def _seen(self, users: NDArray[np.int64], items: NDArray[np.int64], step: int) -> NDArray[np.bool_]:
        seen: NDArray[np.bool_] = (self.item[users, :step] == items[:, None]).any(axis=1)
        return seen

    def _led(
        self, users: NDArray[np.int64], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tell what past events lead these users to, and which ones; 0 and -1 where the user has seen it already."""
        recency = RECENCY_FLOOR + (1 - RECENCY_FLOOR) * RECENCY_DECAY ** np.arange(step - 1, -1, -1)
        pull = np.cumsum(ATTRACTION[self.engagement[users, :step]] * recency, axis=1)
        items = np.zeros(len(users), dtype=np.int64)
        causes = np.full(len(users), NO_CAUSE, dtype=np.int64)
        waiting = np.arange(len(users))
        for _ in range(4):
            mark = rng.random(len(waiting)) * pull[waiting, -1]
            cause = (pull[waiting] <= mark[:, None]).sum(axis=1)
            leads = self.item[users[waiting], cause]
            ladder = np.cumsum(self.world.follower_odds[leads], axis=1)
            rung = (ladder <= rng.random(len(waiting))[:, None]).sum(axis=1).clip(max=ladder.shape[1] - 1)
            chosen = self.world.followers[leads, rung]
            fresh = ~self._seen(users[waiting], chosen, step)
            items[waiting[fresh]], causes[waiting[fresh]] = chosen[fresh], cause[fresh]
            waiting = waiting[~fresh]
        return items, causes

    def _found(self, users: NDArray[np.int64], step: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Tell what these users find by taste or by popularity."""
        ladder = np.cumsum(self.taste[users], axis=1)
        kind = (ladder <= rng.random(len(users))[:, None] * ladder[:, -1:]).sum(axis=1).clip(max=ladder.shape[1] - 1)
        kind[rng.random(len(users)) >= TASTE_ODDS] = -1
        return self.finds.draw(self.region[users], self.day[users, step], kind, rng)


@dataclass(frozen=True)
class _Finds:
    """Draws an item by its appeal in a region on a day, from everything or from one category."""

    ladder: NDArray[np.float64]  # [regions * days * (items + 1)]; each block rises by exactly 1

    @classmethod
    def of(cls, world: World) -> _Finds:
        since = world.burst_day[None, :] - np.arange(HORIZON_DAYS)[:, None]
        # A burst rises within a day and fades over about a week; days count backwards from now.
        burst = 1.0 + 12.0 * np.where(since >= 0, np.exp(-since / 6.0), 0.0) * (since < HORIZON_DAYS)
        weight = world.lean[:, None, :] * burst[None, :, :] * world.appeal
        ladder = np.cumsum(weight, axis=2)
        ladder /= ladder[:, :, -1:]
        blocks = np.arange(ladder.shape[0] * ladder.shape[1], dtype=np.float64).reshape(ladder.shape[:2])
        return cls((ladder + blocks[:, :, None]).ravel())

    def draw(
        self,
        region: NDArray[np.int64],
        day: NDArray[np.int64],
        kind: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Items int64 [n] for these regions, days before now and 0-based categories (-1: from everything)."""
        block = (region * HORIZON_DAYS + day) * (ITEMS + 1)
        low = self.ladder[block + np.where(kind < 0, 0, kind * ITEMS_PER_CATEGORY)]
        high = self.ladder[block + np.where(kind < 0, ITEMS, (kind + 1) * ITEMS_PER_CATEGORY)]
        mark = low + (high - low) * rng.random(len(kind))
        items: NDArray[np.int64] = (np.searchsorted(self.ladder, mark, side="right") - block).clip(1, ITEMS)
        return items


def _fondness(taste: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw how well each category is received by each user, float64 [n, categories]: partly by taste, partly not."""
    by_taste = np.log(taste / taste.mean(axis=1, keepdims=True)).clip(-2, 2)
    return np.asarray(0.3 * by_taste + 0.8 * rng.normal(size=taste.shape))


def _timestamps(lengths: NDArray[np.int64], now_ms: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Lay out times int64 [n, MAX_EVENTS]: sittings of a few events, minutes apart, with days between sittings."""
    shape = (len(lengths), MAX_EVENTS)
    minutes = np.exp(rng.normal(np.log(24.0), 0.7, shape))
    pause = np.exp(rng.normal(np.log(26.0 * 60), 0.8, shape))
    gap = np.where(rng.random(shape) < 0.3, pause, minutes)
    elapsed = (np.cumsum(gap, axis=1) * 60_000).astype(np.int64)
    newest = now_ms - (rng.random(len(lengths)) * 7 * DAY_MS).astype(np.int64) - 1
    return elapsed - elapsed[np.arange(len(lengths)), lengths - 1][:, None] + newest[:, None]
