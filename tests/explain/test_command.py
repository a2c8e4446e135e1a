"""``whyrec explain``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from schemas.errors import UndecodableEvent
from schemas.json_form import from_json, to_json
from schemas.registry import RegistryUnavailable
from stream.commands.explain import explain

app = typer.Typer()
app.command()(explain)


def run(*arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def test_json_from_a_file_is_an_explanation_event(
    bundle_dir: Path, slates: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "impression.json"
    file.write_text(to_json(slates[0]), encoding="utf-8")
    result = run(str(file), "--bundle", str(bundle_dir), "--policy", "attention", "--json")
    assert result.exit_code == 0, result.output
    explanation = from_json("explanation", result.stdout.encode())
    assert explanation["request_id"] == slates[0]["request_id"]
    assert explanation["policy"] == "attention"


def test_text_from_standard_input_shows_every_item_and_its_evidence(
    bundle_dir: Path, slates: list[dict[str, Any]]
) -> None:
    result = run("--bundle", str(bundle_dir), stdin=to_json(slates[0]))
    assert result.exit_code == 0, result.output
    assert "Because you" in result.stdout
    assert "without it the score drops by" in " ".join(result.stdout.replace("│", " ").split())
    assert slates[0]["request_id"] in result.stdout


def test_detail_lays_the_first_items_open(bundle_dir: Path, slates: list[dict[str, Any]]) -> None:
    short = run("--bundle", str(bundle_dir), stdin=to_json(slates[0]))
    result = run("--bundle", str(bundle_dir), "--detail", "--items", "2", stdin=to_json(slates[0]))
    assert result.exit_code == 0, result.output
    assert "What the score is made of" not in short.stdout
    assert (
        result.stdout.count("What the score is made of") == result.stdout.count("What each event does to the fit") == 2
    )
    asked = run("--bundle", str(bundle_dir), "--json", stdin=to_json(slates[0] | {"detail": True}))
    first = from_json("explanation", asked.stdout.encode())["items"][0]
    assert first["detail"]["recourse"] is None or first["detail"]["recourse"]["text"] in " ".join(
        result.stdout.replace("│", " ").split()
    )
    assert first["basis_text"] in " ".join(result.stdout.replace("│", " ").split())


def test_a_slate_without_items_is_shown_as_such(bundle_dir: Path, slates: list[dict[str, Any]]) -> None:
    result = run("--bundle", str(bundle_dir), stdin=to_json(slates[0] | {"items": []}))
    assert "The slate has no items." in result.stdout


def test_what_is_no_event_is_refused(bundle_dir: Path) -> None:
    result = run("--bundle", str(bundle_dir), stdin=json.dumps({"request_id": "42"}))
    assert isinstance(result.exception, UndecodableEvent)


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_an_empty_input_is_said_to_be_empty(bundle_dir: Path, nothing: str) -> None:
    result = run("--bundle", str(bundle_dir), stdin=nothing)
    assert result.exit_code == 2
    assert "standard input is empty" in result.output


@pytest.mark.slow
def test_the_wire_format_is_read_with_the_registry_that_is_set(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "impression.bin"
    file.write_bytes(b"\x00\x00\x00\x00\x01rest")
    assert "no schema registry is configured" in str(run(str(file), "--bundle", str(bundle_dir)).exception)
    monkeypatch.setenv("WHYREC_SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    assert isinstance(run(str(file), "--bundle", str(bundle_dir)).exception, RegistryUnavailable)


def test_a_file_that_is_not_there_is_named(bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = run("nowhere.json", "--bundle", str(bundle_dir))
    assert result.exit_code != 0
    assert "there is no file nowhere.json" in str(result.exception)
