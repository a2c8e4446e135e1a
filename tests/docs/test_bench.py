"""Every benchmark that has a command is there, and says how it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.commands.bench import app

BENCH = Path(__file__).parents[2] / "bench"
NAMES = [command.callback.__name__ for command in app.registered_commands if command.callback is not None]


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_has_a_module_that_takes_json(name: str) -> None:
    text = (BENCH / f"{name}.py").read_text("utf-8")
    assert f"python -m bench.{name}" in text
    assert "--json" in text
