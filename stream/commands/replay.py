"""``whyrec replay``: explain an archived request again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

if TYPE_CHECKING:
    from models.bundle import Bundle
    from schemas.codec import Codec
    from schemas.events import Impression
    from stream.archive.objects import Store
    from stream.replay.archived import ArchivedSlate, Source
    from stream.settings import Settings


def replay(
    *,
    request: Annotated[UUID, typer.Option(help="The id of the recommendation request.", metavar="ID")],
    bundle: Annotated[
        Path | None,
        typer.Option(help="The model bundle that explained the request; default: WHYREC_BUNDLE_DIR.", metavar="DIR"),
    ] = None,
    impression: Annotated[
        Path | None,
        typer.Option(
            help="A file with the impression event, for impressions that Kafka no longer holds; - is standard input.",
            metavar="FILE",
        ),
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(
            help="The day on which the slate was shown (UTC): only objects of this day are read.", metavar="YYYY-MM-DD"
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The archive, a folder or s3://bucket/prefix; default: WHYREC_ARCHIVE_URL.")
    ] = None,
    items: Annotated[int, typer.Option(min=0, help="Show the full ledgers of the first N items.", metavar="N")] = 1,
    json: bool = typer.Option(False, "--json", help="Print every value of every item as JSON."),
) -> None:
    """Explain an archived request again, and prove that every text has the archived hash; exit 1 if a text does not.

    Meant for investigations and for the requests of data subjects: it names sensitive features.

    Example: whyrec replay --request 3f2a91c4-7d1e-4b0a-9c55-0e8f6f1d2b7a
    """
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from models.bundle import Bundle
    from schemas.json_form import to_json
    from stream.archive.store import open_archive
    from stream.commands.archive.options import require_day, settings_at
    from stream.connections import codec_of
    from stream.replay import compare
    from stream.replay.document import document
    from stream.terminal.replay import replay_view

    require_day("--date", date)
    settings = settings_at(url)
    archived = _archived(open_archive(settings), request, date)
    codec = codec_of(settings)
    given = None if impression is None else _read(impression)
    topic = settings.topic("impressions")
    console = Console()
    proven = True
    with TemporaryDirectory(prefix="whyrec-bundles-") as copies:
        for slate in archived:
            opened = Bundle.load(bundle) if bundle is not None else _explaining(slate, settings, Path(copies))
            explainer = compare.explainer_for(slate, opened, settings.policy)
            original = _original(settings, codec, slate.source, request, given)
            replayed = compare.replay(slate, original, explainer)
            proven &= replayed.proven
            if json:
                typer.echo(to_json(document(replayed, topic)))
            else:
                console.print(replay_view(replayed, topic, opened.catalog, items))
    if not proven:
        raise typer.Exit(1)


def _explaining(slate: ArchivedSlate, settings: Settings, copies: Path) -> Bundle:
    """Return the bundle of the version that explained a slate, or the worker's own where that version is not there."""
    from models.bundle import Bundle
    from stream.agents.bundle_store import BundleStore
    from stream.archive.store import open_bundles

    own, version = Bundle.load(settings.bundle_dir), slate.common("model_version")
    if settings.bundles_url is None or own.model_version == version:
        return own
    return BundleStore(open_bundles(settings), copies).fetch(version) or own


def _archived(store: Store, request: UUID, date: str | None) -> list[ArchivedSlate]:
    """Find the rows of the request, with a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    from stream.archive.reading import reader
    from stream.commands.archive.options import nothing_at
    from stream.errors import ArchiveError
    from stream.replay.archived import slates_of

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("searching the archive", total=None)

        def search() -> list[ArchivedSlate]:
            refs = list(reader.objects(store, since=date, until=date))
            if not refs and date is None:
                raise nothing_at(store)
            progress.update(task, completed=0, total=len(refs))
            return slates_of(store, request, refs, lambda _: progress.advance(task))

        found = reader.again(search)
    if not found:
        day = "" if date is None else f" on {date} (UTC)"
        raise ArchiveError(
            f"{store.url} holds no row of request {request}{day}: check the id and --url. The rows may also have been "
            "erased or expired (see whyrec archive verify), or the request was never explained (see the dead letters)"
        )
    return found


def _original(settings: Settings, codec: Codec, source: Source, request: UUID, given: bytes | None) -> Impression:
    from stream.replay.source import from_bytes, from_kafka

    return from_kafka(settings, codec, source, request) if given is None else from_bytes(codec, given, request)


def _read(file: Path) -> bytes:
    import sys

    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}; name a file that holds one impression event") from error
