"""How long rows are kept, and where: the one place where this is decided. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal

from stream.archive.log.names import COLD, Place


@dataclass(frozen=True, slots=True)
class Tier:
    """``prefix`` of its keys, S3's ``storage_class`` (None: the bucket's), and at which age of a day it is left."""

    prefix: str
    storage_class: str | None
    until_days: int


TierName = Literal["hot", "cold"]
TIERS: Final[dict[TierName, Tier]] = {
    "hot": Tier("", None, 90),
    "cold": Tier(COLD, "GLACIER_IR", 730),
}
"""Ages count from the end of the day of the event, in UTC. Instant retrieval, because erasures and investigations read
the cold tier too; deep archive would have to be thawed for hours first."""

GRACE_S: Final = 3_600.0
"""How long what was compacted or moved is left where it was, for readers who listed it before."""

_DAY_S: Final = 86_400.0


def storage_class(prefix: str) -> str | None:
    """Return S3's storage class of the tier whose keys have this prefix."""
    return next(tier.storage_class for tier in TIERS.values() if tier.prefix == prefix)


def age_days(place: Place, now_s: float) -> float:
    """Return how long ago a place's day ended, in days; negative while it lasts."""
    begin = dt.datetime.combine(dt.date.fromisoformat(place.date), dt.time(), dt.UTC).timestamp()
    return (now_s - begin) / _DAY_S - 1
