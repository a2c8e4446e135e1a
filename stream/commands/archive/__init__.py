"""``whyrec archive``: prove that the archive is whole, keep it small, count what is in it. One file per subcommand."""

from __future__ import annotations

import typer

from stream.commands.archive import stats, verify

app = typer.Typer()
for command in (verify.verify, verify.sweep, stats.stats):
    app.command()(command)
