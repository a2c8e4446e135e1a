"""What the archive says about the explanations given: counted by DuckDB over the archived rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

from stream.errors import ArchiveError

COLUMNS: Final = ["timestamp_ms", "region", "explanation_type", "status"]
"""What :func:`count` needs of :func:`stream.archive.reading.reader.rows`."""

_TYPES_BY_DAY: Final = """
    SELECT strftime(make_timestamp_ms(timestamp_ms), '%Y-%m-%d') AS day, explanation_type, status, count(*)
    FROM archived GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True, slots=True)
class TypeCount:
    """Impressions of one day (of the event, UTC), explanation type and status."""

    day: str
    explanation_type: str
    status: str
    impressions: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """The distribution of explanation types, and what was called trending."""

    types: tuple[TypeCount, ...]

    @property
    def impressions(self) -> int:
        """All rows counted."""
        return sum(each.impressions for each in self.types)

    @property
    def trending(self) -> int:
        """Items explained as trending."""
        return sum(each.impressions for each in self.types if each.explanation_type == "trending")

    @property
    def trending_unchecked(self) -> int:
        """Items explained as trending whose status does not say that this was checked as a fact."""
        return sum(
            each.impressions
            for each in self.types
            if each.explanation_type == "trending" and each.status not in ("factual", "verified")
        )


def count(archived: pa.RecordBatchReader) -> Statistics:
    """Count rows by day, type and status; they are streamed, never held together.

    Raises:
        ArchiveError: what ``archived`` raises.

    """
    failed: list[ArchiveError] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from archived
        except ArchiveError as error:
            failed.append(error)
            raise

    with duckdb.connect(":memory:") as connection:
        connection.register("archived", pa.RecordBatchReader.from_batches(archived.schema, watched()))
        try:
            found = connection.execute(_TYPES_BY_DAY).fetchall()
        except duckdb.Error:
            # DuckDB tells what went wrong in its input by an error of its own.
            if failed:
                raise failed[0] from None
            raise
    return Statistics(tuple(TypeCount(*row) for row in found))
