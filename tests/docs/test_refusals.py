"""What a person gets who asks for something that cannot be: one line that says what to do, and no traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stream import cli

NOBODY = "127.0.0.1:1"
"""An address at which nothing listens."""


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that is to be refused, and return its line."""
    monkeypatch.setattr(sys, "argv", ["whyrec", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    assert ended.value.code == 1
    (line,) = [each for each in captured.err.splitlines() if each.strip()]
    assert line.startswith("whyrec: ")
    assert not captured.out.strip()
    return line


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("WHYREC_POLICY", "guess", "'evidence', 'attention' or 'learned'"),
        ("WHYREC_PARTITIONS", "0", "greater than 0"),
        ("WHYREC_METRICS_PORT", "abc", "integer"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    variable: str, value: str, wanted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    line = refused(["config"], monkeypatch, capsys)
    assert f"{variable} is '{value}'" in line
    assert wanted in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", "{}"], "lacks request_id"),
        (["explain", "{}", "--bundle", "nowhere"], "lacks request_id"),
        (["models", "card", "[b]nowhere[/i]"], "[b]nowhere[/i]"),
        (["models", "train", "--out", "."], "--simulated, or --movielens"),
        (["models", "train", "--out", "{}", "--simulated"], "name a folder"),
        (["schemas", "check"], "WHYREC_SCHEMA_REGISTRY_URL"),
        (["schemas", "check", "--registry", "localhost"], "http://HOST:PORT"),
        (["schemas", "check", "--registry", f"http://{NOBODY}"], "check the address"),
        (["produce", "--simulated", "--bootstrap", NOBODY], "--bootstrap"),
        (["watch"], "WHYREC_BOOTSTRAP_SERVERS"),
        (["demo", "--json", "{}/out.json"], "name a file"),
        (["worker", "--agents", "explian"], "explain and sink"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.write_text("{}")
    monkeypatch.setenv("WHYREC_BOOTSTRAP_SERVERS", NOBODY)
    monkeypatch.chdir(tmp_path)
    assert said in refused([each.replace("{}", str(file)) for each in arguments], monkeypatch, capsys)


def test_a_setting_that_nothing_reads_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WHYREC_POLCY", "attention")
    monkeypatch.setattr(sys, "argv", ["whyrec", "config", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "WHYREC_POLCY is not a setting" in capsys.readouterr().err
