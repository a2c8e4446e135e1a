"""``whyrec archive stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stream.commands.archive import options

if TYPE_CHECKING:
    from stream.archive.reading.statistics import Statistics


def stats(
    url: str | None = options.URL,
    since: str | None = typer.Option(None, help="First day of events, UTC.", metavar="YYYY-MM-DD"),
    until: str | None = typer.Option(None, help="Last day of events, UTC.", metavar="YYYY-MM-DD"),
    region: str | None = typer.Option(None, help="Only this region."),
) -> None:
    """Count explanation types by day, unproven trending explanations, and rows with an implausible date.

    Example: whyrec archive stats --since 2026-01-01 --region EU
    """
    from rich.console import Console
    from rich.progress import Progress

    from stream.archive.aging.policy import is_implausible
    from stream.archive.log.names import object_name
    from stream.archive.reading import reader, statistics
    from stream.archive.store import open_archive

    for option, day in (("--since", since), ("--until", until)):
        options.require_day(option, day)
    store = open_archive(options.settings_at(url))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("counting", total=None)

        def counted() -> tuple[Statistics, int]:
            objects = list(reader.archived_objects(store, since=since, until=until, region=region))
            progress.update(task, completed=0, total=len(objects))
            refs = [ref for ref, _ in objects]
            archived = reader.rows(store, refs, statistics.COLUMNS, lambda _: progress.advance(task))
            implausible = sum(
                ref.rows
                for ref, archived_at_ms in objects
                if (name := object_name(ref.key)) is not None and is_implausible(name.place, archived_at_ms)
            )
            return statistics.count(archived), implausible

        found, implausible = reader.again(counted)
    if not found.types and next(reader.raw_entries(store), None) is None:
        raise options.nothing_at(store)
    _print_statistics(found, implausible)


def _print_statistics(found: Statistics, implausible: int) -> None:
    from rich.console import Console
    from rich.table import Table

    by_day: dict[str, int] = {}
    for each in found.types:
        by_day[each.day] = by_day.get(each.day, 0) + each.impressions
    table = Table("day", "type", "status", title="Explanations by day of the event (UTC)")
    table.add_column("impressions", justify="right")
    table.add_column("share of the day", justify="right")
    for each in found.types:
        share = each.impressions / by_day[each.day]
        table.add_row(each.day, each.explanation_type, each.status, f"{each.impressions:,}", f"{share:.1%}")
    console = Console()
    console.print(table)
    console.print(
        f"{found.impressions:,} impressions; {found.trending:,} explained as trending, "
        f"{found.trending_unchecked:,} of them without proof"
    )
    if implausible:
        console.print(
            f"{implausible:,} impressions have a date far from the day they were archived: check the producers' clocks",
            style="yellow",
        )
