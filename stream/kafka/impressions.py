"""Impressions from wherever they are: a file, standard input, or a topic."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from schemas.codec import DecodedMessages, Headers
from schemas.errors import UndecodableEvent
from schemas.files import BATCH, Part, read_events, read_file
from stream.connections import codec_of
from stream.errors import ConfigurationError
from stream.kafka.reading import Message, TopicReader
from stream.settings import Settings

STANDARD_INPUT: Final = "-"
_SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson", ".parquet", ".avro"})
"""Endings of names that no topic has."""

_POLL_S: Final = 1.0


def read_impressions(source: str, settings: Settings, limit: int | None = None) -> Iterator[Part]:
    """Read impressions of a file (JSON lines, Parquet, Avro), ``-`` (standard input), or a topic, up to ``limit``.

    A topic is read from its first message to the last one that it holds now. The places of its messages count from 1.

    Raises:
        ConfigurationError: the source is neither a file nor a topic, or no broker answers.
        UndecodableEvent: the file is of no known format.

    """
    left = limit
    for part in _parts(source, settings):
        if left is not None and part.batch.num_rows >= left:
            yield Part(part.batch.slice(0, left), part.places[:left], part.errors)
            return
        yield part
        left = None if left is None else left - part.batch.num_rows


def _parts(source: str, settings: Settings) -> Iterator[Part]:
    if source == STANDARD_INPUT:
        try:
            yield from read_events("impression", sys.stdin.buffer)
        except UndecodableEvent as error:
            raise UndecodableEvent(f"standard input: {error}") from error
    elif Path(source).is_file():
        yield from read_file("impression", Path(source))
    elif Path(source).suffix in _SUFFIXES or "/" in source:
        raise ConfigurationError(f"there is no file {source}; name a file, a topic, or - for standard input")
    else:
        yield from _topic(source, settings)


def _topic(topic: str, settings: Settings) -> Iterator[Part]:
    codec = codec_of(settings)
    with TopicReader(settings, "impressions") as reader:
        ends = _ends(reader, topic, settings)
        reader.begin_at_starts(topic)
        messages, place = _until(reader, ends), 1
        while some := list(islice(messages, BATCH)):
            values: list[tuple[bytes | None, Headers]] = [(each.value(), each.headers()) for each in some]
            yield _decoded(codec.decode_batch("impression", values), place)
            place += len(some)


def _ends(reader: TopicReader, topic: str, settings: Settings) -> dict[int, int]:
    """Return the offset after the last message of each partition."""
    try:
        ends = {partition: reader.bounds(topic, partition)[1] for partition in reader.partitions(topic)}
    except ConfigurationError as error:
        raise ConfigurationError(f"there is no file {topic}, and as a topic it cannot be read: {error}") from error
    if not ends:
        raise ConfigurationError(
            f"{topic} is neither a file nor a topic of {settings.bootstrap_servers}; name a file, a topic, or - for "
            "standard input"
        )
    return ends


def _until(reader: TopicReader, ends: dict[int, int]) -> Iterator[Message]:
    """Yield messages up to the offsets where partitions end; offsets may be missing before them."""
    left = {partition for partition, end in ends.items() if end > 0}
    while left and (message := reader.poll(_POLL_S)) is not None:
        offset, partition = message.offset(), message.partition()
        if offset is None or partition is None or offset >= ends[partition]:
            continue
        yield message
        if offset + 1 >= ends[partition]:
            left.discard(partition)


def _decoded(decoded: DecodedMessages, first: int) -> Part:
    places = [first + row for row in decoded.rows]
    return Part(decoded.batch, places, {first + row: error for row, error in decoded.errors.items()})
