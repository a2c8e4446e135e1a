"""Sources of impressions: a topic, by its Kafka id, and a partition. Pure.

A topic that is deleted and created again under the same name has another id, and its offsets begin at 0 again. So the
archived offsets of one topic say nothing about the other. Records of the first audit schema name no topic, and neither
do records from a broker without topic ids. They are counted to the topic that is known at their partition, if exactly
one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from stream.archive.log.intervals import Intervals


class Source(NamedTuple):
    """A partition of the impressions topic. ``topic`` is the Kafka id of the topic, empty if it is not known."""

    topic: str
    partition: int


Sources = Mapping[Source, Intervals]
"""Archived offsets by source."""


def home(source: Source, known: Iterable[Source]) -> Source:
    """Return the source under which the offsets of ``source`` are kept, given the sources that are ``known``."""
    if source.topic:
        return source
    named = {each for each in known if each.topic and each.partition == source.partition}
    return named.pop() if len(named) == 1 else source


def adopted(sources: Sources, seen: Iterable[Source]) -> dict[Source, Intervals]:
    """Move the offsets of a partition that are kept without a topic id to the first source in ``seen`` that has one."""
    found = dict(sources)
    for source in sorted(seen):
        nameless = Source("", source.partition)
        if nameless in found and home(nameless, (*found, source)) == source:
            found[source] = found.pop(nameless) | found.get(source, Intervals())
    return found
