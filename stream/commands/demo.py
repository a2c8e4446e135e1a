"""``whyrec demo``: the whole service on simulated traffic, with counts that must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.settings import Settings


def demo(
    duration: float = typer.Option(30.0, min=1, help="Duration of the traffic, in seconds."),
    rate: float = typer.Option(20.0, min=0.1, help="Slates per second, of 20 items each."),
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Write the figures to this file as JSON.", metavar="FILE", dir_okay=False),
    ] = None,
    bootstrap: str | None = typer.Option(
        None, "--bootstrap", help="Use this Kafka instead of the embedded broker.", metavar="HOST:PORT"
    ),
    archive: str | None = typer.Option(
        None, help="The archive, a folder or s3://bucket/prefix; default: a fresh folder below ./demo.", metavar="URL"
    ),
) -> None:
    """Run the whole service on simulated traffic and show explanations; exit 1 if the counts disagree.

    Example: whyrec demo --duration 20 --json out.json
    """
    from rich.console import Console

    from stream.demo.show import Plan, show
    from stream.errors import ConfigurationError

    if json is not None:
        try:  # refuse before the traffic rather than after it
            fresh = not json.exists()
            json.open("a").close()
            if fresh:
                json.unlink()
        except OSError as error:
            raise ConfigurationError(f"--json {json}: {error.strerror}; name a file that can be written") from error
    outcome = show(Plan(Settings(), duration, rate, bootstrap, archive), Console())
    if json is not None:
        json.write_text(outcome.to_json() + "\n", "utf-8")
    if outcome.faults():
        raise typer.Exit(1)
