"""Every command says what it does, and shows a line that can be pasted."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.core import TyperGroup, TyperOption

from stream.cli import app


def commands(command: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(command, TyperGroup):
        shown = {name: child for name, child in command.commands.items() if not child.hidden}
        return [each for name, child in shown.items() for each in commands(child, f"{path} {name}")]
    return [(path, command)]


COMMANDS = dict(commands(typer.main.get_command(app), "whyrec"))


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_an_example_of_this_command(path: str) -> None:
    text = COMMANDS[path].help or ""
    example = text.partition("Example:")[2]
    assert path in " ".join(example.split()), f"{path} --help shows no example"


@pytest.mark.parametrize("path", COMMANDS)
def test_help_explains_every_option(path: str) -> None:
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, TyperOption) and parameter.name != "help":
            assert parameter.help, f"{path}: {parameter.opts} is not explained"
