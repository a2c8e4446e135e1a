"""``whyrec archive view`` and ``sql``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stream.commands.archive import options

if TYPE_CHECKING:
    from stream.archive.log.commitlog import ObjectRef
    from stream.archive.objects import Store

_SINCE = typer.Option(None, help="First day of events, UTC.", metavar="YYYY-MM-DD")
_UNTIL = typer.Option(None, help="Last day of events, UTC.", metavar="YYYY-MM-DD")
_REGION = typer.Option(None, help="Only this region.")
_PARTITION = typer.Option(None, min=0, help="Only this partition of the audit topic.")
_USER = typer.Option(None, help="Only objects that can hold this user: 16 hexadecimal digits.", metavar="HASH")
_MIXED = typer.Option(default=False, help="Accept old objects without later columns; DuckDB then opens every object.")


def view(
    url: str | None = options.URL,
    since: str | None = _SINCE,
    until: str | None = _UNTIL,
    region: str | None = _REGION,
    partition: int | None = _PARTITION,
    user: str | None = _USER,
    mixed: bool = _MIXED,
) -> None:
    """Print the SQL of a DuckDB view over the present rows, each once. Print it again after the archive changed.

    Example: whyrec archive view --since 2026-11-01 > view.sql
    """
    from stream.archive.reading import view as views
    from stream.archive.store import open_archive

    store = open_archive(options.settings_at(url))
    typer.echo(views.statement(store.url, _objects(store, since, until, region, partition, user), mixed=mixed))


def sql(
    query: str = typer.Argument(help="SQL query; the rows are in the view `impressions`.", metavar="QUERY"),
    url: str | None = options.URL,
    since: str | None = _SINCE,
    until: str | None = _UNTIL,
    region: str | None = _REGION,
    partition: int | None = _PARTITION,
    user: str | None = _USER,
    mixed: bool = _MIXED,
) -> None:
    """Query the present rows, each once, with DuckDB.

    Example: whyrec archive sql "SELECT date, region, count(*) FROM impressions GROUP BY ALL ORDER BY ALL"
    """
    import duckdb
    from rich.console import Console
    from rich.table import Table

    from stream.archive.reading import view as views
    from stream.archive.store import open_archive

    store = open_archive(options.settings_at(url))
    refs = _objects(store, since, until, region, partition, user)
    with views.connect(store, refs, mixed=mixed) as connection:
        try:
            answer = connection.sql(query)
            rows = [] if answer is None else answer.fetchall()
        except duckdb.Error as error:
            raise views.InvalidQuery(f"DuckDB rejects the query: {error}") from error
        table = Table(*([] if answer is None else answer.columns))
    for row in rows:
        table.add_row(*(value.hex() if isinstance(value, bytes) else str(value) for value in row))
    Console().print(table)


def _objects(
    store: Store, since: str | None, until: str | None, region: str | None, partition: int | None, user: str | None
) -> list[ObjectRef]:
    from stream.archive.reading import reader
    from stream.archive.reading.pull import Query, Scope

    for option, day in (("--since", since), ("--until", until)):
        options.require_day(option, day)
    query = Query(Scope(since or "", until or ""), user=options.require_user(user), partition=partition)
    found = reader.objects(store, since=since, until=until, region=region)
    return sorted(filter(query.reaches, found), key=lambda ref: ref.key)
