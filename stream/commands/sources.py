"""The option ``--impressions``, the same for every command that takes impressions of a recommender."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    import pyarrow as pa

    from schemas.events import Impression

ImpressionsFrom = Annotated[
    str | None,
    typer.Option(
        help="Impressions that the recommender served: a file (JSON lines, Parquet, Avro), - for standard input, or a "
        "topic.",
        metavar="FILE",
    ),
]

Strict = Annotated[
    bool, typer.Option("--strict", help="With --impressions: refuse a source of which one impression cannot be read.")
]


def batches_of(source: str, limit: int | None = None, *, strict: bool = False) -> Iterator[pa.RecordBatch]:
    """Read impressions in batches. Those that cannot be read are left out, counted, and the first of them is shown.

    Raises:
        UndecodableEvent: no impression can be read or, if ``strict``, one cannot; says where the first is, and why.
        ConfigurationError: the source is neither a file nor a topic.

    """
    from schemas.errors import UndecodableEvent
    from stream.kafka.impressions import read_impressions
    from stream.settings import Settings

    first, unread, read = "", 0, 0
    for part in read_impressions(source, Settings(), limit):
        for place, reason in sorted(part.errors.items()):
            first = first or f"{source}, {place}: {reason}"
            if strict:
                raise UndecodableEvent(first)
        unread += len(part.errors)
        read += part.batch.num_rows
        if part.batch.num_rows:
            yield part.batch
    if unread and not read:
        raise UndecodableEvent(first)
    if unread:
        typer.echo(f"{unread:,} impressions cannot be read and are left out, the first: {first}", err=True)


def impressions_of(source: str, limit: int | None = None, *, strict: bool = False) -> list[Impression]:
    """Read impressions as records; raises and leaves out as :func:`batches_of` does."""
    from schemas.columnar import to_records

    batches = batches_of(source, limit, strict=strict)
    return [cast("Impression", each) for batch in batches for each in to_records("impression", batch)]
