"""``whyrec archive verify`` and ``sweep``."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from stream.commands.archive import options

if TYPE_CHECKING:
    from stream.archive.log.commitlog import ObjectRef
    from stream.archive.objects import Store
    from stream.archive.proof.findings import ObjectFacts, Verdict


def verify(
    url: str | None = options.URL,
    deep: bool = typer.Option(
        default=False, help="Also read the rows: no impression is archived twice, no held user's rows were removed."
    ),
    trust: str | None = typer.Option(
        None, help="The key that all signatures must lead back to: its id, or its file.", metavar="KEY"
    ),
) -> None:
    """Check every entry, change, hold, object and signed digest; exit with 1 if a rule is violated. Changes nothing.

    Example: whyrec archive verify --url s3://my-bucket/archive --deep --trust 0123456789abcdef0123456789abcdef
    """
    from stream.archive.store import open_archive

    store = open_archive(options.settings_at(url))
    verdict = _verdict_of(store, deep=deep, trust=trust)
    if not verdict.entries and not verdict.findings:
        raise options.nothing_at(store)
    _print_verdict(verdict, store.url)
    if not verdict.consistent:
        raise typer.Exit(1)


def sweep(
    url: str | None = options.URL,
    delete: bool = typer.Option(default=False, help="Delete the objects. Without it, only list them."),
) -> None:
    """Delete what crashes left behind: objects a day old that no entry or change names, or that a change removed.

    A damaged archive is left as it is.

    Example: whyrec archive sweep --delete
    """
    from rich.console import Console

    from stream.archive.store import open_archive
    from stream.errors import ArchiveError

    store = open_archive(options.settings_at(url))
    verdict = _verdict_of(store, deep=False)
    leftovers = [finding.key for finding in verdict.findings if finding.leftover]
    if any(finding.severity == "error" and not finding.leftover for finding in verdict.findings):
        raise ArchiveError(f"{store.url} is damaged, so nothing was deleted; run `whyrec archive verify`")
    if not verdict.entries and not verdict.findings:
        raise options.nothing_at(store)
    console = Console()
    for key in leftovers:
        if delete:
            store.delete(key)
        console.print(f"{'deleted' if delete else 'would delete'} {key}", highlight=False, soft_wrap=True)
    console.print(f"{len(leftovers)} objects that no entry or change names, a day old or more")


def _verdict_of(store: Store, *, deep: bool, trust: str | None = None) -> Verdict:
    """Apply the rules of the verifier and of the digests, with a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    from stream.archive.log import commitlog
    from stream.archive.proof import digests, keys, sealing
    from stream.archive.proof.facts import facts_of, rows_by_user
    from stream.archive.proof.verify import verify as apply_rules
    from stream.archive.reading import reader

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("listing", total=None)
        now = time.time()
        stored = {
            info.key: now - info.modified_at_s for info in store.list("") if not info.key.startswith(commitlog.COMMITS)
        }
        progress.update(task, description="reading objects", total=len(stored))
        look = facts_of(store, deep=deep)

        def facts(ref: ObjectRef) -> ObjectFacts | None:
            progress.advance(task)
            return look(ref)

        # Digests first, then holds, changes and entries: each refers only to records that are read after it, so that a
        # record written during the verification is never missing.
        signed = sealing.read(store, None if trust is None else keys.trusted(trust))
        watch = digests.Watch.of(signed)
        holds = list(watch.over(reader.raw_holds(store)))
        changes = list(watch.over(reader.raw_changes(store)))
        verdict = apply_rules(
            watch.over(reader.raw_entries(store)),
            facts,
            stored,
            changes=changes,
            holds=holds,
            now_ms=int(now * 1000),
            count_rows=rows_by_user(store) if deep else None,
        )
        today = datetime.fromtimestamp(now, UTC).date().isoformat()
        return replace(verdict, findings=(*verdict.findings, *digests.findings(signed, watch, today)))


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
    numbers = {
        "chains": verdict.chains,
        "entries": verdict.entries,
        "changes": verdict.changes,
        "objects": verdict.objects,
        "rows": verdict.rows,
        "erased or expired": verdict.erased,
    }
    for name in (*numbers, "verdict"):
        table.add_column(name)
    word = "[green]whole[/]" if verdict.consistent else "[bold red]damaged[/]"
    table.add_row(url, *(f"{number:,}" for number in numbers.values()), word)
    console.print(table)
