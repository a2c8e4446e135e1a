"""Interaction histories in columnar form: the output of every data source and the input of every training."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.catalog import Catalog
from models.manifest import Engagement
from schemas.errors import WhyrecError

# Engagement codes, in the order of ENGAGEMENTS; 0 is padding.
VIEW, LIKE, COMPLETE, SHARE, SKIP = 1, 2, 3, 4, 5
ENGAGEMENTS = (
    Engagement("view"),
    Engagement("like", "positive"),
    Engagement("complete", "positive"),
    Engagement("share", "positive"),
    Engagement("skip", "negative"),
)
ENGAGEMENT_NAMES = tuple(each.name for each in ENGAGEMENTS)
NO_CAUSE = -1


class InvalidSessions(WhyrecError):
    """Inconsistent columns: different lengths, unknown items, or a cause that is not earlier than its effect."""


@dataclass(frozen=True)
class Sessions:
    """n histories with E events in total, the oldest event first within each history.

    Attributes:
        item: int32 [E], index into the catalogue, from 1.
        engagement: int8 [E], index into engagements, from 1.
        timestamp_ms: int64 [E], UTC milliseconds, not decreasing within a history.
        cause: int32 [E], position within the same history of the earlier event that led to this one; -1 if there is
            no such event or if it is unknown.
        offsets: int64 [n + 1]; history k consists of the events offsets[k] to offsets[k + 1] - 1.
        user_id_hash: str [n], 16 hexadecimal characters. One user may have several histories.
        region: str [n], ISO 3166-1 alpha-2.
        locale: str [n], BCP 47 with the region, such as "en-GB".
        catalog: the items.
        engagements: what users may have done, by default 1 view, 2 like, 3 complete, 4 share, 5 skip.

    """

    item: NDArray[np.int32]
    engagement: NDArray[np.int8]
    timestamp_ms: NDArray[np.int64]
    cause: NDArray[np.int32]
    offsets: NDArray[np.int64]
    user_id_hash: NDArray[np.str_]
    region: NDArray[np.str_]
    locale: NDArray[np.str_]
    catalog: Catalog
    engagements: tuple[Engagement, ...] = ENGAGEMENTS

    def __post_init__(self) -> None:
        events, count = len(self.item), len(self.offsets) - 1
        columns = (self.engagement, self.timestamp_ms, self.cause)
        if any(len(column) != events for column in columns) or self.offsets[0] != 0 or self.offsets[-1] != events:
            raise InvalidSessions(f"expected {events} values in every event column and offsets from 0 to {events}")
        if any(len(column) != count for column in (self.user_id_hash, self.region, self.locale)):
            raise InvalidSessions(f"expected {count} users, regions and locales, one per history")
        if np.any(np.diff(self.offsets) < 0):
            raise InvalidSessions(
                "expected offsets that never decrease; compute them from the lengths of the histories"
            )
        if events == 0:
            return
        if self.item.min() < 1 or self.item.max() > len(self.catalog.item_ids):
            items = len(self.catalog.item_ids)
            raise InvalidSessions(
                f"expected item indices from 1 to {items}, got {self.item.min()} to {self.item.max()}"
            )
        if self.engagement.min() < 1 or self.engagement.max() > len(self.engagements):
            raise InvalidSessions(f"expected engagement codes from 1 to {len(self.engagements)}; 0 is for padding")
        if np.any(self.cause >= self.position) or self.cause.min() < NO_CAUSE:
            raise InvalidSessions("expected every cause to be an earlier event of the same history, or -1")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events per history, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def owner(self) -> NDArray[np.int64]:
        """Index of the history of each event, int64 [E]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def position(self) -> NDArray[np.int64]:
        """Position of each event within its history, from 0, int64 [E]."""
        return np.arange(len(self.item)) - np.repeat(self.offsets[:-1], self.lengths)

    @property
    def watched(self) -> NDArray[np.bool_]:
        """Whether each event is a sign of interest, bool [E]: its engagement has no negative role."""
        negative = np.array([False, *(each.role == "negative" for each in self.engagements)])
        return np.asarray(~negative[self.engagement])

    def select(self, rows: NDArray[Any] | Sequence[int]) -> Sessions:
        """Select the histories `rows` (indices or a boolean mask) in that order."""
        rows = np.arange(len(self))[np.asarray(rows)]
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Sessions(
            item=self.item[events],
            engagement=self.engagement[events],
            timestamp_ms=self.timestamp_ms[events],
            cause=self.cause[events],
            offsets=offsets,
            user_id_hash=self.user_id_hash[rows],
            region=self.region[rows],
            locale=self.locale[rows],
            catalog=self.catalog,
            engagements=self.engagements,
        )

    def split(self, *fractions: float, seed: int = 0) -> tuple[Sessions, ...]:
        """Split at random into parts with these fractions of the users; all histories of a user are in one part.

        The fractions must be positive and sum to at most 1; the remaining users are left out.

        Raises:
            InvalidSessions: the fractions are not positive or sum to more than 1.

        """
        if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
            raise InvalidSessions(f"expected positive fractions that sum to at most 1, got {fractions}")
        users, user_of_row = np.unique(self.user_id_hash, return_inverse=True)
        rank = np.random.default_rng(seed).permutation(len(users))[user_of_row]
        edges = np.round(np.concatenate([[0.0], np.cumsum(fractions)]) * len(users)).astype(np.int64)
        return tuple(self.select((rank >= low) & (rank < high)) for low, high in itertools.pairwise(edges))

    def parts(self) -> tuple[Sessions, Sessions, Sessions]:
        """Split into the standard parts: training, validation and test, with 80 %, 10 % and 10 % of the users.

        The session model is trained on the first part. The second part selects its epoch and trains the re-ranker. The
        third part is used for evaluation and replays only.
        """
        train, validation, test = self.split(0.8, 0.1, 0.1, seed=41)
        return train, validation, test

    def first(self, count: NDArray[Any] | int) -> Sessions:
        """Keep at most the oldest `count` events of every history; count is one number or an array int [n]."""
        lengths = np.clip(np.broadcast_to(count, len(self)), 0, self.lengths).astype(np.int64)
        keep = self.position < lengths[self.owner]
        return Sessions(
            item=self.item[keep],
            engagement=self.engagement[keep],
            timestamp_ms=self.timestamp_ms[keep],
            cause=self.cause[keep],
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            user_id_hash=self.user_id_hash,
            region=self.region,
            locale=self.locale,
            catalog=self.catalog,
            engagements=self.engagements,
        )

    def without_last(self, count: int = 1) -> Sessions:
        """Drop the newest `count` events of every history; a history with fewer events becomes empty."""
        return self.first(self.lengths - count)

    def padded(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return items and engagements of the newest `length` events: int64 [n, length] each, left-padded with 0."""
        return self.lay_out(self.item, length), self.lay_out(self.engagement, length)

    def lay_out(self, column: NDArray[Any], length: int) -> NDArray[np.int64]:
        """Return a column [E] for the newest `length` events: int64 [n, length], left-padded with 0."""
        target = length - (self.lengths[self.owner] - self.position)
        kept = target >= 0
        table = np.zeros((len(self), length), dtype=np.int64)
        table[self.owner[kept], target[kept]] = column[kept]
        return table


def user_hash(user: str) -> str:
    """Return the pseudonym of a user: the first 16 hexadecimal characters of the SHA-256 of the UTF-8 name."""
    return hashlib.sha256(user.encode()).hexdigest()[:16]
