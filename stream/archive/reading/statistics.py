"""Statistics of the archived explanations, counted by DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

from stream.errors import ArchiveError

COLUMNS: Final = ["timestamp_ms", "region", "explanation_type", "status"]
"""The columns that :func:`count` needs."""

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
    """The distribution of explanation types and statuses by day."""

    types: tuple[TypeCount, ...]

    @property
    def impressions(self) -> int:
        """Number of impressions."""
        return sum(each.impressions for each in self.types)

    @property
    def trending(self) -> int:
        """Number of impressions explained as trending."""
        return sum(each.impressions for each in self.types if each.explanation_type == "trending")

    @property
    def trending_unchecked(self) -> int:
        """Number of impressions explained as trending without a status that says this was checked."""
        return sum(
            each.impressions
            for each in self.types
            if each.explanation_type == "trending" and each.status not in ("factual", "verified")
        )


def count(archived: pa.RecordBatchReader) -> Statistics:
    """Count rows by day, type and status, streaming them.

    Raises:
        ArchiveError: reading ``archived`` raised it.

    """
    failed: list[ArchiveError] = []

    def recording_errors() -> Iterator[pa.RecordBatch]:
        try:
            yield from archived
        except ArchiveError as error:
            failed.append(error)
            raise

    with duckdb.connect(":memory:") as connection:
        connection.register("archived", pa.RecordBatchReader.from_batches(archived.schema, recording_errors()))
        try:
            found = connection.execute(_TYPES_BY_DAY).fetchall()
        except duckdb.Error:
            # DuckDB replaces an error of its input by an error of its own.
            if failed:
                raise failed[0] from None
            raise
    return Statistics(tuple(TypeCount(*row) for row in found))
