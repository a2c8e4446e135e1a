"""``whyrec archive tier``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from stream.commands.archive import options

if TYPE_CHECKING:
    from stream.archive.aging.tiers import Step


def tier(
    url: str | None = options.URL,
    since: str | None = typer.Option(None, help="First day of events, UTC.", metavar="YYYY-MM-DD"),
    until: str | None = typer.Option(None, help="Last day of events, UTC.", metavar="YYYY-MM-DD"),
    region: str | None = typer.Option(None, help="Only this region."),
    dry_run: bool = typer.Option(default=False, help="Say what would be done, and do nothing."),
) -> None:
    """Compact closed days, move them to the cold tier after 90 days, let them expire after two years.

    Each date and region is a task of its own, and a run does what is still to be done: run it daily, beside the
    workers; several at once with --region or days of their own.

    Example: whyrec archive tier --url s3://my-bucket/archive --dry-run
    """
    from rich.console import Console
    from rich.progress import Progress

    from stream.archive.aging import stock, tiers
    from stream.archive.reading import reader
    from stream.archive.store import open_archive
    from stream.errors import ArchiveError

    for option, day in (("--since", since), ("--until", until)):
        options.require_day(option, day)
    settings = options.settings_at(url)
    store = open_archive(settings)
    warehouse = stock.Warehouse(store, who=settings.worker_name, clock=time.time)
    steps: list[Step] = []
    failed: list[str] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        places = stock.places(store, since=since, until=until, region=region)
        if not places and next(reader.raw_entries(store), None) is None:
            raise options.nothing_at(store)
        task = progress.add_task("", total=len(places))
        for place, names in places.items():
            progress.update(task, description=f"{place.date} {place.region}")
            progress.advance(task)
            if tiers.settled(place, names, time.time()):
                continue
            try:
                found = warehouse.stock(place, names)
                if dry_run:
                    steps += tiers.plan(found, warehouse.holds(), time.time(), open_hours=settings.day_open_hours)
                else:
                    steps.extend(tiers.run(warehouse, found, open_hours=settings.day_open_hours))
            except ArchiveError as error:
                failed.append(str(error))
    _print(steps, dry_run=dry_run)
    if failed:
        more = f" (and {len(failed) - 1} more like it)" if len(failed) > 1 else ""
        raise ArchiveError(f"{failed[0]}{more}; everything else was done")


def _print(steps: list[Step], *, dry_run: bool) -> None:
    from itertools import groupby

    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    console = Console()
    if not steps:
        console.print("nothing to do")
        return
    table = Table(title="Would be done" if dry_run else "Done")
    for name in ("date", "region", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("objects", "into", "rows", "bytes", "bytes after"):
        table.add_column(name, justify="right")
    # The steps of a place that do the same, such as those of its partitions, are one line.
    for (place, deed), same in groupby(steps, key=lambda step: (step.place, step.deed)):
        group = list(same)
        sizes = [step.bytes_after for step in group if step.bytes_after is not None]
        after = decimal(sum(sizes)) if len(sizes) == len(group) else ""
        objects, into, rows, size = (
            sum(numbers) for numbers in zip(*((s.objects, s.into, s.rows, s.bytes) for s in group), strict=True)
        )
        table.add_row(place.date, place.region, deed, f"{objects:,}", f"{into:,}", f"{rows:,}", decimal(size), after)
    console.print(table)
