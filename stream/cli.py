"""The command ``whyrec``: one group of commands per file of ``stream/commands``."""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from schemas.errors import WhyrecError
from stream import settings
from stream.commands import (
    archive,
    bench,
    config,
    demo,
    evaluate,
    explain,
    models,
    produce,
    replay,
    schemas,
    topics,
    watch,
    worker,
)

app = typer.Typer(
    name="whyrec",
    help="Explain recommendations as they stream by, say only what was checked, and keep the proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo.demo,
    worker.worker,
    produce.produce,
    watch.watch,
    explain.explain,
    replay.replay,
    evaluate.evaluate,
    config.config,
):
    app.command()(command)
app.command("audit", hidden=True, deprecated=True)(evaluate.evaluate)
for group, text in (
    (topics, "Create and describe the topics."),
    (schemas, "Register the event schemas, and check that they are compatible."),
    (models, "Train, import, check and describe model bundles."),
    (archive, "Verify and query the archive."),
    (bench, "Measure what everything costs, each beside something to compare it with."),
):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2], help=text, no_args_is_help=True)


def main() -> None:
    """Run a command; an error raised on purpose is one line, not a traceback."""
    try:
        app()
    except WhyrecError as error:
        _refuse(str(error))
    except ValidationError as error:
        if error.title != settings.Settings.__name__:
            raise
        _refuse(settings.faults(error))


def _refuse(reason: str) -> None:
    # As text and not as markup: a message may quote a list, or name an extra in brackets.
    Console(stderr=True).print(Text.assemble(("whyrec:", "bold red"), f" {reason}"), soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
