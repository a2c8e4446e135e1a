"""What keys say: of which date, region, chain and commit or change an object is. Pure.

A sink's object bears the first offset of its commit, in 20 digits; one that a change added bears the change's number,
in 8, so that neither can be taken for the other.
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
"""Prefix of the objects of the cold tier; those of the hot tier have none."""

PLACE: Final = r"date=(?P<date>\d{4}-\d{2}-\d{2})/region=(?P<region>[^/]*)/"
"""A place as keys write it, for patterns."""

_STEM: Final = rf"{PLACE}(?P<chain>[A-Za-z0-9._~-]+)-(?P<partition>\d+)-"
_SEGMENT = re.compile(rf"{_STEM}(?P<first>\d{{20}})-(?P<digest>[0-9a-f]{{16}})\.parquet")
_MADE = re.compile(rf"{_STEM}(?P<number>\d{{8}})-(?P<digest>[0-9a-f]{{16}})\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A date (of the event, UTC, YYYY-MM-DD) and a region: what one task works on."""

    date: str
    region: str

    @property
    def folder(self) -> str:
        """Where its objects lie, below the prefix of their tier."""
        return f"date={self.date}/region={quote(self.region, safe='')}/"

    @property
    def prefix(self) -> str:
        """Where its changes lie."""
        return f"{CHANGES}{self.folder}"

    def key(self, number: int) -> str:
        """Return the key of a change."""
        return f"{self.prefix}{number:08d}.json"


@dataclass(frozen=True, slots=True)
class SegmentName:
    """What a segment's key says."""

    date: str
    region: str
    chain: Chain
    first: int
    digest: str

    @property
    def key(self) -> str:
        """The segment's key."""
        return ObjectName("", Place(self.date, self.region), self.chain, self.first, None, self.digest).key


@dataclass(frozen=True, slots=True)
class ObjectName:
    """What an object's key says: a sink's names the first offset of its commit, any other the number of its change."""

    tier: str
    place: Place
    chain: Chain
    first: int | None
    number: int | None
    digest: str

    @property
    def key(self) -> str:
        """The object's key."""
        stem = f"{self.tier}{self.place.folder}{self.chain.name}-{self.chain.partition}"
        part = f"{self.first:020d}" if self.number is None else f"{self.number:08d}"
        return f"{stem}-{part}-{self.digest}.parquet"


def segment_name(key: str) -> SegmentName | None:
    """Return what a segment's key says, or None if it is no segment's key."""
    match = _SEGMENT.fullmatch(key)
    if match is None or not is_date(match["date"]):
        return None
    chain = Chain(match["chain"], int(match["partition"]))
    name = SegmentName(match["date"], unquote(match["region"]), chain, int(match["first"]), match["digest"])
    return name if name.key == key else None


def object_name(key: str) -> ObjectName | None:
    """Return what the key of an object of either tier says, or None if it is no object's key."""
    tier = COLD if key.startswith(COLD) else ""
    bare = key.removeprefix(tier)
    sinks = segment_name(bare)
    if sinks is not None:
        return ObjectName(tier, Place(sinks.date, sinks.region), sinks.chain, sinks.first, None, sinks.digest)
    match = _MADE.fullmatch(bare)
    if match is None or not is_date(match["date"]):
        return None
    place = Place(match["date"], unquote(match["region"]))
    chain = Chain(match["chain"], int(match["partition"]))
    name = ObjectName(tier, place, chain, None, int(match["number"]), match["digest"])
    return name if name.key == key else None


def is_date(text: str) -> bool:
    """Say whether a text in the form of a date names a day that there is."""
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True
