"""``whyrec archive erase``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from stream.commands.archive import options

if TYPE_CHECKING:
    from stream.archive.aging.erase import Affected


def erase(
    user: str = typer.Option(..., help="The user's hash, 16 hexadecimal digits.", metavar="HASH"),
    url: str | None = options.URL,
    yes: bool = typer.Option(default=False, help="Erase the rows. Without it, only show what would be erased."),
    case: str = typer.Option(
        "", help="File number of the request. It is kept for ever and must not identify the user."
    ),
) -> None:
    """Erase all rows of one user from both tiers, except held rows. This cannot be undone.

    The archive records how many rows were erased, when, by whom and under which case. It does not record whose rows
    they were. Rows that are archived later are not erased: run the command again once Kafka has deleted the user's
    messages.

    Example: whyrec archive erase --user 00c0ffee00c0ffee --case 2026-117 --yes
    """
    from rich.console import Console
    from rich.progress import Progress

    from stream.archive.aging import erase as erasure
    from stream.archive.aging.maintenance import Maintenance, list_places
    from stream.archive.reading import reader
    from stream.archive.store import open_archive
    from stream.errors import ArchiveError

    erasure.require_user(user)
    erasure.require_case(case, user)
    settings = options.settings_at(url)
    store = open_archive(settings)
    maintenance = Maintenance(store, who=settings.worker_name, clock=time.time)
    found: list[Affected] = []
    failed: list[str] = []
    unreferenced = 0
    with Progress(console=Console(stderr=True), transient=True) as progress:
        places = list_places(store)
        if not places and next(reader.raw_entries(store), None) is None:
            raise options.nothing_at(store)
        task = progress.add_task("", total=len(places))
        for place, names in places.items():
            progress.update(task, description=f"{place.date} {place.region}")
            try:
                inventory = maintenance.inventory(place, names)
                unreferenced += len(inventory.unreferenced)
                if yes:
                    found.extend(erasure.erase(maintenance, inventory, user, case=case))
                else:
                    found += erasure.affected(maintenance, inventory, user)
            except ArchiveError as error:
                failed.append(str(error))
            progress.advance(task)
    _print(found, yes=yes)
    if unreferenced:
        Console().print(
            f"{unreferenced} objects that no entry or change names were not searched; "
            "`whyrec archive sweep --delete` deletes them once they are a day old"
        )
    if failed:
        more = f" (and {len(failed) - 1} more like it)" if len(failed) > 1 else ""
        raise ArchiveError(f"{failed[0]}{more}; run it again: it erases the remaining rows")


def _print(found: list[Affected], *, yes: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    by_place: dict[tuple[str, str, str, bool], tuple[int, int]] = {}
    for each in found:
        at = (each.place.date, each.place.region, "cold" if each.name.tier else "hot", each.held)
        objects, rows = by_place.get(at, (0, 0))
        by_place[at] = objects + 1, rows + each.rows
    if by_place:
        table = Table("date", "region", "tier", "what")
        table.add_column("objects", justify="right")
        table.add_column("rows", justify="right")
        for (date, region, tier, held), (objects, rows) in by_place.items():
            what = "[yellow]kept, held[/]" if held else "erased" if yes else "would be erased"
            table.add_row(date, region, tier, what, f"{objects:,}", f"{rows:,}")
        console.print(table)
    erased = sum(each.rows for each in found if not each.held)
    kept = sum(each.rows for each in found if each.held)
    said = "erased" if yes else "would be erased; --yes does it"
    console.print(f"{erased:,} rows {said}" + (f"; {kept:,} rows are held and stay" if kept else ""))
