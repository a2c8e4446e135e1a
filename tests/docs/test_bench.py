"""Every benchmark that has a command is there and says how it is run, and they round as they say."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from stream.commands.bench import app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # shap's, about matplotlib
    from bench.precision import bfloat16, int8

BENCH = Path(__file__).parents[2] / "bench"
NAMES = [command.callback.__name__ for command in app.registered_commands if command.callback is not None]


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
