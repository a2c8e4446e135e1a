"""``whyrec archive iceberg``."""

from __future__ import annotations

from pathlib import Path

import typer

from stream.commands.archive import options

_CATALOG = typer.Option(Path("iceberg.db"), help="SQLite file of the Iceberg catalogue.", metavar="FILE")


def iceberg(url: str | None = options.URL, catalog: Path = _CATALOG) -> None:
    """Register the present objects in an Iceberg table, without copying them. Run it again after the archive changed.

    Example: whyrec archive iceberg --catalog iceberg.db
    """
    from rich.console import Console

    from stream.archive.reading import iceberg as tables
    from stream.archive.reading import reader
    from stream.archive.store import open_archive

    settings = options.settings_at(url)
    store = open_archive(settings)
    refs = list(reader.objects(store))
    if not refs:
        raise options.nothing_at(store)
    done = tables.refresh(tables.table(store.url, catalog, settings), store.url, refs)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{done.objects:,} objects in {tables.TABLE}: {done.added:,} added, {done.removed:,} removed")
    console.print(f"metadata: {done.metadata}")
