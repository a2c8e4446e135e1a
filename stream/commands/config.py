"""``whyrec config``: the settings in force, and where each comes from."""

from __future__ import annotations

import os

import typer

from stream.settings import Settings, variable

_NOT_OURS = ("WHYREC_TEST_", "WHYREC_DEV_")
"""Prefixes of variables that the tests and docker-compose.yml read."""


def config(
    json: bool = typer.Option(False, "--json", help="Print JSON instead of a table."),
) -> None:
    """Print the settings in force; secrets are hidden.

    Example: WHYREC_POLICY=attention whyrec config
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    settings = Settings()
    for name in sorted(_unknown()):
        typer.echo(f"whyrec: {name} is not a setting and is ignored; check its spelling", err=True)
    if json:
        typer.echo(settings.model_dump_json(indent=2))
        return
    table = Table(title="Settings of whyrec")
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from")
    table.add_column("meaning")
    given = {name.upper() for name in os.environ}
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        table.add_row(
            variable(name),
            Text("" if value is None else str(value)),
            "environment" if variable(name) in given else "default",
            field.description or "",
        )
    Console().print(table)


def _unknown() -> set[str]:
    """Return variables with our prefix that are not settings."""
    known = {variable(name) for name in Settings.model_fields}
    ours = {name for name in os.environ if name.upper().startswith("WHYREC_")}
    return {name for name in ours if name.upper() not in known and not name.upper().startswith(_NOT_OURS)}
