"""The ordered list of the re-ranker's features, and their computation from a log of interactions.

All features derive from items, times and engagements, so that simulated and real logs have the same features. No
feature is a personal trait (age, gender, occupation). An undefined value is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.sessions import COMPLETE, LIKE, SHARE, SKIP, VIEW, Sessions
from models.feature import Feature
from models.reranker.itemlog import HOUR_MS, ITEM_STATISTICS, PRIOR_PLAYS, ItemLog

FEATURE_SET = "interactions-1"
RECENT_EVENTS = 5  # number of newest events that count as recent
LEAD_EVENTS = 10  # number of newest events considered as leads to a candidate
NICHE_BELOW = 50  # popularity percentile
ENGAGED = (LIKE, COMPLETE, SHARE)

USER_FEATURES = (
    Feature("history_length", "user", "How much you have watched lately", unit="titles", is_history_derived=True),
    Feature("category_count", "user", "How many categories you watch", unit="categories", is_history_derived=True),
    Feature(
        "category_evenness", "user", "How evenly you spread over categories", unit="0 to 1", is_history_derived=True
    ),
    Feature(
        "top_category_share", "user", "How much of your history one category takes", unit="%", is_history_derived=True
    ),
    Feature("view_share", "user", "How often you only have a look", unit="%", is_history_derived=True),
    Feature("like_share", "user", "How often you like what you watch", unit="%", is_history_derived=True),
    Feature("complete_share", "user", "How often you finish what you start", unit="%", is_history_derived=True),
    Feature("share_share", "user", "How often you share what you watch", unit="%", is_history_derived=True),
    Feature("skip_share", "user", "How often you skip", unit="%", is_history_derived=True),
    Feature(
        "recent_engaged_share", "user", "How often your latest titles pleased you", unit="%", is_history_derived=True
    ),
    Feature("recent_skip_share", "user", "How often you skipped your latest titles", unit="%", is_history_derived=True),
    Feature("last_engaged", "user", "Whether your last title pleased you", unit="0 or 1", is_history_derived=True),
    Feature("hours_since_last", "user", "Time since you last watched", unit="hours", is_history_derived=True),
    Feature("days_covered", "user", "How far back your history goes", unit="days", is_history_derived=True),
    Feature("events_last_day", "user", "How much you watched in the last day", unit="titles", is_history_derived=True),
    Feature(
        "events_last_week", "user", "How much you watched in the last week", unit="titles", is_history_derived=True
    ),
    Feature("usual_gap_hours", "user", "Usual time between two of your titles", unit="hours", is_history_derived=True),
    Feature(
        "usual_popularity", "user", "How popular the titles you watch are", unit="percentile", is_history_derived=True
    ),
    Feature("niche_share", "user", "How often you watch what few others watch", unit="%", is_history_derived=True),
    Feature("category_switches", "user", "How often you change category", unit="%", is_history_derived=True),
)
ITEM_FEATURES = (
    *ITEM_STATISTICS,
    *(
        # For a category that the user never watches, the actionable features are 0 and the others are undefined.
        Feature(
            name,
            "item",
            display_name,
            is_category=True,
            is_personal=True,
            is_history_derived=True,
            unit=unit,
            is_actionable=name in {"category_share", "recent_category_share", "category_lift"},
        )
        for name, display_name, unit in (
            ("category_share", "How much of your history is in its category", "%"),
            ("recent_category_share", "How many of your latest titles are in its category", "%"),
            ("category_engaged_rate", "How often titles of its category pleased you", "%"),
            ("category_skip_rate", "How often you skip titles of its category", "%"),
            ("titles_since_category", "How long ago you last watched its category", "titles"),
            ("category_lift", "How much more of its category you watch than others", "times"),
        )
    ),
    Feature(
        "follow_rate",
        "item",
        "How often people watch it after one of your titles",
        is_personal=True,
        is_history_derived=True,
        unit="%",
    ),
    Feature(
        "follow_last_rate",
        "item",
        "How often people watch it after your last title",
        is_personal=True,
        is_history_derived=True,
        unit="%",
    ),
    Feature(
        "follow_engaged_rate",
        "item",
        "How often people watch it after one that pleased you",
        is_personal=True,
        is_history_derived=True,
        unit="%",
    ),
    Feature(
        "popularity_gap",
        "item",
        "How far its popularity is from what you usually watch",
        is_personal=True,
        is_history_derived=True,
        unit="percentile",
    ),
)
FEATURES = (
    *USER_FEATURES,
    *ITEM_FEATURES,
    Feature("session_score", "session", "How well it fits what you watched last"),
)


@dataclass(frozen=True)
class Moments:
    """B moments at which a slate is made, each with the user's history up to then.

    Attributes:
        items: int64 [B, L], left-padded with 0, newest last.
        engagements: int64 [B, L], codes as in `Sessions`, 0 for padding.
        timestamps_ms: int64 [B, L], UTC milliseconds; arbitrary for padding.
        now_ms: int64 [B], time of the moment, UTC milliseconds.
        region: int64 [B], codes of `ItemLog.region_codes`, -1 for a region that is not in the log.

    """

    items: NDArray[np.int64]
    engagements: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    now_ms: NDArray[np.int64]
    region: NDArray[np.int64]

    @classmethod
    def of(cls, history: Sessions, now_ms: NDArray[np.int64], log: ItemLog, length: int) -> Moments:
        """Take the newest `length` events of each history; all events must be before `now_ms`, int64 [n]."""
        items, engagements = history.padded(length)
        region = np.array([log.region_codes.get(str(name), -1) for name in history.region], dtype=np.int64)
        return cls(items, engagements, history.lay_out(history.timestamp_ms, length), now_ms, region)


def compute(
    log: ItemLog, moments: Moments, candidates: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the features of N candidates at each of B moments.

    Of the log, only events of days before the day of the moment are used.

    Args:
        log: the interactions of all users.
        moments: the moments with their histories.
        candidates: int64 [B, N], item indices from 1.

    Returns:
        user features float32 [B, 20] and item features float32 [B, N, 20], in the order of the lists above.

    """
    # Undefined values are quotients of zero by zero, and so NaN.
    with np.errstate(invalid="ignore", divide="ignore"):
        history = _History.of(log, moments)
        taste = _taste_columns(history)
        user = np.stack([*_habit_columns(log, history), *_time_columns(moments, history), *taste], axis=1)
        statistics = log.statistics(moments.now_ms, moments.region, candidates)
        gap = np.abs(statistics[:, :, 0] - taste[0][:, None])
        item = np.concatenate(
            [
                statistics,
                _category_columns(log, history, candidates),
                _follow_columns(log, moments, history, candidates),
                gap[:, :, None],
            ],
            axis=2,
        )
    return user.astype(np.float32), item.astype(np.float32)


def matrix(
    user: NDArray[np.float32], item: NDArray[np.float32], session_score: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Combine the features of B slates of N items to the re-ranker's input: float64 [B * N, 41]."""
    slates, items = session_score.shape
    rows = np.empty((slates, items, len(FEATURES)))
    rows[:, :, : len(USER_FEATURES)] = user[:, None, :]
    rows[:, :, len(USER_FEATURES) : -1] = item
    rows[:, :, -1] = session_score
    return rows.reshape(slates * items, -1)


@dataclass(frozen=True)
class _History:
    """The histories of B moments with the statistics of their items; [B, L], category_plays [B, categories + 1]."""

    shown: NDArray[np.bool_]
    engagement: NDArray[np.int64]
    engaged: NDArray[np.bool_]
    category: NDArray[np.int64]
    popularity: NDArray[np.float64]
    plays: NDArray[np.float64]
    category_plays: NDArray[np.float64]

    @classmethod
    def of(cls, log: ItemLog, moments: Moments) -> _History:
        shown = moments.items > 0
        popularity, plays, category_plays = log.context(moments.now_ms, moments.region, moments.items)
        return cls(
            shown=shown,
            engagement=moments.engagements,
            engaged=np.isin(moments.engagements, ENGAGED),
            category=log.category[moments.items],
            popularity=np.where(shown, popularity, np.nan),
            plays=plays,
            category_plays=category_plays,
        )

    @property
    def count(self) -> NDArray[np.int64]:
        """Events per history, int64 [B]."""
        return np.asarray(self.shown.sum(axis=1))

    def percent(self, events: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Percentage of each history's events that are marked in `events`, float64 [B]; NaN for an empty history."""
        return np.asarray(100.0 * (events & self.shown).sum(axis=1) / self.count)


def _habit_columns(log: ItemLog, history: _History) -> list[NDArray[np.float64]]:
    by_category = np.zeros((len(history.shown), log.categories + 1))
    np.add.at(by_category, (np.arange(len(history.shown))[:, None], history.category), history.shown)
    share = by_category[:, 1:] / history.count[:, None]
    used = (share > 0).sum(axis=1)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    latest = history.shown[:, -RECENT_EVENTS:].sum(axis=1)
    return [
        history.count.astype(np.float64),
        np.where(history.count > 0, used, np.nan),
        np.where(used > 1, entropy / np.log(used), entropy),
        100.0 * share.max(axis=1),
        *(history.percent(history.engagement == code) for code in (VIEW, LIKE, COMPLETE, SHARE, SKIP)),
        100.0 * history.engaged[:, -RECENT_EVENTS:].sum(axis=1) / latest,
        100.0 * (history.engagement[:, -RECENT_EVENTS:] == SKIP).sum(axis=1) / latest,
        np.where(history.count > 0, history.engaged[:, -1], np.nan),
    ]


def _time_columns(moments: Moments, history: _History) -> list[NDArray[np.float64]]:
    age_h = (moments.now_ms[:, None] - moments.timestamps_ms) / HOUR_MS
    some = history.count > 0
    pairs = (history.shown[:, 1:] & history.shown[:, :-1]).sum(axis=1)
    gaps = np.where(history.shown[:, 1:] & history.shown[:, :-1], age_h[:, :-1] - age_h[:, 1:], np.inf)
    gaps = np.sort(np.concatenate([gaps, np.full((len(gaps), 1), np.inf)], axis=1), axis=1)
    median = gaps[np.arange(len(gaps)), np.maximum(pairs - 1, 0) // 2]
    return [
        np.where(some, age_h[:, -1], np.nan),
        np.where(some, np.where(history.shown, age_h, -np.inf).max(axis=1) / 24.0, np.nan),
        (history.shown & (age_h <= 24)).sum(axis=1).astype(np.float64),
        (history.shown & (age_h <= 7 * 24)).sum(axis=1).astype(np.float64),
        np.where(pairs > 0, median, np.nan),
    ]


def _taste_columns(history: _History) -> list[NDArray[np.float64]]:
    known = (~np.isnan(history.popularity)).sum(axis=1)
    both = history.shown[:, 1:] & history.shown[:, :-1]
    switches = both & (history.category[:, 1:] != history.category[:, :-1])
    return [
        np.nansum(history.popularity, axis=1) / known,
        100.0 * (history.popularity < NICHE_BELOW).sum(axis=1) / known,
        100.0 * switches.sum(axis=1) / both.sum(axis=1),
    ]


def _category_columns(log: ItemLog, history: _History, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
    category = log.category[candidates]
    same = (history.category[:, None, :] == category[:, :, None]) & history.shown[:, None, :]
    length = same.shape[2]
    count = same.sum(axis=2)
    share = 100.0 * count / history.count[:, None]
    recent = 100.0 * same[:, :, -RECENT_EVENTS:].sum(axis=2) / history.shown[:, -RECENT_EVENTS:].sum(axis=1)[:, None]
    pleased = 100.0 * (same & history.engaged[:, None, :]).sum(axis=2) / count
    skipped = 100.0 * (same & (history.engagement == SKIP)[:, None, :]).sum(axis=2) / count
    newest = np.where(same, np.arange(length), -1).max(axis=2)
    since = np.where(newest >= 0, length - 1.0 - newest, np.nan)
    everyone = (
        np.take_along_axis(history.category_plays, category, axis=1) / history.category_plays.sum(axis=1)[:, None]
    )
    lift = np.where(everyone > 0, share / 100.0 / everyone, np.nan)
    return np.stack([share, recent, pleased, skipped, since, lift], axis=2)


def _follow_columns(
    log: ItemLog, moments: Moments, history: _History, candidates: NDArray[np.int64]
) -> NDArray[np.float64]:
    leads = moments.items[:, -LEAD_EVENTS:]
    plays = history.plays[:, None, -LEAD_EVENTS:]
    rate = 100.0 * log.follow_counts(moments.now_ms, leads, candidates) / (plays + PRIOR_PLAYS)
    rate = np.where((leads > 0)[:, None, :], rate, -np.inf)
    pleasing = np.where(history.engaged[:, None, -LEAD_EVENTS:], rate, -np.inf)
    columns = np.stack([rate.max(axis=2), rate[:, :, -1], pleasing.max(axis=2)], axis=2)
    return np.where(np.isinf(columns), np.nan, columns)
