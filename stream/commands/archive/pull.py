"""``whyrec archive pull`` and ``receipt``."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import typer

from schemas.events import EXPLANATION_TYPES
from stream.commands.archive import options

if TYPE_CHECKING:
    from stream.archive.objects import Store
    from stream.archive.proof.keys import PrivateKey
    from stream.archive.proof.snapshot import Snapshot
    from stream.archive.reading.export import Output
    from stream.archive.reading.pull import ObjectResult, Query, Reads, Scope

_REGION = typer.Option([], help="Only this region; may be repeated.")
_RECEIPT = typer.Option(None, help="File for the receipt; by default receipt.json in the folder.", metavar="FILE")
_FILE = typer.Argument(help="The receipt.", metavar="FILE")
_ROWS = typer.Option(None, "--output", help="Also compare the file of rows that came with the receipt.", metavar="FILE")


def pull(
    date: str = typer.Option(..., help="Day of the events, UTC, or first and last: A..B.", metavar="A[..B]"),
    region: list[str] = _REGION,
    user: str | None = typer.Option(None, help="Only this user: 16 hexadecimal digits.", metavar="HASH"),
    request: str | None = typer.Option(None, help="Only this request: a UUID.", metavar="ID"),
    item: str | None = typer.Option(None, help="Only this item.", metavar="ID"),
    kind: str | None = typer.Option(None, "--type", help="Only this explanation type."),
    partition: int | None = typer.Option(
        None, min=0, help="Only this partition of the audit topic, if it is known. The receipt says so."
    ),
    out: str = typer.Option(..., help="New or empty folder for rows and receipt; - for standard output."),
    form: Literal["csv", "parquet", "jsonl"] = typer.Option("csv", "--format", help="Format of the rows."),
    receipt: Path | None = _RECEIPT,
    url: str | None = options.URL,
) -> None:
    """Fetch rows from both tiers, reading only objects that can hold them, with a receipt that none is missing.

    Example: whyrec archive pull --date 2026-11-01..2026-11-20 --region EU --user 00000000000000a7 --out case-17
    """
    from stream.archive.proof import receipt as receipts
    from stream.archive.proof import sealing
    from stream.archive.reading import reader
    from stream.archive.reading.pull import Query
    from stream.archive.store import open_archive

    query = Query(_scope(date, region), options.require_user(user), _request(request), item, _type(kind), partition)
    settings = options.settings_at(url)
    store = open_archive(settings)
    signed = sealing.read(store)
    private = None if settings.signing_key_file is None else sealing.key_in(settings.signing_key_file)
    if private is not None and signed.keyring.for_receipt(private.id) is None:
        raise _unknown_key(store, private)
    rows_to, receipt_to = _targets(out, form, receipt)
    snapshot, found, output, reads = reader.again(lambda: _fetch(store, query, rows_to, form))
    given = receipts.OutputFile(form, output.rows, output.size, output.sha256)
    made = receipts.make(
        query, snapshot, found, given, reads, signed, archive=store.url, made_at_ms=_now_ms(), private=private
    )
    if receipt_to is not None:
        receipt_to.write_bytes(made)
    _print_result(snapshot, found, output, reads, receipt_to, signed_by=private)


def check_receipt(
    file: Path = _FILE,
    output: Path | None = _ROWS,
    trust: str | None = typer.Option(None, help="The key that all signatures must lead back to: its id, or its file."),
    url: str | None = options.URL,
) -> None:
    """Check a receipt against the archive: chains, objects and signature; exit with 1 if it is not valid.

    Example: whyrec archive receipt case-17/receipt.json --output case-17/rows.csv
    """
    import hashlib

    from rich.console import Console

    from stream.archive.proof import keys, sealing, snapshot
    from stream.archive.proof import receipt as receipts
    from stream.archive.store import open_archive
    from stream.errors import ArchiveError

    try:
        received = receipts.decode(file.read_bytes())
        data = None if output is None else output.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{error.filename}: {error.strerror}") from error
    given = None if data is None else receipts.OutputFile("", 0, len(data), hashlib.sha256(data).hexdigest())
    store = open_archive(options.settings_at(url))
    signed = sealing.read(store, None if trust is None else keys.trusted(trust))
    try:
        again = snapshot.take(store, received.query.scope, received.chains)
        found = receipts.faults(received, again, signed, given)
    except ArchiveError as error:
        found = [str(error)]
    console = Console(highlight=False, soft_wrap=True)
    for what in found:
        console.print(f"[bold red]wrong[/] {what}")
    console.print(
        f"{len(received.objects):,} objects named by {len(received.chains):,} chains, {received.output.rows:,} rows; "
        f"signed by {received.key or 'nobody'}: {'not valid' if found else 'valid'}"
    )
    if received.uncovered:
        console.print(f"{len(received.uncovered):,} of the chains had grown since the digest that the receipt names")
    if found:
        raise typer.Exit(1)


def _fetch(
    store: Store, query: Query, rows_to: Path | None, form: Literal["csv", "parquet", "jsonl"]
) -> tuple[Snapshot, list[ObjectResult], Output, Reads]:
    from rich.console import Console
    from rich.progress import Progress

    from stream.archive.proof import snapshot
    from stream.archive.reading import pull as pulling
    from stream.archive.reading.export import Output

    reads, found = pulling.Reads(), list[pulling.ObjectResult]()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading the chains", total=None)
        taken = snapshot.take(store, query.scope)
        if not taken.chains:
            raise options.nothing_at(store)
        refs = [ref for ref in taken.objects if query.reaches(ref)]
        progress.update(task, description="looking for rows", total=len(refs))

        def finished(each: ObjectResult) -> None:
            found.append(each)
            progress.advance(task)

        with _written(rows_to) as file, Output(file, form) as output:
            for table in pulling.rows(store, refs, query, reads, finished):
                output.write(table)
    return taken, found, output, reads


@contextmanager
def _written(to: Path | None) -> Iterator[BinaryIO]:
    """Open the output for rows. A file gets its final name once it is complete."""
    if to is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = to.with_name(f"{to.name}.part")
    with part.open("wb") as file:
        yield file
    part.rename(to)


def _targets(out: str, form: str, receipt: Path | None) -> tuple[Path | None, Path | None]:
    if out == "-":
        return None, receipt
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        empty = not any(folder.iterdir())
    except OSError as error:
        raise typer.BadParameter(f"{out}: {error.strerror}", param_hint="--out") from error
    if not empty:
        raise typer.BadParameter(f"{out} is not empty; name a new folder for each pull", param_hint="--out")
    return folder / f"rows.{form}", receipt or folder / "receipt.json"


def _print_result(
    snapshot: Snapshot,
    found: list[ObjectResult],
    output: Output,
    reads: Reads,
    receipt: Path | None,
    *,
    signed_by: PrivateKey | None,
) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    total = sum(each.ref.bytes for each in found)
    groups, of = sum(each.groups_read for each in found), sum(each.groups for each in found)
    console.print(f"{output.rows:,} rows, {output.size:,} bytes, SHA-256 {output.sha256}")
    console.print(
        f"read {reads.bytes:,} bytes of {total:,} in {reads.count:,} reads: {groups:,} of {of:,} row groups "
        f"in {len(found):,} objects, named by {len(snapshot.chains):,} unbroken chains"
    )
    if receipt is None:
        console.print("no receipt: name a file with --receipt", style="yellow")
    elif signed_by is None:
        console.print(f"receipt in {receipt}, [yellow]not signed[/]: set WHYREC_SIGNING_KEY_FILE")
    else:
        console.print(f"receipt in {receipt}, signed by {signed_by.id}")


def _scope(date: str, regions: list[str]) -> Scope:
    from stream.archive.reading.pull import Scope

    since, dots, until = date.partition("..")
    for day in (since, until if dots else since):
        options.require_day("--date", day)
    if dots and until < since:
        raise typer.BadParameter(f"{date} ends before it begins", param_hint="--date")
    return Scope(since, until if dots else since, tuple(regions))


def _request(request: str | None) -> str | None:
    try:
        return None if request is None else str(uuid.UUID(request))
    except ValueError:
        raise typer.BadParameter(f"{request!r} is not a UUID", param_hint="--request") from None


def _type(kind: str | None) -> str | None:
    if kind is not None and kind not in EXPLANATION_TYPES:
        raise typer.BadParameter(f"{kind!r}: expected one of {', '.join(EXPLANATION_TYPES)}", param_hint="--type")
    return kind


def _now_ms() -> int:
    return int(time.time() * 1000)


def _unknown_key(store: Store, private: PrivateKey) -> Exception:
    from stream.errors import ConfigurationError

    return ConfigurationError(
        f"the key {private.id} may not sign receipts of {store.url}; "
        "make one with `whyrec archive keys new --for receipts`"
    )
