"""``whyrec archive digest`` and ``keys``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from stream.commands.archive import options

if TYPE_CHECKING:
    from stream.archive.proof.keys import PublicKey

app = typer.Typer()

_FILE = typer.Argument(help="New file for the private key, created with mode 600.", metavar="FILE")


def digest(
    url: str | None = options.URL,
    date: str | None = typer.Option(None, help="Day of the digest, UTC; by default today.", metavar="YYYY-MM-DD"),
) -> None:
    """Sign the ends of all chains. Run it daily: `verify` then shows entries that are removed or rewritten later.

    Example: whyrec archive digest --url s3://my-bucket/archive
    """
    from rich.console import Console

    from stream.archive.proof import sealing
    from stream.archive.store import open_archive

    options.require_day("--date", date)
    settings = options.settings_at(url)
    private = sealing.key_in(settings.signing_key_file)
    made = sealing.seal(open_archive(settings), private, date, time.time)
    Console().print(
        f"digest of {made.date}: {len(made.chains):,} chains have grown since the digest before; signed by {made.key}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def new(
    file: Path = _FILE,
    use: Literal["digests", "receipts"] = typer.Option(
        "digests", "--for", help="The first key of the archive, or a key that signs only receipts."
    ),
    url: str | None = options.URL,
) -> None:
    """Make the first key of an archive, which signs digests, or a key for receipts, which the current key signs.

    Example: whyrec archive keys new root.pem
    """
    from stream.archive.proof import sealing
    from stream.archive.store import open_archive

    settings = options.settings_at(url)
    now_ms = int(time.time() * 1000)
    store = open_archive(settings)
    if use == "digests":
        _print_key(sealing.new_root(store, file, now_ms), file)
    else:
        _print_key(sealing.vouched(store, sealing.key_in(settings.signing_key_file), use, file, now_ms), file)


@app.command()
def rotate(file: Path = _FILE, url: str | None = options.URL) -> None:
    """Replace the current key: it signs its successor, and is not accepted after the successor's first digest.

    Example: whyrec archive keys rotate next.pem
    """
    from stream.archive.proof import sealing
    from stream.archive.store import open_archive

    settings = options.settings_at(url)
    current = sealing.key_in(settings.signing_key_file)
    _print_key(sealing.vouched(open_archive(settings), current, "digests", file, int(time.time() * 1000)), file)


@app.command("list")
def list_keys(url: str | None = options.URL) -> None:
    """List the public keys, oldest first, and which are in force.

    Example: whyrec archive keys list
    """
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    from stream.archive.proof import sealing
    from stream.archive.store import open_archive

    signed = sealing.read(open_archive(options.settings_at(url)))
    table = Table("key", "for", "in force", "made", "signed by", "digests")
    for key in (*signed.keyring.line, *signed.keyring.receipts):
        made = datetime.fromtimestamp(key.made_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        replaced = key.use == "digests" and key != signed.keyring.current
        by = "itself" if key.signed_by == key.id else key.signed_by
        digests = sum(digest.key == key.id for digest, _ in signed.digests)
        table.add_row(key.id, key.use, "no, replaced" if replaced else "yes", made, by, f"{digests:,}")
    Console().print(table)


def _print_key(key: PublicKey, file: Path) -> None:
    from rich.console import Console

    what = "signs digests and receipts" if key.use == "digests" else "signs receipts"
    Console().print(
        f"{key.id} {what}; private key in {file}: set WHYREC_SIGNING_KEY_FILE to it\n"
        f"write the id down elsewhere: auditors pass it to `whyrec archive verify --trust`",
        highlight=False,
        soft_wrap=True,
    )
