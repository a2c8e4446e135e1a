"""``whyrec archive``: verify, maintain and query the archive. One file per subcommand."""

from __future__ import annotations

import typer

from stream.commands.archive import digest, erase, hold, iceberg, pull, stats, tier, verify, view

app = typer.Typer()
for command in (verify.verify, verify.sweep, stats.stats, tier.tier, erase.erase, digest.digest, pull.pull):
    app.command()(command)
app.command()(view.view)
app.command()(view.sql)
app.command()(iceberg.iceberg)
app.command("receipt")(pull.check_receipt)
app.add_typer(hold.app, name="hold", help="Protect rows from erasure and expiry.", no_args_is_help=True)
app.add_typer(digest.app, name="keys", help="Keys that sign digests and receipts.", no_args_is_help=True)
