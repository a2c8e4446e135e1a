"""``whyrec explain``: one event from a file or from standard input, and its explanation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from schemas.events import Explanation


def explain(
    file: str = typer.Argument("-", help="An impression event as JSON (or in the Confluent wire format); - is stdin."),
    bundle: Annotated[Path | None, typer.Option(help="The model bundle that ranked the slate.")] = None,
    policy: str | None = typer.Option(None, help="evidence, or attention (the industry's rules)."),
    json: bool = typer.Option(False, "--json", help="Print the explanation event as JSON."),
) -> None:
    """Explain every item of one slate.

    Example: whyrec explain impression.json --policy evidence
    """
    from rich.console import Console

    from schemas.codec import Codec, to_json
    from stream.explain.pipeline import Explainer
    from stream.panel import panel
    from stream.settings import Settings

    settings = Settings()
    explainer = Explainer.load(bundle or settings.bundle_dir, policy or settings.policy)
    [explanation] = explainer.explain([Codec().decode("impression", _read(file))])
    if json:
        typer.echo(to_json(explanation))
    else:
        Console().print(panel(cast("Explanation", explanation), explainer.bundle.catalog))


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}; name a file that holds one impression event") from error
