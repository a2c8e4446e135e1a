"""Viewing histories as columns: what every source of interactions delivers and what every model here learns from."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.catalog import Catalog
from schemas.errors import WhyrecError

# Engagement codes, in the order of the bundle's manifest; 0 is padding.
VIEW, LIKE, COMPLETE, SHARE, SKIP = 1, 2, 3, 4, 5
NO_CAUSE = -1


class InvalidSessions(WhyrecError):
    """Columns that describe no sessions: lengths that differ, unknown items, a cause after its effect."""


@dataclass(frozen=True)
class Sessions:
    """Histories of n users, E events in all, oldest event first within each history.

    Attributes:
        item: int32 [E], index into the catalogue, from 1.
        engagement: int8 [E], 1 view, 2 like, 3 complete, 4 share, 5 skip.
        timestamp_ms: int64 [E], UTC milliseconds, not decreasing within a history.
        cause: int32 [E], position within its own history of the earlier event that led to this one; -1 where none
            did, or where nobody knows.
        offsets: int64 [n + 1]; history k is the events offsets[k] up to, not including, offsets[k + 1].
        user_id_hash: str [n], 16 hexadecimal characters. One user may own several histories.
        region: str [n], ISO 3166-1 alpha-2.
        locale: str [n], BCP 47 with the region, such as "en-GB".
        catalog: what the item indices mean.

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

    def __post_init__(self) -> None:
        events, count = len(self.item), len(self.offsets) - 1
        columns = (self.engagement, self.timestamp_ms, self.cause)
        if any(len(column) != events for column in columns) or self.offsets[0] != 0 or self.offsets[-1] != events:
            raise InvalidSessions(f"expected {events} values in every event column and offsets from 0 to {events}")
        if any(len(column) != count for column in (self.user_id_hash, self.region, self.locale)):
            raise InvalidSessions(f"expected {count} users, regions and locales, one per history")
        if np.any(np.diff(self.offsets) < 0):
            raise InvalidSessions(
                "expected offsets that never decrease; rebuild them from the lengths of the histories"
            )
        if events == 0:
            return
        if self.item.min() < 1 or self.item.max() > len(self.catalog.item_ids):
            known = len(self.catalog.item_ids)
            raise InvalidSessions(
                f"expected item indices from 1 to {known}, got {self.item.min()} to {self.item.max()}"
            )
        if self.engagement.min() < VIEW or self.engagement.max() > SKIP:
            raise InvalidSessions(f"expected engagement codes from {VIEW} to {SKIP}; 0 is for padding only")
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
        """The history each event belongs to, int64 [E]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def position(self) -> NDArray[np.int64]:
        """Position of each event within its history, from 0, int64 [E]."""
        return np.arange(len(self.item)) - np.repeat(self.offsets[:-1], self.lengths)

    def select(self, rows: NDArray[Any] | Sequence[int]) -> Sessions:
        """Pick the histories `rows` (indices or a boolean mask), in that order; the catalogue is shared."""
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
        )

    def split(self, *fractions: float, seed: int = 0) -> tuple[Sessions, ...]:
        """Cut into parts of about these fractions of the *users*, who are shuffled by `seed`: no user is in two parts.

        The fractions must be positive and add up to at most 1; what remains is left out.
        """
        if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
            raise InvalidSessions(f"expected positive fractions that add up to at most 1, got {fractions}")
        users, user_of_row = np.unique(self.user_id_hash, return_inverse=True)
        rank = np.random.default_rng(seed).permutation(len(users))[user_of_row]
        edges = np.round(np.concatenate([[0.0], np.cumsum(fractions)]) * len(users)).astype(np.int64)
        return tuple(self.select((rank >= low) & (rank < high)) for low, high in itertools.pairwise(edges))

    def parts(self) -> tuple[Sessions, Sessions, Sessions]:
        """Cut into the parts on which all of whyrec agrees: 80 % of the users, 10 % and 10 %.

        The session model learns from the first; it is chosen, and the re-ranker learns, by the second; the third is
        for figures and replays only.
        """
        train, choose, test = self.split(0.8, 0.1, 0.1, seed=41)
        return train, choose, test

    def first(self, count: NDArray[Any] | int) -> Sessions:
        """Keep the oldest `count` (one number, or one per history) events of every history, or as many as it has."""
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
        )

    def without_last(self, count: int = 1) -> Sessions:
        """Drop the newest `count` events of every history (all of them where it has no more)."""
        return self.first(self.lengths - count)

    def padded(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lay out the newest `length` events: items and engagements, int64 [n, length], left-padded with 0."""
        return self.lay_out(self.item, length), self.lay_out(self.engagement, length)

    def lay_out(self, column: NDArray[Any], length: int) -> NDArray[np.int64]:
        """Lay out one event column [E] for the newest `length` events: int64 [n, length], left-padded with 0."""
        place = length - (self.lengths[self.owner] - self.position)
        shown = place >= 0
        table = np.zeros((len(self), length), dtype=np.int64)
        table[self.owner[shown], place[shown]] = column[shown]
        return table


def user_hash(user: str) -> str:
    """Give the pseudonym of a user: the first 16 hexadecimal characters of the SHA-256 of its UTF-8 name."""
    return hashlib.sha256(user.encode()).hexdigest()[:16]
