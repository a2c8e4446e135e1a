"""Every benchmark that has a command is there, says how it is run, and stands on the page; the newest also run."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch

from bench import curves
from bench.stream import Plan, Run
from stream.commands.bench import app
from stream.kafka.clients import producer
from stream.settings import Settings
from tests.parts.fixtures import ExistingKafka
from tests.parts.kafka import Kafka

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # shap's, about matplotlib
    from bench import growth, produce
    from bench.precision import bfloat16, int8

BENCH = Path(__file__).parents[2] / "bench"
PAGE = (BENCH / "README.md").read_text("utf-8")
NAMES = [command.callback.__name__ for command in app.registered_commands if command.callback is not None]
MODULES = [path.stem for path in sorted(BENCH.glob("*.py")) if "__main__" in path.read_text("utf-8")]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_has_a_module_that_takes_json(name: str) -> None:
    text = (BENCH / f"{name}.py").read_text("utf-8")
    assert f"python -m bench.{name}" in text
    assert "--json" in text


def test_weights_are_rounded_as_hardware_rounds_them() -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 64, 32)).astype(np.float32)
    halves = torch.from_numpy(matrix).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(bfloat16(matrix), halves)
    step = np.abs(matrix).max(axis=1, keepdims=True) / 127
    rounded = int8(matrix)
    assert (np.abs(rounded - matrix) <= step / 2 + 1e-7).all()
    np.testing.assert_allclose(rounded / step, np.rint(rounded / step), atol=1e-4)


@pytest.mark.parametrize("name", MODULES)
def test_the_page_says_what_a_benchmark_answers(name: str) -> None:
    command = f"whyrec bench {name}" if name in NAMES else f"python -m bench.{name}"
    assert re.search(rf"\| `{command}[ `]", PAGE), f"bench/README.md has no row for {command}"


@pytest.mark.parametrize("picture", sorted(path.name for path in BENCH.glob("*.svg")))
def test_a_picture_is_shown_and_names_no_folder_of_a_machine(picture: str) -> None:
    text = (BENCH / picture).read_text("utf-8")
    assert f"]({picture})" in PAGE
    assert ET.fromstring(text).tag == f"{SVG}svg"  # noqa: S314 - our own file
    assert not re.search(r"/(home|root|tmp|usr|opt|var|work|Users)/", text)
    assert len(text) < 300_000


@pytest.mark.slow
def test_growth_measures_every_size_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot, written = tmp_path / "growth.svg", tmp_path / "growth.json"
    growth.main(["--few", "--no-stream", "--rounds", "1", "--plot", str(plot), "--json", str(written)])
    found = json.loads(written.read_text("utf-8"))["curves"]
    asked = [growth.FEW.items, growth.FEW.events, growth.FEW.batch, growth.FEW.trees, growth.FEW.leaves]
    assert [[size for size, _ in each["lines"][""]] for each in found] == [list(sizes) for sizes in asked]
    assert all(us > 0 for each in found for _, us in each["lines"][""])
    text = plot.read_text("utf-8")
    assert "date" not in text
    words = [each.text for each in ET.fromstring(text).iter(f"{SVG}text")]  # noqa: S314 - drawn here
    printed = capsys.readouterr().out
    for each in found:
        assert each["against"] in words
        assert each["against"] in printed


def test_growth_on_kafka_tells_workers_and_broker_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Plan] = []

    def pretend(_bootstrap: str, _slates: list[Any], plan: Plan) -> Run:
        asked.append(plan)
        workers = [f"{agents} {number}" for agents in plan.agents for number in range(plan.workers)]
        cpu_s = dict.fromkeys(workers, 50.0) | {"broker": 40.0, "load": 7.0}
        return Run(plan.rate, 20 * plan.rate, 1, 1, 1, 0, 0.0, 20.0 + plan.partitions, 0, 0, cpu_s, {}, [1.0] * 3)

    monkeypatch.setattr(growth, "run", pretend)
    cpu, p50, cpu_of_workers, _ = growth.on_kafka("", [], growth.Sizes(partitions=(4, 8), workers=(1, 3)), 250, 1)
    assert (asked[1].partitions, asked[1].workers, asked[4].workers) == (4, 1, 3)
    assert cpu.lines == {"explain": [(4, 50), (8, 50)], "sink": [(4, 50), (8, 50)], "broker": [(4, 40), (8, 40)]}
    assert p50.lines == {"": [(4, 24), (8, 28)]}
    assert cpu_of_workers.lines["explain"] == [(1, 50), (3, 150)]
    assert len(curves.draw([cpu, p50], "title").axes) == 2


def test_the_client_takes_every_setting_of_the_producer() -> None:
    for changes in produce.CHANGES.values():
        producer(
            Settings(bootstrap_servers="127.0.0.1:1"), {"log_level": 0} | changes
        )  # it refuses what it does not know


def test_the_producer_is_measured_beside_what_is_shipped(
    kafka: Kafka | ExistingKafka, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(produce, "_STATISTICS_MS", 50)
    few = {name: produce.CHANGES[name] for name in (produce.BASE, "no compression")}
    monkeypatch.setattr(produce, "CHANGES", few)
    written = tmp_path / "produce.json"
    arguments = ["--bootstrap", kafka.bootstrap, "--duration", "0.1", "--rounds", "1", "--json", str(written)]
    produce.main(arguments)
    printed = capsys.readouterr().out
    samples = json.loads(written.read_text("utf-8"))["samples"]
    assert list(samples) == list(few)
    assert all(each["p50_ms"] > 0 and each["bytes"] > 0 for found in samples.values() for each in found)
    assert samples["no compression"][0]["bytes"] > 2 * samples[produce.BASE][0]["bytes"]
    assert all(name in printed for name in few)
