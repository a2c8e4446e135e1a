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
    dry_run: bool = typer.Option(default=False, help="Show what would be done, and change nothing."),
) -> None:
    """Compact closed days, move objects to the cold tier after 90 days, and expire them after two years.

    A row ages from the end of its event's day, or from when it was archived if that is later. Run the command daily,
    beside the workers; it does what is still to be done. Several runs at once are safe; give each its own --region or
    days.

    Example: whyrec archive tier --url s3://my-bucket/archive --dry-run
    """
    from rich.console import Console
    from rich.progress import Progress

    from stream.archive.aging import tiers
    from stream.archive.aging.maintenance import Maintenance, list_places
    from stream.archive.reading import reader
    from stream.archive.store import open_archive
    from stream.errors import ArchiveError

    for option, day in (("--since", since), ("--until", until)):
        options.require_day(option, day)
    settings = options.settings_at(url)
    store = open_archive(settings)
    maintenance = Maintenance(store, who=settings.worker_name, clock=time.time)
    steps: list[Step] = []
    failed: list[str] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        places = list_places(store, since=since, until=until, region=region)
        if not places and next(reader.raw_entries(store), None) is None:
            raise options.nothing_at(store)
        task = progress.add_task("", total=len(places))
        for place, names in places.items():
            progress.update(task, description=f"{place.date} {place.region}")
            progress.advance(task)
            if tiers.settled(place, names, time.time()):
                continue
            try:
                inventory = maintenance.inventory(place, names)
                open_hours = settings.day_open_hours
                if dry_run:
                    steps += tiers.plan(maintenance, inventory, maintenance.holds(), open_hours=open_hours)
                else:
                    steps.extend(tiers.run(maintenance, inventory, open_hours=open_hours))
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
    # Steps of a place with the same action, such as those of its partitions, share a line.
    for (place, action), same in groupby(steps, key=lambda step: (step.place, step.action)):
        group = list(same)
        sizes = [step.bytes_after for step in group if step.bytes_after is not None]
        after = decimal(sum(sizes)) if len(sizes) == len(group) else ""
        objects, into, rows, size = (
            sum(numbers) for numbers in zip(*((s.objects, s.into, s.rows, s.bytes) for s in group), strict=True)
        )
        table.add_row(place.date, place.region, action, f"{objects:,}", f"{into:,}", f"{rows:,}", decimal(size), after)
    console.print(table)
