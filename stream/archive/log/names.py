"""Keys of Parquet objects: their date, region, chain, and commit or change. Pure.

The key of a committed object contains the first offset of its commit, in 20 digits. The key of an object that a change
added contains the number of the change, in 8 digits. So neither can be taken for the other.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from stream.archive.log.commitlog import Chain

CHANGES: Final = "_changes/"
COLD: Final = "cold/"
"""Prefix of the objects of the cold tier. Objects of the hot tier have no prefix."""

PLACE: Final = r"date=(?P<date>\d{4}-\d{2}-\d{2})/region=(?P<region>[^/]*)/"
"""Regular expression for a place within a key."""

_STEM: Final = rf"{PLACE}(?P<chain>[A-Za-z0-9._~-]+)-(?P<partition>\d+)-"
_SEGMENT = re.compile(rf"{_STEM}(?P<first>\d{{20}})-(?P<digest>[0-9a-f]{{16}})\.parquet")
_ADDED = re.compile(rf"{_STEM}(?P<number>\d{{8}})-(?P<digest>[0-9a-f]{{16}})\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A date (of the event, UTC, YYYY-MM-DD) and a region: the unit that a maintenance task works on."""

    date: str
    region: str

    @property
    def folder(self) -> str:
        """The folder of its objects, below the prefix of their tier."""
        return f"date={self.date}/region={quote(self.region, safe='')}/"

    @property
    def prefix(self) -> str:
        """The prefix of the keys of its changes."""
        return f"{CHANGES}{self.folder}"

    def key(self, number: int) -> str:
        """Return the key of the change with this number."""
        return f"{self.prefix}{number:08d}.json"


@dataclass(frozen=True, slots=True)
class SegmentName:
    """The parts of the key of a segment, an object that a sink committed."""

    date: str
    region: str
    chain: Chain
    first: int
    digest: str

    @property
    def key(self) -> str:
        """The key of the segment."""
        return ObjectName("", Place(self.date, self.region), self.chain, self.first, None, self.digest).key


@dataclass(frozen=True, slots=True)
class ObjectName:
    """The parts of the key of an object of either tier.

    ``first`` is the first offset of the commit, for a segment; ``number`` that of the change, for any other object.
    """

    tier: str
    place: Place
    chain: Chain
    first: int | None
    number: int | None
    digest: str

    @property
    def key(self) -> str:
        """The key of the object."""
        stem = f"{self.tier}{self.place.folder}{self.chain.name}-{self.chain.partition}"
        part = f"{self.first:020d}" if self.number is None else f"{self.number:08d}"
        return f"{stem}-{part}-{self.digest}.parquet"


def segment_name(key: str) -> SegmentName | None:
    """Parse the key of a segment; None if the key is not one."""
    match = _SEGMENT.fullmatch(key)
    if match is None or not is_date(match["date"]):
        return None
    chain = Chain(match["chain"], int(match["partition"]))
    name = SegmentName(match["date"], unquote(match["region"]), chain, int(match["first"]), match["digest"])
    return name if name.key == key else None


def object_name(key: str) -> ObjectName | None:
    """Parse the key of an object of either tier; None if the key is not one."""
    tier = COLD if key.startswith(COLD) else ""
    bare = key.removeprefix(tier)
    segment = segment_name(bare)
    if segment is not None:
        return ObjectName(tier, Place(segment.date, segment.region), segment.chain, segment.first, None, segment.digest)
    match = _ADDED.fullmatch(bare)
    if match is None or not is_date(match["date"]):
        return None
    place = Place(match["date"], unquote(match["region"]))
    chain = Chain(match["chain"], int(match["partition"]))
    name = ObjectName(tier, place, chain, None, int(match["number"]), match["digest"])
    return name if name.key == key else None


def is_date(text: str) -> bool:
    """Say whether a text in the form YYYY-MM-DD is a date of the calendar."""
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True
