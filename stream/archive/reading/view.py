"""The archive as a view in DuckDB: a list of exactly the objects that readers see. A pattern would find orphans too."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from stream.archive.log.commitlog import ObjectRef
from stream.archive.objects import Store
from stream.archive.store import filesystem_of
from stream.errors import ArchiveError

NAME = "impressions"


class InvalidQuery(ArchiveError):
    """DuckDB refuses a query."""


def statement(url: str, refs: Iterable[ObjectRef], *, mixed: bool = False) -> str:
    """Return the SQL that makes the view; it holds for the archive as it was when ``refs`` were listed.

    ``date`` and ``region`` come from the path, so that a query about a day opens no other day's objects. ``mixed``
    lets objects lack columns that came later, for which DuckDB must open each.
    """
    files = ",\n  ".join(f"'{_quoted(f'{url}/{ref.key}')}'" for ref in refs)
    if not files:
        raise InvalidQuery(f"{url} holds no object of these days and regions: there is nothing to look at")
    more = ", union_by_name = true" if mixed else ""
    # An object never changes, so what DuckDB read of its footer holds; it would read each three times otherwise.
    settings = "SET parquet_metadata_cache = true;\nSET validate_external_file_cache = 'NO_VALIDATION';\n"
    # The columns of a row group lie side by side: one request for them, not one for each few.
    settings += "SET parquet_prefetch_column_gap = 1000000;\n"
    options = f"hive_partitioning = true, hive_types = {{'date': DATE, 'region': VARCHAR}}{more}"
    source = f"read_parquet([\n  {files}\n], {options})"
    return f"{settings}CREATE OR REPLACE VIEW {NAME} AS SELECT * FROM {source};"  # noqa: S608 (keys are quoted)


def connect(store: Store, refs: Iterable[ObjectRef], *, mixed: bool = False) -> duckdb.DuckDBPyConnection:
    """Open DuckDB in memory with the view; S3 is read with the credentials that whyrec has.

    Raises:
        InvalidQuery: there is no such object.

    """
    made = statement(store.url, refs, mixed=mixed)
    connection = duckdb.connect(":memory:")
    files = filesystem_of(store)
    if files is not None:
        connection.register_filesystem(files)
        # Reads of one file at a time: in parallel through fsspec they were seen to mix up what they return.
        connection.execute("SET threads = 1")
    connection.execute(made)
    return connection


def _quoted(text: str) -> str:
    return text.replace("'", "''")
