"""What the archive says about the explanations given: counted by DuckDB over the archived rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

COLUMNS: Final = ["timestamp_ms", "region", "explanation_type", "status"]
"""What :func:`count` needs of :func:`stream.archive.reader.rows`."""

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
    """Count rows by day, type and status; they are streamed, never held together."""
    with duckdb.connect(":memory:") as connection:
        connection.register("archived", archived)
        found = connection.execute(_TYPES_BY_DAY).fetchall()
    return Statistics(tuple(TypeCount(*row) for row in found))
