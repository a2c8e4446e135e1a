"""Item statistics from a log of interactions, as of a moment: popularity, engagement rates, and successions of items.

Statistics are updated daily: an event counts from the first midnight (UTC) after it, as in a recommender that computes
them once a day. So no later event can leak into the features of a slate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.data.sessions import COMPLETE, LIKE, SHARE, SKIP, Sessions
from models.feature import Feature

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
RECENT_DAYS, BEFORE_DAYS = 7, 21
FOLLOW_WINDOW = 3  # an item follows a lead if it is among the user's next three events and was not skipped
PRIOR_PLAYS = 5.0  # weight, in plays, of the overall average in smoothed rates
MIN_TREND_PLAYS = 3  # with fewer plays the trend is undefined

ITEM_STATISTICS = (
    Feature("popularity_percentile", "item", "How popular it is in your region", unit="percentile"),
    Feature(
        "trend_percentile", "item", "How fast it is gaining viewers in your region", unit="percentile", meaning="trend"
    ),
    Feature("recent_popularity_percentile", "item", "How popular it was this week", unit="percentile"),
    Feature("category_popularity_percentile", "item", "How popular it is within its category", unit="percentile"),
    Feature("completion_rate", "item", "How often people finish it", unit="%"),
    Feature("like_rate", "item", "How often people like it", unit="%"),
    Feature("share_rate", "item", "How often people share it", unit="%"),
    Feature("skip_rate", "item", "How often people skip it", unit="%"),
    Feature("days_since_first_play", "item", "How long people have been watching it", unit="days"),
    Feature("active_days", "item", "On how many days of the last week it was watched", unit="days"),
)


@dataclass(frozen=True)
class _Snapshot:
    """The statistics of one region at one midnight.

    Attributes:
        statistics: float32 [n + 1, 10], ITEM_STATISTICS.
        plays: float64 [n + 1], plays in all regions.
        category_plays: float64 [categories + 1], plays per category code in all regions.

    """

    statistics: NDArray[np.float32]
    plays: NDArray[np.float64]
    category_plays: NDArray[np.float64]


@dataclass(eq=False)
class ItemLog:
    """A log of interactions, indexed by day. It caches daily statistics and must not be shared between threads.

    Attributes:
        category: int64 [n + 1], category code of each item, 0 for padding.
        categories: number of categories.
        region_codes: the code of each region name.

    """

    category: NDArray[np.int64]
    categories: int
    region_codes: dict[str, int]
    _day: NDArray[np.int64]
    _item: NDArray[np.int64]
    _engagement: NDArray[np.int64]
    _region: NDArray[np.int64]
    _follow_keys: NDArray[np.int64]
    _first_day: int
    _days: int
    _snapshots: dict[tuple[int, int], _Snapshot] = field(default_factory=dict)
    _global: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(cls, sessions: Sessions) -> ItemLog:
        """Index all events of the sessions."""
        names, region_of_session = np.unique(sessions.region, return_inverse=True)
        day = sessions.timestamp_ms // DAY_MS
        order = np.argsort(day, kind="stable")
        first_day = int(day.min()) if len(day) else 0
        days = int(day.max()) - first_day + 2 if len(day) else 1
        codes = sessions.catalog.category_codes.astype(np.int64)
        return cls(
            category=codes,
            categories=int(codes.max()),
            region_codes={str(name): code for code, name in enumerate(names)},
            _day=day[order],
            _item=sessions.item[order].astype(np.int64),
            _engagement=sessions.engagement[order].astype(np.int64),
            _region=region_of_session[sessions.owner][order],
            _follow_keys=_follow_keys(sessions, first_day, days),
            _first_day=first_day,
            _days=days,
        )

    def statistics(
        self, now_ms: NDArray[np.int64], region: NDArray[np.int64], items: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Look up ITEM_STATISTICS of items int64 [B, N], for the region and time of each row: float64 [B, N, 10]."""
        values = np.empty((*items.shape, len(ITEM_STATISTICS)))
        for snapshot, rows in self._by_snapshot(now_ms, region):
            values[rows] = snapshot.statistics[items[rows]]
        return values

    def context(
        self, now_ms: NDArray[np.int64], region: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Look up statistics of the items of histories, int64 [B, L].

        Returns:
            regional popularity percentile float64 [B, L], plays in all regions float64 [B, L], and plays per category
            code float64 [B, categories + 1].

        """
        popularity, plays = np.empty(items.shape), np.empty(items.shape)
        category_plays = np.empty((len(items), self.categories + 1))
        for snapshot, rows in self._by_snapshot(now_ms, region):
            popularity[rows] = snapshot.statistics[items[rows], 0]
            plays[rows] = snapshot.plays[items[rows]]
            category_plays[rows] = snapshot.category_plays
        return popularity, plays, category_plays

    def follow_counts(
        self, now_ms: NDArray[np.int64], leads: NDArray[np.int64], items: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Count how often each item int64 [B, N] followed each lead int64 [B, K] before now_ms: int64 [B, N, K]."""
        day = (now_ms // DAY_MS - self._first_day).clip(0, self._days - 1)
        pair = (leads[:, None, :] * len(self.category) + items[:, :, None]) * self._days
        # Keys are sorted by pair and then by day, so that a count is the difference of two search positions.
        first = np.searchsorted(self._follow_keys, pair)
        hit = first < len(self._follow_keys)
        hit[hit] = self._follow_keys[first[hit]] < (pair + day[:, None, None])[hit]
        counts = np.zeros(pair.shape, dtype=np.int64)
        counts[hit] = np.searchsorted(self._follow_keys, (pair + day[:, None, None])[hit]) - first[hit]
        return counts

    def _by_snapshot(
        self, now_ms: NDArray[np.int64], region: NDArray[np.int64]
    ) -> list[tuple[_Snapshot, NDArray[np.int64]]]:
        """Group rows by day and region: each snapshot with the indices of its rows."""
        keys, inverse = np.unique(np.stack([now_ms // DAY_MS, region], axis=1), axis=0, return_inverse=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(inverse.ravel()))[:-1])
        return [(self._snapshot(int(day), int(code)), rows) for (day, code), rows in zip(keys, groups, strict=True)]

    def _snapshot(self, day: int, region: int) -> _Snapshot:
        # From 28 days after the newest event on, no event counts as recent, and all days have the same statistics.
        day = min(day, self._first_day + self._days + RECENT_DAYS + BEFORE_DAYS)
        snapshot = self._snapshots.get((day, region))
        if snapshot is None:
            snapshot = self._snapshots[day, region] = self._computed(day, region)
        return snapshot

    def _computed(self, day: int, region: int) -> _Snapshot:
        size = len(self.category)
        end, recent, before = np.searchsorted(self._day, [day, day - RECENT_DAYS, day - RECENT_DAYS - BEFORE_DAYS])
        if day not in self._global:
            self._global[day] = self._computed_globally(day, int(end), int(recent))
        in_all_regions = self._global[day]
        in_region = self._region[:end] == region
        local = np.bincount(self._item[:end][in_region], minlength=size)
        late = np.bincount(self._item[recent:end][in_region[recent:]], minlength=size)
        early = np.bincount(self._item[before:recent][in_region[before:recent]], minlength=size)
        # Plays of the last week over those of an average week before it, with one play added to both. A single division
        # of integers gives equal quotients for equal ratios.
        growth = (late + 1) * BEFORE_DAYS / (early * RECENT_DAYS + BEFORE_DAYS)
        known = late + early >= MIN_TREND_PLAYS

        statistics = np.empty((size, len(ITEM_STATISTICS)), dtype=np.float32)
        statistics[:, 0] = percentile(local, np.arange(size) > 0)
        statistics[:, 1] = percentile(growth, known & (np.arange(size) > 0))
        statistics[:, 2:] = in_all_regions[:, 1:]
        plays = in_all_regions[:, 0]
        by_category = np.zeros(self.categories + 1)
        np.add.at(by_category, self.category, plays)
        return _Snapshot(statistics, plays, by_category)

    def _computed_globally(self, day: int, end: int, recent: int) -> NDArray[np.float64]:
        """Compute plays and the statistics that do not depend on the region: float64 [n + 1, 9]."""
        size = len(self.category)
        item, engagement = self._item[:end], self._engagement[:end]
        plays = np.bincount(item, minlength=size).astype(np.float64)
        real = np.arange(size) > 0
        columns = [plays, percentile(np.bincount(self._item[recent:end], minlength=size), real)]
        within = np.full(size, np.nan)
        for code in range(1, self.categories + 1):
            members = self.category == code
            within[members] = percentile(plays[members], np.ones(int(members.sum()), dtype=np.bool_))
        columns.append(within)
        for code in (COMPLETE, LIKE, SHARE, SKIP):
            events = np.bincount(item[engagement == code], minlength=size)
            average = events.sum() / max(plays.sum(), 1.0)
            rate = 100.0 * (events + PRIOR_PLAYS * average) / (plays + PRIOR_PLAYS)
            columns.append(np.where(plays > 0, rate, np.nan))
        first = np.full(size, np.iinfo(np.int64).max)
        np.minimum.at(first, item, self._day[:end])
        columns.append(np.where(plays > 0, np.where(plays > 0, day - first, 0), np.nan))
        week = np.unique(self._item[recent:end] * RECENT_DAYS + (self._day[recent:end] - (day - RECENT_DAYS)))
        columns.append(np.bincount(week // RECENT_DAYS, minlength=size).astype(np.float64))
        return np.stack(columns, axis=1)


def percentile(values: NDArray[np.generic], among: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Percentile ranks, 0 to 100, of `values` [n] within `among`; ties get their mean rank, other values NaN."""
    ranked = np.full(len(values), np.nan)
    chosen = values[among]
    if len(chosen):
        ordered = np.sort(chosen)
        below = np.searchsorted(ordered, chosen, side="left")
        upto = np.searchsorted(ordered, chosen, side="right")
        ranked[among] = 50.0 * (below + upto) / len(chosen)
    return ranked


def _follow_keys(sessions: Sessions, first_day: int, days: int) -> NDArray[np.int64]:
    """Encode each occurrence of (lead, follower, day) in the log as an integer: sorted int64 keys."""
    size = len(sessions.catalog.category_codes)
    owner = sessions.owner
    keys = []
    for distance in range(1, FOLLOW_WINDOW + 1):
        lead, item = sessions.item[:-distance].astype(np.int64), sessions.item[distance:].astype(np.int64)
        kept = (owner[:-distance] == owner[distance:]) & (sessions.engagement[distance:] != SKIP)
        day = sessions.timestamp_ms[distance:] // DAY_MS - first_day
        keys.append(((lead * size + item) * days + day)[kept])
    return np.sort(np.concatenate(keys))
