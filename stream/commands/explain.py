"""``whyrec explain``: impressions from a file, from standard input or from a topic, and their explanations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

if TYPE_CHECKING:
    from schemas.events import Explanation
    from stream.settings import Settings

_CONFLUENT: Final = b"\0"


def explain(
    file: Annotated[
        str,
        typer.Argument(
            help="Impressions: a file (JSON lines, Parquet, Avro, or one event in the Confluent wire format), - for "
            "standard input, or a topic.",
            metavar="FILE",
        ),
    ] = "-",
    bundle: Annotated[
        Path | None,
        typer.Option(help="The model bundle that ranked the slate, by default WHYREC_BUNDLE_DIR.", metavar="DIR"),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="evidence, learned, or attention (the industry's rules), by default WHYREC_POLICY.", metavar="NAME"
        ),
    ] = None,
    detail: bool = typer.Option(
        False,
        "--detail",
        help="Add each item's ledger: every event and feature, what to do to see less of it, similar moments.",
    ),
    items: Annotated[int | None, typer.Option(min=1, help="Print the first so many items.", metavar="N")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Explain the first so many slates.", metavar="N")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a source of which one impression cannot be read.")
    ] = False,
    json: bool = typer.Option(False, "--json", help="Print each explanation event as a line of JSON."),
) -> None:
    """Explain every item of one slate, or of many.

    Example: whyrec explain impression.json --detail --items 1
    """
    from itertools import chain

    from rich.console import Console

    from schemas.json_form import to_json
    from stream.explain.pipeline import Explainer
    from stream.settings import Settings
    from stream.terminal.panel import panel

    settings = Settings()
    impressions = _read(file, settings, limit, strict=strict)
    first = next(impressions)  # what is wrong with the input is said before the models are opened
    explainer = Explainer.load(bundle or settings.bundle_dir, policy or settings.policy)
    for impression in chain([first], impressions):
        [explanation] = explainer.explain([impression | {"detail": True} if detail else impression])
        if json:
            typer.echo(to_json(explanation))
        else:
            Console().print(panel(cast("Explanation", explanation), explainer.bundle, items))


def _read(file: str, settings: Settings, limit: int | None, *, strict: bool) -> Iterator[dict[str, Any]]:
    """Yield impressions; one in the Confluent wire format needs the schema registry."""
    from schemas.columnar import to_records
    from stream.commands.sources import batches_of
    from stream.connections import codec_of

    path, found = Path(file), 0
    if path.is_file() and (value := path.read_bytes()).startswith(_CONFLUENT):
        yield codec_of(settings).decode("impression", value)
        return
    for batch in batches_of(file, limit, strict=strict):
        for impression in to_records("impression", batch):
            found += 1
            yield impression
    if not found:
        name = "standard input" if file == "-" else file
        raise typer.BadParameter(f"{name} is empty; give an impression event, for example as JSON")
