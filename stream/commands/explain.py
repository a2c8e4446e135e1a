"""``whyrec explain``: one event from a file or from standard input, and its explanation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from schemas.events import Explanation


def explain(
    file: Annotated[
        str,
        typer.Argument(
            help="An impression event as JSON (or in the Confluent wire format); - is stdin.", metavar="FILE"
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
    json: bool = typer.Option(False, "--json", help="Print the explanation event as JSON."),
) -> None:
    """Explain every item of one slate.

    Example: whyrec explain impression.json --detail --items 1
    """
    from rich.console import Console

    from schemas.json_form import to_json
    from stream.connections import codec_of
    from stream.explain.pipeline import Explainer
    from stream.settings import Settings
    from stream.terminal.panel import panel

    settings = Settings()
    impression = codec_of(settings).decode("impression", _read(file))
    explainer = Explainer.load(bundle or settings.bundle_dir, policy or settings.policy)
    if detail:
        impression["detail"] = True
    [explanation] = explainer.explain([impression])
    if json:
        typer.echo(to_json(explanation))
    else:
        Console().print(panel(cast("Explanation", explanation), explainer.bundle, items))


def _read(file: str) -> bytes:
    try:
        value = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}; name a file that holds one impression event") from error
    if not value.strip():
        name = "standard input" if file == "-" else file
        raise typer.BadParameter(f"{name} is empty; give one impression event as JSON")
    return value
