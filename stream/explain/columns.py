"""Decode: a batch of slates as columns, from here to the last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt

from models.attribution.history import Histories
from models.bundle import Bundle
from schemas.errors import InvalidEvent
from schemas.events import Impression

SKIP: Final = "skip"
"""The engagement that is no sign of interest: a skipped title was not watched."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slates:
    """S slates with T items in all, slate by slate.

    Per slate: offsets int64 [S + 1] into the items; foreign bool [S], served by another model or feature set than the
    bundle's; histories, what the session model may read: the newest `max_length` events whose item and engagement the
    bundle knows; event int64 [S, W], the index of each of these in the impression's session, -1 where there is none.
    Per item: slate int64 [T]; item int64 [T], index in the catalogue, 0 where unknown; position int64 [T];
    ranking_score and reranking_score float64 [T], as sent; features float64 [T, F], the re-ranker's input with the
    ranking score as session_score (all NaN in a foreign slate).
    """

    impressions: Sequence[Impression]
    offsets: Ints
    foreign: Bools
    histories: Histories
    event: Ints
    slate: Ints
    item: Ints
    position: Ints
    ranking_score: Doubles
    reranking_score: Doubles
    features: Doubles

    @property
    def known(self) -> Bools:
        """Whether the catalogue has the item, bool [T]."""
        return self.item > 0

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
    foreign = np.fromiter((is_foreign(each, bundle) for each in impressions), np.bool_, len(impressions))
    items = [item for impression in impressions for item in impression["items"]]
    counts = np.fromiter((len(each["items"]) for each in impressions), np.int64, len(impressions))
    slate = np.repeat(np.arange(len(impressions)), counts)
    session_size = np.fromiter((len(each["session"]) for each in impressions), np.int64, len(impressions))
    ranking_score = np.array([item["ranking_score"] for item in items], dtype=np.float64)
    histories, event = _histories(impressions, session_size, foreign, bundle)
    return Slates(
        impressions=impressions,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        foreign=foreign,
        histories=histories,
        event=event,
        slate=slate,
        item=bundle.catalog.index([item["item_id"] for item in items]),
        position=np.array([item["position"] for item in items], dtype=np.int64),
        ranking_score=ranking_score,
        reranking_score=np.array([item["reranking_score"] for item in items], dtype=np.float64),
        features=_features(impressions, slate, foreign, ranking_score, bundle),
    )


def _features(
    impressions: Sequence[Impression], slate: Ints, foreign: Bools, ranking_score: Doubles, bundle: Bundle
) -> Doubles:
    users, own = len(bundle.owned("user")), ~foreign[slate]
    matrix = np.full((len(slate), len(bundle.features)), np.nan)
    ours = [each for each, other in zip(impressions, foreign, strict=True) if not other]
    if ours:
        user = np.array([each["user_features"] for each in ours], dtype=np.float64)
        item = np.array([item["item_features"] for each in ours for item in each["items"]], dtype=np.float64)
        matrix[own, :users] = np.repeat(user, [len(each["items"]) for each in ours], axis=0)
        matrix[own, users:-1] = item.reshape(-1, len(bundle.features) - users - 1)
        matrix[own, -1] = ranking_score[own]
    return matrix


def _histories(impressions: Sequence[Impression], size: Ints, foreign: Bools, bundle: Bundle) -> tuple[Histories, Ints]:
    events = list(chain.from_iterable(impression["session"] for impression in impressions))
    code = {name: index for index, name in enumerate(bundle.manifest.engagements, start=1)}
    item = bundle.catalog.index([event["item_id"] for event in events])
    engagement = np.fromiter((code.get(event["engagement"], 0) for event in events), np.int64, len(events))
    slate = np.repeat(np.arange(len(size)), size)
    readable = np.flatnonzero((item > 0) & (engagement > 0) & ~foreign[slate])
    slate = slate[readable]
    counts = np.bincount(slate, minlength=len(size))
    # Counted from the newest event, so that the newest max_length stay and end in the last column.
    age = np.cumsum(counts)[slate] - 1 - np.arange(len(readable))
    recent = age < bundle.manifest.max_length
    readable, slate, age = readable[recent], slate[recent], age[recent]
    length = np.minimum(counts, bundle.manifest.max_length).astype(np.int64)
    # One column at least, so that a batch without any history needs no special case.
    width = max(1, int(length.max(initial=0)))
    columns: tuple[Ints, Ints, Ints] = (
        np.zeros((len(size), width), dtype=np.int64),
        np.zeros((len(size), width), dtype=np.int64),
        np.full((len(size), width), -1, dtype=np.int64),
    )
    starts = np.concatenate([[0], np.cumsum(size)])
    for column, values in zip(columns, (item[readable], engagement[readable], readable - starts[slate]), strict=True):
        column[slate, width - 1 - age] = values
    return Histories(columns[0], columns[1], length), columns[2]
