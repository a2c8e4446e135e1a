"""``whyrec archive hold add|list|release``."""

from __future__ import annotations

import time

import typer

from stream.commands.archive import options

app = typer.Typer(no_args_is_help=True)


@app.command()
def add(
    url: str | None = options.URL,
    user: str | None = typer.Option(None, help="Hold this user's rows (16 hexadecimal digits).", metavar="HASH"),
    since: str | None = typer.Option(None, help="Hold rows of this day and later.", metavar="YYYY-MM-DD"),
    until: str | None = typer.Option(None, help="Hold rows of this day and earlier.", metavar="YYYY-MM-DD"),
    region: str | None = typer.Option(None, help="Hold rows of this region."),
    why: str = typer.Option("", help="Reason, such as a file number; kept with the hold."),
) -> None:
    """Hold the rows that match all given options: neither erasure nor expiry removes them until the hold is released.

    Example: whyrec archive hold add --region EU --since 2026-01-01 --until 2026-03-31 --why "inquiry 12"
    """
    from stream.archive.aging import erase, maintenance
    from stream.archive.log import holds
    from stream.archive.store import open_archive

    for option, day in (("--since", since), ("--until", until)):
        options.require_day(option, day)
    if user is not None:
        erase.require_user(user)
    settings = options.settings_at(url)
    scope = holds.Scope(user, since, until, region)
    record = maintenance.append_hold(
        open_archive(settings),
        lambda known: holds.hold(known, scope, why=why, who=settings.worker_name, written_at_ms=_now_ms()),
    )
    typer.echo(f"hold {record.number}: {scope}")


@app.command(name="list")
def list_(
    url: str | None = options.URL,
    everything: bool = typer.Option(False, "--all", help="Also list released holds."),
) -> None:
    """List the holds in force.

    Example: whyrec archive hold list --all
    """
    import datetime as dt

    from rich.console import Console
    from rich.table import Table

    from stream.archive.aging import maintenance
    from stream.archive.store import open_archive

    known = maintenance.read_holds(open_archive(options.settings_at(url)))
    in_force = dict(known.in_force())
    table = Table("hold", "what", "why", "who", "since", "state")
    for record in known.records:
        if record.scope is None or not (everything or record.number in in_force):
            continue
        at = dt.datetime.fromtimestamp(record.written_at_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")
        state = "in force" if record.number in in_force else "released"
        table.add_row(str(record.number), str(record.scope), record.why, record.who, at, state)
    Console().print(table if table.row_count else "no holds")


@app.command()
def release(
    hold: int = typer.Argument(help="The hold's number."),
    url: str | None = options.URL,
    why: str = typer.Option("", help="Reason; kept with the release."),
) -> None:
    """End a hold. Its record stays in the archive.

    Example: whyrec archive hold release 3 --why "inquiry 12 is closed"
    """
    from stream.archive.aging import maintenance
    from stream.archive.log import holds
    from stream.archive.store import open_archive

    settings = options.settings_at(url)
    maintenance.append_hold(
        open_archive(settings),
        lambda known: holds.release(known, hold, why=why, who=settings.worker_name, written_at_ms=_now_ms()),
    )
    typer.echo(f"hold {hold} is released")


def _now_ms() -> int:
    return int(time.time() * 1000)
