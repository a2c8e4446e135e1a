"""Where impressions came from: the topic, by its Kafka id, and the partition. Pure.

A topic that is made anew under the same name has another id, and its offsets begin anew: what was archived of the one
says nothing about the other. Records of the first audit schema name no topic, and neither do those that come from a
broker without ids; they are taken for the only topic that is known at their partition, if there is just one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from stream.archive.log.intervals import Intervals


class Source(NamedTuple):
    """A partition of the impressions topic; ``topic`` is its Kafka id, or empty."""

    topic: str
    partition: int


Sources = Mapping[Source, Intervals]
"""Offsets that are archived, by where they came from."""


def home(source: Source, known: Iterable[Source]) -> Source:
    """Say under which name the offsets of a source are kept, where ``known`` are those that have a name."""
    if source.topic:
        return source
    named = {each for each in known if each.topic and each.partition == source.partition}
    return named.pop() if len(named) == 1 else source


def adopted(sources: Sources, seen: Iterable[Source]) -> dict[Source, Intervals]:
    """Give what was archived of a partition under no topic's name to the first of those ``seen`` that has one."""
    found = dict(sources)
    for source in sorted(seen):
        nameless = Source("", source.partition)
        if nameless in found and home(nameless, (*found, source)) == source:
            found[source] = found.pop(nameless) | found.get(source, Intervals())
    return found
