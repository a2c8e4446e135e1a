"""The archive as a DuckDB view over exactly the objects that readers see. A glob pattern would match orphans too."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from stream.archive.log.commitlog import ObjectRef
from stream.archive.objects import Store
from stream.archive.store import filesystem_of
from stream.errors import ArchiveError

NAME = "impressions"


class InvalidQuery(ArchiveError):
    """DuckDB rejects a query, or no object matches it."""


def statement(url: str, refs: Iterable[ObjectRef], *, mixed: bool = False) -> str:
    """Return the SQL that creates the view. It describes the archive at the moment when ``refs`` were listed.

    ``date`` and ``region`` come from the paths, so that a query for a day opens only the objects of that day. With
    ``mixed``, objects may lack columns that were added later; DuckDB then opens every object.

    Raises:
        InvalidQuery: ``refs`` is empty.

    """
    files = ",\n  ".join(f"'{_quoted(f'{url}/{ref.key}')}'" for ref in refs)
    if not files:
        raise InvalidQuery(f"{url} has no object of these days and regions; name others")
    more = ", union_by_name = true" if mixed else ""
    # Objects never change, so DuckDB may cache their footers; otherwise it reads each footer three times.
    settings = "SET parquet_metadata_cache = true;\nSET validate_external_file_cache = 'NO_VALIDATION';\n"
    # The columns of a row group lie side by side; one request reads them all.
    settings += "SET parquet_prefetch_column_gap = 1000000;\n"
    options = f"hive_partitioning = true, hive_types = {{'date': DATE, 'region': VARCHAR}}{more}"
    source = f"read_parquet([\n  {files}\n], {options})"
    return f"{settings}CREATE OR REPLACE VIEW {NAME} AS SELECT * FROM {source};"  # noqa: S608 (keys are quoted)


def connect(store: Store, refs: Iterable[ObjectRef], *, mixed: bool = False) -> duckdb.DuckDBPyConnection:
    """Open DuckDB in memory with the view. DuckDB reads S3 with the credentials of whyrec.

    Raises:
        InvalidQuery: ``refs`` is empty.

    """
    made = statement(store.url, refs, mixed=mixed)
    connection = duckdb.connect(":memory:")
    files = filesystem_of(store)
    if files is not None:
        connection.register_filesystem(files)
        # One thread: parallel reads through fsspec were observed to return each other's data.
        connection.execute("SET threads = 1")
    connection.execute(made)
    return connection


def _quoted(text: str) -> str:
    return text.replace("'", "''")
