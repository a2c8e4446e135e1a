"""``whyrec archive``: prove that the archive is whole, and count what is in it."""

from __future__ import annotations

import time
from datetime import date
from typing import TYPE_CHECKING

import typer

from stream.settings import Settings

if TYPE_CHECKING:
    from stream.archive.commitlog import ObjectRef
    from stream.archive.objects import Store
    from stream.archive.statistics import Statistics
    from stream.archive.verify import ObjectFacts, Verdict
    from stream.errors import ArchiveError

app = typer.Typer()

_URL = typer.Option(None, "--url", help="Folder or s3://bucket/prefix, by default WHYREC_ARCHIVE_URL.", metavar="URL")


@app.command()
def verify(
    url: str | None = _URL,
    deep: bool = typer.Option(
        default=False, help="Also read the rows, and prove that no impression is archived twice."
    ),
) -> None:
    """Check every commit entry, every hash and every object; exit with 1 if anything is wrong. Reads only.

    Example: whyrec archive verify --url s3://my-bucket/archive --deep
    """
    from stream.archive.store import open_archive

    store = open_archive(_settings(url))
    verdict = _judge(store, deep=deep)
    if not verdict.entries and not verdict.findings:
        raise _nothing_at(store)
    _print_verdict(verdict, store.url)
    if not verdict.sound:
        raise typer.Exit(1)


@app.command()
def sweep(
    url: str | None = _URL,
    delete: bool = typer.Option(default=False, help="Delete; without it they are only listed."),
) -> None:
    """Delete what crashed writers left: objects that no entry names, a day old. A damaged archive is left alone.

    Example: whyrec archive sweep --delete
    """
    from rich.console import Console

    from stream.archive.store import open_archive
    from stream.errors import ArchiveError

    store = open_archive(_settings(url))
    verdict = _judge(store, deep=False)
    leftovers = [finding.key for finding in verdict.findings if finding.leftover]
    if any(finding.severity == "error" and not finding.leftover for finding in verdict.findings):
        raise ArchiveError(f"{store.url} is damaged; see whyrec archive verify before anything is deleted")
    if not verdict.entries and not verdict.findings:
        raise _nothing_at(store)
    console = Console()
    for key in leftovers:
        if delete:
            store.delete(key)
        console.print(f"{'deleted' if delete else 'would delete'} {key}", highlight=False, soft_wrap=True)
    console.print(f"{len(leftovers)} objects that no entry names, a day old or more")


@app.command()
def stats(
    url: str | None = _URL,
    since: str | None = typer.Option(None, help="First day of events, UTC.", metavar="YYYY-MM-DD"),
    until: str | None = typer.Option(None, help="Last day of events, UTC.", metavar="YYYY-MM-DD"),
    region: str | None = typer.Option(None, help="Only this region."),
) -> None:
    """Count explanation types by day, and how many items were called trending without proof.

    Example: whyrec archive stats --since 2026-01-01 --region EU
    """
    from rich.console import Console
    from rich.progress import Progress

    from stream.archive import reader, statistics
    from stream.archive.store import open_archive

    for option, day in (("--since", since), ("--until", until)):
        _require_day(option, day)
    store = open_archive(_settings(url))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        refs = list(reader.objects(store, since=since, until=until, region=region))
        task = progress.add_task("counting", total=len(refs))
        archived = reader.rows(store, refs, statistics.COLUMNS, lambda _: progress.advance(task))
        found = statistics.count(archived)
    if not refs and next(reader.raw_entries(store), None) is None:
        raise _nothing_at(store)
    _print_statistics(found)


def _judge(store: Store, *, deep: bool) -> Verdict:
    """Apply the verifier's rules, with a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    from stream.archive import commitlog, reader
    from stream.archive.verify import verify as apply_rules

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("listing", total=None)
        now = time.time()
        stored = {
            info.key: now - info.modified_at_s for info in store.list("") if not info.key.startswith(commitlog.COMMITS)
        }
        progress.update(task, description="reading objects", total=len(stored))
        look = reader.facts_of(store, deep=deep)

        def facts(ref: ObjectRef) -> ObjectFacts | None:
            progress.advance(task)
            return look(ref)

        return apply_rules(reader.raw_entries(store), facts, stored)


def _nothing_at(store: Store) -> ArchiveError:
    """Nothing archived is not the same as an archive that is whole: the address may be wrong."""
    from stream.errors import ArchiveError

    return ArchiveError(
        f"{store.url} holds no commit entry, so nothing is archived there: check --url, or WHYREC_ARCHIVE_URL"
    )


def _require_day(option: str, day: str | None) -> None:
    try:
        fits = day is None or date.fromisoformat(day).isoformat() == day
    except ValueError:
        fits = False
    if not fits:
        raise typer.BadParameter(f"{day!r} is no day; expected YYYY-MM-DD, such as 2026-01-31", param_hint=option)


def _settings(url: str | None) -> Settings:
    settings = Settings()
    return settings if url is None else settings.model_copy(update={"archive_url": url})


def _print_verdict(verdict: Verdict, url: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if verdict.findings:
        table = Table("", "rule", title="Findings")
        table.add_column("key", overflow="fold")
        table.add_column("what", overflow="fold")
        for finding in verdict.findings:
            style = "bold red" if finding.severity == "error" else "yellow"
            table.add_row(finding.severity, str(finding.rule), finding.key, finding.what, style=style)
        console.print(table)
    table = Table()
    table.add_column("archive", overflow="fold")
    for name in ("chains", "entries", "objects", "rows", "verdict"):
        table.add_column(name)
    word = "[green]whole[/]" if verdict.sound else "[bold red]damaged[/]"
    table.add_row(url, *(f"{n:,}" for n in (verdict.chains, verdict.entries, verdict.objects, verdict.rows)), word)
    console.print(table)


def _print_statistics(found: Statistics) -> None:
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
