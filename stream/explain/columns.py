"""Decode: a batch of slates as columns, from here to the last step.

``Fields`` is what a decoder fills: flat arrays, field by field. :func:`arrange` turns them into ``Slates``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.compiled import compiled
from models.session.histories import Histories
from schemas.errors import InvalidEvent
from schemas.events import Impression

SKIP: Final = "skip"
"""The engagement that is no sign of interest: a skipped title was not watched."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fields:
    """S slates with E past events and T items in all, as they were sent.

    Per slate: foreign bool [S], served by another model or feature set than the bundle's; events and items int64 [S],
    how many it has. Per event: event_item int64 [E], its item's index in the catalogue, 0 where unknown; engagement
    int64 [E], 1 and more as the bundle lists them, 0 where unknown. Per item: item int64 [T], its index likewise;
    position int64 [T]; ranking_score and reranking_score float64 [T]; features float64 [T, F], the re-ranker's input
    with the ranking score as session_score (all NaN in a foreign slate). unknown_events and unknown_items: the ids that
    the catalogue lacks, by their place.
    """

    impressions: Sequence[Impression]
    foreign: Bools
    events: Ints
    items: Ints
    event_item: Ints
    unknown_events: Mapping[int, str]
    engagement: Ints
    item: Ints
    unknown_items: Mapping[int, str]
    position: Ints
    ranking_score: Doubles
    reranking_score: Doubles
    features: Doubles


@dataclass(frozen=True, slots=True)
class Sheet(Sequence[Impression]):
    """Impressions that lie in columns already: `places` says which they were of those that came."""

    places: Sequence[int]
    fields: Fields

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Impression: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Impression]: ...

    def __getitem__(self, index: int | slice) -> Impression | Sequence[Impression]:
        return self.fields.impressions[index]


@dataclass(frozen=True, slots=True)
class Slates:
    """S slates with T items in all, slate by slate.

    Per slate: offsets int64 [S + 1] into the items; foreign bool [S], served by another model or feature set than the
    bundle's; histories, what the session model may read: the newest `max_length` events whose item and engagement the
    bundle knows; event int64 [S, W], the index of each of these in the impression's session, -1 where there is none;
    sessions int64 [S + 1], offsets into the events as sent. Per event as sent: event_item int64 [E], index in the
    catalogue, 0 where unknown; unknown_events, the ids of those by their place. Per item: slate int64 [T]; item int64
    [T] and unknown_items, likewise; position int64 [T]; ranking_score and reranking_score float64 [T], as sent;
    features float64 [T, F], the re-ranker's input with the ranking score as session_score (all NaN in a foreign slate).
    """

    impressions: Sequence[Impression]
    offsets: Ints
    foreign: Bools
    histories: Histories
    event: Ints
    sessions: Ints
    event_item: Ints
    unknown_events: Mapping[int, str]
    slate: Ints
    item: Ints
    unknown_items: Mapping[int, str]
    position: Ints
    ranking_score: Doubles
    reranking_score: Doubles
    features: Doubles

    @property
    def known(self) -> Bools:
        """Whether the catalogue has the item, bool [T]."""
        return self.item > 0

    def impression(self, slate: int) -> Impression:
        """Return the event of a slate as it was sent."""
        return self.impressions[slate]

    def mean(self, values: npt.NDArray[np.floating], over: Bools) -> Floats:
        """Mean of values [T, …] over some items of each slate, float32 [S, …]; 0 where a slate has none of them."""
        means = np.zeros((len(self.foreign), *values.shape[1:]), dtype=np.float32)
        counts = np.bincount(self.slate[over], minlength=len(means))
        filled = np.flatnonzero(counts)
        if len(filled):
            starts = np.concatenate([[0], np.cumsum(counts[filled])[:-1]])
            sums = np.add.reduceat(values[over], starts, axis=0)
            means[filled] = sums / counts[filled].reshape(-1, *[1] * (values.ndim - 1))
        return means


def watched(histories: Histories, bundle: Bundle) -> Bools:
    """Which columns hold an event that was watched rather than skipped, bool [S, W]."""
    sought = np.array([False, *(name != SKIP for name in bundle.manifest.engagements)])
    found: Bools = sought[histories.engagement]
    return found


def is_foreign(impression: Impression, bundle: Bundle) -> bool:
    """Whether another model, or another list of features, than the bundle's served this slate."""
    same = impression["model_version"] == bundle.model_version
    return not (same and impression["feature_set"] == bundle.manifest.feature_set)


def check_features(impression: Impression, bundle: Bundle) -> None:
    """Check that the features are as many as the bundle's list has, unless the list is another one.

    Raises:
        InvalidEvent: naming the feature set, how many were expected and how many came.

    """
    if is_foreign(impression, bundle):
        return
    wanted = len(bundle.owned("user"))
    if len(impression["user_features"]) != wanted:
        raise InvalidEvent(
            f"expected {wanted} user_features of {bundle.manifest.feature_set}, got "
            f"{len(impression['user_features'])}; send them all in the bundle's order, NaN for a missing one"
        )
    wanted = len(bundle.owned("item"))
    for item in impression["items"]:
        if len(item["item_features"]) != wanted:
            raise InvalidEvent(
                f"expected {wanted} item_features of {bundle.manifest.feature_set} for {item['item_id']!r}, got "
                f"{len(item['item_features'])}; send them all in the bundle's order, NaN for a missing one"
            )


def to_columns(impressions: Sequence[Impression], bundle: Bundle) -> Slates:
    """Turn impressions that were checked into columns."""
    return arrange(fields_of(impressions, bundle), bundle)


def fields_of(impressions: Sequence[Impression], bundle: Bundle) -> Fields:
    """Take impressions that were checked apart."""
    foreign = np.fromiter((is_foreign(each, bundle) for each in impressions), np.bool_, len(impressions))
    items = [item for impression in impressions for item in impression["items"]]
    events = list(chain.from_iterable(impression["session"] for impression in impressions))
    code = {name: index for index, name in enumerate(bundle.manifest.engagements, start=1)}
    counts = np.fromiter((len(each["items"]) for each in impressions), np.int64, len(impressions))
    ranking_score = np.array([item["ranking_score"] for item in items], dtype=np.float64)
    ours = [each for each, other in zip(impressions, foreign, strict=True) if not other]
    user = np.array([each["user_features"] for each in ours], dtype=np.float64)
    own = np.array([item["item_features"] for each in ours for item in each["items"]], dtype=np.float64)
    event_ids, item_ids = [event["item_id"] for event in events], [item["item_id"] for item in items]
    event_item, item = bundle.catalog.index(event_ids), bundle.catalog.index(item_ids)
    return Fields(
        impressions=impressions,
        foreign=foreign,
        events=np.fromiter((len(each["session"]) for each in impressions), np.int64, len(impressions)),
        items=counts,
        event_item=event_item,
        unknown_events=_unknown(event_ids, event_item),
        engagement=np.fromiter((code.get(event["engagement"], 0) for event in events), np.int64, len(events)),
        item=item,
        unknown_items=_unknown(item_ids, item),
        position=np.array([item["position"] for item in items], dtype=np.int64),
        ranking_score=ranking_score,
        reranking_score=np.array([item["reranking_score"] for item in items], dtype=np.float64),
        features=features(foreign, counts, user, own, ranking_score, bundle),
    )


def _unknown(ids: Sequence[str], index: Ints) -> dict[int, str]:
    return {place: ids[place] for place in np.flatnonzero(index == 0).tolist()}


def features(
    foreign: Bools,
    items: Ints,
    user: npt.NDArray[np.floating],
    item: npt.NDArray[np.floating],
    ranking_score: Doubles,
    bundle: Bundle,
) -> Doubles:
    """Lay out what the re-ranker reads, float64 [T, F]; user and item hold the features of slates that are not foreign.

    foreign bool [S] and items int64 [S], how many items it has, say which row of user belongs to which of T items.
    """
    rows, users = np.repeat(~foreign, items), len(bundle.owned("user"))
    matrix = np.full((len(rows), len(bundle.features)), np.nan)
    if rows.any():
        matrix[rows, :users] = np.repeat(user, items[~foreign], axis=0)
        matrix[rows, users:-1] = item
        matrix[rows, -1] = ranking_score[rows]
    return matrix


def arrange(fields: Fields, bundle: Bundle) -> Slates:
    """Look up what the bundle knows, and line up each slate's history."""
    count = len(fields.impressions)
    sessions = _offsets(fields.events)
    item, engagement, event, length = _line_up(
        sessions, fields.foreign, fields.event_item, fields.engagement, bundle.manifest.max_length
    )
    return Slates(
        impressions=fields.impressions,
        offsets=_offsets(fields.items),
        foreign=fields.foreign,
        histories=Histories(item, engagement, length),
        event=event,
        sessions=sessions,
        event_item=fields.event_item,
        unknown_events=fields.unknown_events,
        slate=np.repeat(np.arange(count), fields.items),
        item=fields.item,
        unknown_items=fields.unknown_items,
        position=fields.position,
        ranking_score=fields.ranking_score,
        reranking_score=fields.reranking_score,
        features=fields.features,
    )


def _offsets(counts: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(counts)])


@compiled
def _line_up(sessions: Any, foreign: Any, item: Any, engagement: Any, most: int) -> Any:
    """Find each slate's history: item, engagement and event int64 [S, W] as in ``Slates``, and length int64 [S]."""
    length = np.zeros(foreign.shape[0], np.int64)
    for slate in range(len(length)):
        for place in range(sessions[slate], sessions[slate + 1]):
            length[slate] += item[place] > 0 and engagement[place] > 0 and not foreign[slate]
        length[slate] = min(length[slate], most)
    # One column at least, so that a batch without any history needs no special case.
    width = 1
    for slate in range(len(length)):
        width = max(width, length[slate])
    shape = (len(length), width)
    items, engagements, events = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    for slate in range(len(length)):
        # From the newest event, so that the newest stay and end in the last column.
        column, place = width, sessions[slate + 1]
        while column > width - length[slate]:
            place -= 1
            if item[place] > 0 and engagement[place] > 0:
                column -= 1
                items[slate, column], engagements[slate, column] = item[place], engagement[place]
                events[slate, column] = place - sessions[slate]
    return items, engagements, events, length
