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


def batches_of(source: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
    """Read impressions in batches.

    Raises:
        UndecodableEvent: an impression cannot be read; says where it is, and why.
        ConfigurationError: the source is neither a file nor a topic.

    """
    from schemas.errors import UndecodableEvent
    from stream.kafka.impressions import read_impressions
    from stream.settings import Settings

    for part in read_impressions(source, Settings(), limit):
        for place, reason in sorted(part.errors.items()):
            raise UndecodableEvent(f"{source}, {place}: {reason}")
        yield part.batch


def impressions_of(source: str, limit: int | None = None) -> list[Impression]:
    """Read impressions as records; raises as :func:`batches_of` does."""
    from schemas.columnar import to_records

    return [cast("Impression", each) for batch in batches_of(source, limit) for each in to_records("impression", batch)]
