"""Commands that take impressions of any recommender instead of simulated or public users."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from models.bundle import Bundle
from schemas.json_form import to_json
from stream.cli import app
from tests.bundles import TINY, random_weights, tiny_bundle, tiny_impression

Record = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def served(folder: Path) -> Path:
    bundle, file = Bundle.load(folder), folder / "served.jsonl"
    slates = [tiny_impression(bundle, session=size, items=8, seed=size) for size in (1, 2, 9, 49, 50, 51, 100)]
    file.write_text("".join(f"{to_json(each)}\n" for each in slates))
    return file


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "250"})
    return done.exit_code, f"{' '.join(done.output.split())} {done.exception or ''}"


def test_every_citation_of_served_impressions_is_judged_by_deletion(folder: Path, served: Path, tmp_path: Path) -> None:
    code, output = run("evaluate", "--impressions", served, "--bundle", folder, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert code == 0, output
    assert found["slates"] == 7
    assert found["citations"] > 10
    assert (found["wrong_drops"], found["no_drops"], found["wrong_ranks"], found["mismatched"]) == (0, 0, 0, 0)


@pytest.mark.parametrize(("scale", "bias"), [(1e-4, 0.0), (1e3, 0.0), (1.0, 100.0)])
def test_citations_are_judged_on_the_scale_of_the_scores(tmp_path: Path, scale: float, bias: float) -> None:
    vectors = random_weights(TINY)["item.weight"] * np.float32(scale)
    biases = np.full(len(vectors), bias, dtype=np.float32)
    biases[0] = 0
    folder = tiny_bundle(tmp_path / "scaled", item_vectors=vectors, item_bias=biases, session_score_spread=None)
    bundle, file = Bundle.load(folder), tmp_path / "served.jsonl"
    slates = [tiny_impression(bundle, session=size, items=8, seed=size) for size in (2, 9, 60)]
    file.write_text("".join(f"{to_json(each)}\n" for each in slates))
    code, output = run("evaluate", "--impressions", file, "--bundle", folder, "--json", tmp_path / "found.json")
    assert code == 0, output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["citations"] > 0
    assert found["mismatched"] == 0


def test_the_judge_finds_what_the_attention_rule_cites_without_effect(folder: Path, served: Path) -> None:
    code, output = run("evaluate", "--impressions", served, "--bundle", folder, "--policy", "attention")
    assert code == 1
    assert "0 are none" not in output


def test_the_margin_is_calibrated_on_served_impressions(folder: Path, served: Path, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other")
    code, output = run("models", "calibrate", other, "--impressions", served, "--share", "0.3")
    assert code == 0, output
    assert "of 56 impressions have a citation" in output
    assert "calibrate DIR --impressions FILE" in Bundle.load(other).card


def test_a_margin_is_not_calibrated_on_the_scores_of_another_model(served: Path, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", seed=1)
    before = (other / "manifest.json").read_bytes()
    code, output = run("models", "calibrate", other, "--impressions", served)
    assert code != 0
    assert "whyrec models check --impressions" in output
    assert (other / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("command", [("evaluate", "--bundle", "DIR", "--impressions"), ("explain", "--bundle", "DIR")])
def test_what_cannot_be_read_is_left_out_and_shown_unless_the_command_is_strict(
    folder: Path, served: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    lines = served.read_text().splitlines()[:2]
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text("\n".join([lines[0], '{"request_id": 1}', lines[1], "{"]))
    arguments = [str(folder) if each == "DIR" else each for each in command]
    code, output = run(*arguments, damaged)
    assert code == 0, output
    assert f"2 impressions cannot be read and are left out, the first: {damaged}, 2:" in output
    code, output = run(*arguments, damaged, "--strict")
    assert code != 0
    assert f"{damaged}, 2:" in output
    damaged.write_text("{\n{\n")
    code, output = run(*arguments, damaged)
    assert code != 0
    assert f"{damaged}, 1:" in output


def test_many_slates_of_a_file_are_explained(folder: Path, served: Path) -> None:
    done = CliRunner().invoke(app, ["explain", str(served), "--bundle", str(folder), "--json", "--limit", "3"])
    explanations = [json.loads(line) for line in done.output.splitlines()]
    assert [len(each["items"]) for each in explanations] == [8, 8, 8]


def test_the_pipeline_is_timed_on_served_impressions(folder: Path, served: Path) -> None:
    options = ["--bundle", str(folder), "--impressions", str(served), "--budget", "--batch", "4"]
    command = [sys.executable, "-m", "bench.pipeline", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "evidence policy" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
        (["models", "calibrate", "DIR", "--impressions", "FILE", "--movielens", "."], "needs one source"),
        (["produce", "--simulated", "--impressions", "FILE"], "produce needs one source"),
        (["evaluate", "--impressions", "FILE", "--movielens", "."], "judged by deletion alone"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, served: Path, arguments: list[str], says: str) -> None:
    names = {"DIR": str(folder), "FILE": str(served)}
    code, output = run(*[names.get(each, each) for each in arguments])
    assert code != 0
    assert says in output
