"""Exact TreeSHAP beside LightGBM's ``pred_contrib``, shap's own C extension and woodelf, in one run, one thread each.

Every measurement takes rows not seen just before, since timing one batch again flatters tables that fill a cache; the
contenders take turns, and the least and the median time of each are shown, with all samples in the file. What is
taken is the thread's processor time, so that other work on the machine adds as little as can be.

Run: python -m bench.treeshap [--cpu haswell] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
import shap
from woodelf import WoodelfExplainer

from bench.machine import describe, headline
from models.attribution.treeshap import TreeShap

Float64s = npt.NDArray[np.float64]
Contender = Callable[[Float64s], object]

MODELS = {"200 x 31": (200, 31), "300 x 63": (300, 63)}
BATCHES = (1, 20, 120, 128, 1024)
"""Rows: one item, a slate, six slates that stream by together, two blocks, sixteen blocks."""

CPUS = {"haswell": "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse3,+ssse3,+sse4.1,+sse4.2"}
"""Processors that stand for a set of vector instructions: haswell has AVX2."""

_FEATURES, _ROWS = 41, 20_000


def data(seed: int) -> tuple[Float64s, Float64s]:
    """Return made-up rows (continuous, rounded, 5 % missing) and binary targets with interactions."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(_ROWS, _FEATURES))
    X[:, ::3] = np.round(X[:, ::3], 1)
    X[rng.random(X.shape) < 0.05] = np.nan
    Z = np.nan_to_num(X)
    score = Z[:, 0] * Z[:, 1] + np.sin(2 * Z[:, 2]) + Z[:, 3:20] @ rng.normal(scale=0.3, size=17)
    score += (Z[:, 20] > 0) * Z[:, 21] + rng.normal(scale=0.3, size=_ROWS)
    return X, (score > 0).astype(np.float64)


def train(X: Float64s, y: Float64s, trees: int, leaves: int) -> lightgbm.Booster:
    """Return a booster of that size."""
    settings = {"objective": "binary", "num_leaves": leaves, "verbose": -1, "num_threads": 1, "seed": 1}
    return lightgbm.train(settings, lightgbm.Dataset(X, y), trees)


def fresh(X: Float64s, rows: int) -> Iterator[Float64s]:
    """Yield batches of rows, going round all of ``X``."""
    begin = 0
    while True:
        if begin + rows > len(X):
            begin = 0
        yield np.ascontiguousarray(X[begin : begin + rows])
        begin += rows


def measure(contenders: dict[str, Contender], X: Float64s, rows: int, seconds: float) -> dict[str, list[float]]:
    """Return each contender's times in microseconds per row; quick ones get more turns in the same time."""
    batches = fresh(X, rows)
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for name, contender in contenders.items():
        contender(next(batches))
        samples[name] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, contender in contenders.items():
            turns = 20 if name == "ours" else 1
            for _ in range(turns):
                batch = next(batches)
                begin = time.thread_time()
                contender(batch)
                samples[name].append((time.thread_time() - begin) / rows * 1e6)
    return samples


def compare(name: str, seconds: float) -> dict[str, Any]:
    """Train one model and measure all batch sizes."""
    X, y = data(0)
    booster = train(X, y, *MODELS[name])
    treeshap = TreeShap(booster)
    treeshap.warm_up()
    error = treeshap.self_check(X[:256])
    explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    explainer.model.model_type = "internal"  # else shap hands the work to LightGBM, which is measured anyway
    woodelf = WoodelfExplainer(booster, feature_perturbation="tree_path_dependent")
    names = booster.feature_name()
    contenders: dict[str, Contender] = {
        "ours": treeshap.contributions,
        "pred_contrib": lambda rows: booster.predict(rows, pred_contrib=True, num_threads=1),
        "shap": lambda rows: explainer.shap_values(rows, check_additivity=False),
        "woodelf": lambda rows: woodelf.shap_values(pd.DataFrame(rows, columns=names), verbose=False),
    }
    results = []
    for rows in BATCHES:
        samples = measure(contenders, X, rows, seconds)
        results.append({"rows": rows, "us_per_row": samples})
    return {"model": name, "table_bytes": treeshap.table_bytes, "max_error": error, "batches": results}


def show(report: dict[str, Any]) -> None:
    """Print one model's figures."""
    print(
        f"\n{report['model']} leaves: tables {report['table_bytes'] / 1e6:.1f} MB, error <= {report['max_error']:.1g}"
    )
    print("µs a row, least (median); in brackets how many times faster ours is, by medians")
    print(f"  rows{'ours':>18}{'LightGBM':>16}{'shap':>16}{'woodelf':>18}")
    for batch in report["batches"]:
        least = {name: min(times) for name, times in batch["us_per_row"].items()}
        median = {name: float(np.median(times)) for name, times in batch["us_per_row"].items()}
        ours = f"{least['ours']:.2f} ({median['ours']:.2f})"
        peers = [
            f"{least[name]:.0f} [{median[name] / median['ours']:.0f} x]" for name in ("pred_contrib", "shap", "woodelf")
        ]
        print(f"{batch['rows']:6d}{ours:>18}{peers[0]:>16}{peers[1]:>16}{peers[2]:>18}")


def _compiled_for(cpu: str, argv: Sequence[str]) -> int:
    """Run again in a process whose kernels are compiled for another processor; the peers stay as they are."""
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": CPUS[cpu]}
    return subprocess.run([sys.executable, "-m", "bench.treeshap", *argv], env=environment, check=False).returncode


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; the samples go to a file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, figures and samples there")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each model and batch size (default: 4)")
    parser.add_argument("--model", choices=tuple(MODELS), action="append", help="trees x leaves (default: all)")
    parser.add_argument("--cpu", choices=tuple(CPUS), help="compile our kernels for this one, not for the one at hand")
    arguments = parser.parse_args(argv)
    if arguments.cpu and os.environ.get("NUMBA_CPU_NAME") != arguments.cpu:
        raise SystemExit(_compiled_for(arguments.cpu, sys.argv[1:] if argv is None else argv))
    print(headline() + (f", our kernels compiled for {arguments.cpu}" if arguments.cpu else ""))
    reports = []
    for name in arguments.model or MODELS:
        reports.append(compare(name, arguments.seconds))
        show(reports[-1])
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"machine": describe(), "cpu": arguments.cpu, "models": reports}, indent=1), "utf-8"
        )


if __name__ == "__main__":
    main()
