"""The retention policy: how long rows are kept, and in which tier. Pure.

A row ages from the later of two moments: the end of the day of its event (UTC), and the moment it was archived. The
time of the event comes from a producer, whose clock may be wrong; the moment of archiving is in the commit entry, which
the sink writes. So a row that bears a date of years ago is kept as long as any other, and never expires sooner after it
was archived than the policy says. An object is as old as its youngest row: it moves and expires as a whole.

Event times far from the moment of archiving are reported (:func:`is_implausible`), not refused: the row is archived,
and people decide whether a clock was wrong or a backlog was worked off.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal

from stream.archive.log.names import COLD, Place


@dataclass(frozen=True, slots=True)
class Tier:
    """A storage tier: the ``prefix`` of its keys, its S3 ``storage_class``, and the age at which objects leave it.

    ``storage_class`` None is the default of the bucket. ``until_days`` is an age as :func:`age_days` computes it.
    """

    prefix: str
    storage_class: str | None
    until_days: int


TierName = Literal["hot", "cold"]
TIERS: Final[dict[TierName, Tier]] = {
    "hot": Tier("", None, 90),
    "cold": Tier(COLD, "GLACIER_IR", 730),
}
"""The cold tier uses Glacier Instant Retrieval because erasures and investigations read it. Objects of Glacier Deep
Archive would have to be restored for hours first."""

GRACE_S: Final = 3_600.0
"""How long a compacted or moved object stays at its old key, for readers that listed it before the change."""

LATE_DAYS: Final = 7
"""A row that is archived more days than this after the day of its event has an implausible event time. Kafka keeps a
message for seven days by default, so no row of a healthy producer waits longer."""

EARLY_DAYS: Final = 1
"""A row whose event's day begins more days than this after it was archived has an implausible event time."""

_DAY_S: Final = 86_400.0


def storage_class(prefix: str) -> str | None:
    """Return the S3 storage class of the tier whose keys have this prefix."""
    return next(tier.storage_class for tier in TIERS.values() if tier.prefix == prefix)


def days_since(place: Place, now_s: float) -> float:
    """Return the days from the end of a place's day to ``now_s`` (seconds since 1970); negative before the end."""
    begin = dt.datetime.combine(dt.date.fromisoformat(place.date), dt.time(), dt.UTC).timestamp()
    return (now_s - begin) / _DAY_S - 1


def age_days(place: Place, archived_at_ms: int, now_s: float) -> float:
    """Return the age in days of rows of a place, the youngest of which were archived at ``archived_at_ms``.

    Times are since 1970, in milliseconds and seconds.
    """
    return min(days_since(place, now_s), (now_s - archived_at_ms / 1000) / _DAY_S)


def is_late(place: Place, archived_at_ms: int) -> bool:
    """Say whether rows of a place were archived implausibly long after the day of their events."""
    return days_since(place, archived_at_ms / 1000) > LATE_DAYS


def is_implausible(place: Place, archived_at_ms: int) -> bool:
    """Say whether rows of a place were archived implausibly long after the day of their events, or before that day."""
    return is_late(place, archived_at_ms) or days_since(place, archived_at_ms / 1000) < -1 - EARLY_DAYS
