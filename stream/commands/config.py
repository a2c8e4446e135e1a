"""``whyrec config``: what is in force, and where it came from."""

from __future__ import annotations

import os

import typer

from stream.settings import Settings


def config(
    json: bool = typer.Option(False, "--json", help="Print JSON instead of a table."),
) -> None:
    """Print the settings in force; secrets are hidden.

    Example: WHYREC_POLICY=attention whyrec config
    """
    from rich.console import Console
    from rich.table import Table

    settings = Settings()
    if json:
        typer.echo(settings.model_dump_json(indent=2))
        return
    table = Table("variable", "value", "from", "meaning", title="Settings of whyrec")
    for name, field in Settings.model_fields.items():
        variable = f"WHYREC_{name.upper()}"
        origin = "environment" if variable in os.environ else "default"
        table.add_row(variable, str(getattr(settings, name)), origin, field.description or "")
    Console().print(table)
