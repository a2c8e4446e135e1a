"""What a log of interactions says about items at a moment: how popular, how well received, what followed what.

Statistics are those of the night before: an event counts from the first midnight (UTC) after it, as it would in a
recommender that refreshes them once a day. So nothing a user did later can leak into the features of a slate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.data.sessions import COMPLETE, LIKE, SHARE, SKIP, Sessions
from models.manifest import Feature

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
RECENT_DAYS, BEFORE_DAYS = 7, 21
FOLLOW_WINDOW = 3  # an item follows another when it is among the next three events of the same user, not skipped
PRIOR_PLAYS = 5.0  # rates start from everybody's average, with the weight of that many plays
MIN_TREND_PLAYS = 3  # below that a growth is noise, and the trend undefined

ITEM_STATISTICS = (
    Feature("popularity_percentile", "item", "How popular it is in your region", unit="percentile"),
    Feature("trend_percentile", "item", "How fast it is gaining viewers in your region", unit="percentile"),
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
class _Night:
    """One region's statistics up to one midnight: float32 [n + 1, 10], and plays float64 [n + 1] in all regions."""

    statistics: NDArray[np.float32]
    plays: NDArray[np.float64]
    category_plays: NDArray[np.float64]


@dataclass(eq=False)
class ItemLog:
    """A log of interactions, indexed by day. Immutable but for its cache of nights; one per thread.

    Attributes:
        category: int64 [n + 1], category code of each item, 0 for padding.
        categories: how many there are.
        region_codes: the code of each region.

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
    _nights: dict[tuple[int, int], _Night] = field(default_factory=dict)
    _everywhere: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(cls, sessions: Sessions) -> ItemLog:
        """Index all events of these sessions."""
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
        """Look up ITEM_STATISTICS of items int64 [B, N] in these regions, as of these moments: float64 [B, N, 10]."""
        values = np.empty((*items.shape, len(ITEM_STATISTICS)))
        for night, rows in self._by_night(now_ms, region):
            values[rows] = night.statistics[items[rows]]
        return values

    def context(
        self, now_ms: NDArray[np.int64], region: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Look up what is known about past items int64 [B, L].

        Returns:
            regional popularity percentile float64 [B, L], plays everywhere float64 [B, L], and plays per category
            code float64 [B, categories + 1].

        """
        popularity, plays = np.empty(items.shape), np.empty(items.shape)
        category_plays = np.empty((len(items), self.categories + 1))
        for night, rows in self._by_night(now_ms, region):
            popularity[rows] = night.statistics[items[rows], 0]
            plays[rows] = night.plays[items[rows]]
            category_plays[rows] = night.category_plays
        return popularity, plays, category_plays

    def follows(
        self, now_ms: NDArray[np.int64], leads: NDArray[np.int64], items: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Count how often items int64 [B, N] followed leads int64 [B, K] before these moments: int64 [B, N, K]."""
        day = (now_ms // DAY_MS - self._first_day).clip(0, self._days - 1)
        pair = (leads[:, None, :] * len(self.category) + items[:, :, None]) * self._days
        # Keys are sorted by pair, then by day: the count is the distance between two places.
        first = np.searchsorted(self._follow_keys, pair)
        hit = first < len(self._follow_keys)
        hit[hit] = self._follow_keys[first[hit]] < (pair + day[:, None, None])[hit]
        counts = np.zeros(pair.shape, dtype=np.int64)
        counts[hit] = np.searchsorted(self._follow_keys, (pair + day[:, None, None])[hit]) - first[hit]
        return counts

    def _by_night(self, now_ms: NDArray[np.int64], region: NDArray[np.int64]) -> list[tuple[_Night, NDArray[np.int64]]]:
        keys, inverse = np.unique(np.stack([now_ms // DAY_MS, region], axis=1), axis=0, return_inverse=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(inverse.ravel()))[:-1])
        return [(self._night(int(day), int(code)), rows) for (day, code), rows in zip(keys, groups, strict=True)]

    def _night(self, day: int, region: int) -> _Night:
        # All days after the newest event look alike but for what is recent, which ends 28 days later.
        day = min(day, self._first_day + self._days + RECENT_DAYS + BEFORE_DAYS)
        night = self._nights.get((day, region))
        if night is None:
            night = self._nights[day, region] = self._count(day, region)
        return night

    def _count(self, day: int, region: int) -> _Night:
        size = len(self.category)
        end, recent, before = np.searchsorted(self._day, [day, day - RECENT_DAYS, day - RECENT_DAYS - BEFORE_DAYS])
        if day not in self._everywhere:
            self._everywhere[day] = self._count_everywhere(day, int(end), int(recent))
        everywhere = self._everywhere[day]
        here = self._region[:end] == region
        local = np.bincount(self._item[:end][here], minlength=size)
        late = np.bincount(self._item[recent:end][here[recent:]], minlength=size)
        early = np.bincount(self._item[before:recent][here[before:recent]], minlength=size)
        # This week over a usual week before, one play added to each; one division of whole numbers, so that ties tie.
        growth = (late + 1) * BEFORE_DAYS / (early * RECENT_DAYS + BEFORE_DAYS)
        known = late + early >= MIN_TREND_PLAYS

        statistics = np.empty((size, len(ITEM_STATISTICS)), dtype=np.float32)
        statistics[:, 0] = percentile(local, np.arange(size) > 0)
        statistics[:, 1] = percentile(growth, known & (np.arange(size) > 0))
        statistics[:, 2:] = everywhere[:, 1:]
        plays = everywhere[:, 0]
        by_category = np.zeros(self.categories + 1)
        np.add.at(by_category, self.category, plays)
        return _Night(statistics, plays, by_category)

    def _count_everywhere(self, day: int, end: int, recent: int) -> NDArray[np.float64]:
        """Plays, then the statistics that do not depend on the region: float64 [n + 1, 9]."""
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
    """Rank `values` [n] among those marked: 0 to 100, equal values share the middle of their ranks, NaN elsewhere."""
    ranked = np.full(len(values), np.nan)
    chosen = values[among]
    if len(chosen):
        ordered = np.sort(chosen)
        below = np.searchsorted(ordered, chosen, side="left")
        upto = np.searchsorted(ordered, chosen, side="right")
        ranked[among] = 50.0 * (below + upto) / len(chosen)
    return ranked


def _follow_keys(sessions: Sessions, first_day: int, days: int) -> NDArray[np.int64]:
    """All (lead, follower, day) of the log as sorted numbers, one per occurrence, int64."""
    size = len(sessions.catalog.category_codes)
    owner = sessions.owner
    keys = []
    for distance in range(1, FOLLOW_WINDOW + 1):
        lead, item = sessions.item[:-distance].astype(np.int64), sessions.item[distance:].astype(np.int64)
        kept = (owner[:-distance] == owner[distance:]) & (sessions.engagement[distance:] != SKIP)
        day = sessions.timestamp_ms[distance:] // DAY_MS - first_day
        keys.append(((lead * size + item) * days + day)[kept])
    return np.sort(np.concatenate(keys))
