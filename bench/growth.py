"""How cost grows: with slates, sessions, trees and batches without Kafka, with partitions and workers on it.

Without Kafka, from Avro to Avro under the evidence policy, one size is changed at a time. A figure is the least of
several rounds over the same slates, in which all sizes take turns. Re-rankers of other sizes are fitted to the scores
of the bundle's own and rank the slates that they are measured on, so that scores match and everything is explained.
Then a real Kafka, at one moderate rate
(``bench/stream.py``), with explaining and archiving in a process each; there a figure is one run, and the first run,
which warms the broker up, does not count.

Run: python -m bench.growth [--no-stream] [--plot FILE.svg] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightgbm as lgb
import numpy as np

from bench.curves import Curve, draw, save, show
from bench.machine import describe, headline
from bench.pipeline import Ours, measure, settle
from bench.stream import SWITCH_S, Plan, broker, run
from models.bundle import Bundle, attach
from models.data.sessions import Sessions
from models.data.simulator import simulate
from models.data.slates import impressions
from models.reranker.features import matrix
from models.reranker.runtime import Reranker
from models.reranker.train import MONOTONE
from schemas.events import Impression
from stream.settings import BUNDLED_MODEL

ITEMS: Final = 20
SLATES: Final = 64
"""Slates that every size is measured on, in one batch unless it is batches that grow."""

CPU: Final = "CPU µs per impression"
STREAM_CPU: Final = "CPU s per 1M impressions"
LATENCY: Final = "median latency, ms"
WARM_UP_S: Final = 5.0
APART: Final = ("explain", "sink")
PARTITIONS: Final = 12
"""Of each topic where workers grow: each gets as many."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured."""

    items: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    events: tuple[int, ...] = (1, 2, 5, 10, 20, 30, 45)
    trees: tuple[int, ...] = (25, 50, 100, 167, 400, 800)
    leaves: tuple[int, ...] = (4, 8, 16, 31, 63, 127)
    batch: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    partitions: tuple[int, ...] = (4, 16, 64)
    workers: tuple[int, ...] = (1, 2, 3)
    fitted_to: int = 1_000
    """Slates that re-rankers of other sizes are fitted to."""


FEW: Final = Sizes((1, 5), (1, 5), (2, 5), (2, 4), (1, 8), (1, 2), (1,), 200)


class Case:
    """One size: who answers which slates, how many together."""

    def __init__(self, job: Ours, slates: list[Impression], batch: int = SLATES) -> None:
        self._job, self._messages = job, job.messages(slates)
        self._items, self._batch = len(slates[0]["items"]), min(batch, len(slates))

    def measured(self) -> float:
        """Processor microseconds per impression, over all slates once."""
        turns = range(len(self._messages) // self._batch)
        return float(np.mean([measure(self._job, self._messages, self._items, turn, self._batch) for turn in turns]))


@cache
def everyone() -> Sessions:
    """Simulate users that no model learned from."""
    return simulate(8_000, 5)


def slates_of(bundle: Bundle, users: Sessions, items: int = ITEMS) -> list[Impression]:
    """Make a slate for each user."""
    return list(impressions(bundle, users, log=everyone(), items=items))


def in_process(bundle: Bundle, sizes: Sizes, rounds: int, folder: Path) -> Iterator[Curve]:
    """Measure explaining without Kafka. ``folder`` holds the bundles with other re-rankers meanwhile."""
    ours, users = Ours(bundle), everyone().select(np.arange(SLATES))
    # The same users at every length: of those with the most events, the oldest, and one more that is held back.
    long = everyone().select(np.flatnonzero(everyone().lengths > max(sizes.events))[:SLATES])
    learn = slates_of(bundle, everyone().select(np.arange(SLATES, SLATES + sizes.fitted_to)))
    usual = slates_of(bundle, users)

    def curve(against: str, cases: dict[int, Case], *, doubling: bool = False) -> Curve:
        return Curve(against, CPU, {"": least(cases, rounds)}, doubling)

    @cache
    def reranked(trees: int, leaves: int) -> Case:
        other = with_forest(bundle, learn, trees, leaves, folder / f"{trees}-{leaves}")
        return Case(Ours(other), slates_of(other, users))

    yield curve("items per slate", {n: Case(ours, slates_of(bundle, users, n)) for n in sizes.items}, doubling=True)
    yield curve("events per session", {n: Case(ours, slates_of(bundle, long.first(n + 1))) for n in sizes.events})
    yield curve("slates in a batch", {n: Case(ours, usual, n) for n in sizes.batch}, doubling=True)
    trees, leaves = shape(bundle)
    yield curve(f"trees of {leaves} leaves", {n: reranked(n, leaves) for n in sizes.trees})
    yield curve(f"leaves of each of {trees} trees", {n: reranked(trees, n) for n in sizes.leaves})


def least(cases: dict[int, Case], rounds: int) -> list[tuple[float, float]]:
    """Take the least of several rounds in which all cases take turns; one more before them compiles and loads."""
    settle()
    found = [[case.measured() for case in cases.values()] for _ in range(rounds + 1)]
    return [(size, min(times)) for size, times in zip(cases, zip(*found[1:], strict=True), strict=True)]


def shape(bundle: Bundle) -> tuple[int, int]:
    """Count the trees of a bundle's re-ranker, and the leaves of its largest."""
    forest = Reranker.load(bundle).booster
    return forest.num_trees(), max(each["num_leaves"] for each in forest.dump_model()["tree_info"])


def with_forest(bundle: Bundle, slates: Sequence[Impression], trees: int, leaves: int, folder: Path) -> Bundle:
    """Write a bundle into folder whose re-ranker has other trees, and scores slates about as the given one does."""
    user = np.array([slate["user_features"] for slate in slates], dtype=np.float32)
    item = np.array([[each["item_features"] for each in slate["items"]] for slate in slates], dtype=np.float32)
    score = np.array([[each["ranking_score"] for each in slate["items"]] for slate in slates], dtype=np.float32)
    rows = matrix(user, item, score)
    names = [feature.name for feature in bundle.features]
    parameters = {
        "objective": "regression",
        "num_leaves": leaves,
        "learning_rate": min(0.3, 8 / trees),  # so that few trees get as far as many
        "min_data_in_leaf": 5,
        "feature_fraction": 0.7,
        "monotone_constraints": [MONOTONE.get(name, 0) for name in names],
        "monotone_constraints_method": "intermediate",
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": 0,
        "verbosity": -1,
    }
    data = lgb.Dataset(rows, Reranker.load(bundle).raw(rows), feature_name=names, params={"verbosity": -1})
    text = lgb.train(parameters, data, num_boost_round=trees).model_to_string()
    shutil.copytree(bundle.path, folder)
    return attach(folder, {"reranker.txt": text.encode()})


def on_kafka(bootstrap: str, slates: list[Impression], sizes: Sizes, rate: float, duration_s: float) -> Iterator[Curve]:
    """Measure workers on a real Kafka."""

    def plan(workers: int, partitions: int) -> Plan:
        return Plan(rate, duration_s, WARM_UP_S, workers, partitions, APART)

    plans = {
        "partitions of each topic": {n: plan(1, n) for n in sizes.partitions},
        "workers of each kind": {n: plan(n, PARTITIONS) for n in sizes.workers},
    }
    run(bootstrap, slates, plan(1, PARTITIONS))
    for against, asked in plans.items():
        found = {size: run(bootstrap, slates, each) for size, each in asked.items()}
        for size, each in found.items():
            if not each.sustained:
                print(f"\n{against}, {size}: not sustained; explained {each.explained:,} of {each.sent:,}")
        doubling = against.startswith("partitions")
        roles = {
            role: [
                (size, sum(s for name, s in each.cpu_s.items() if name.startswith(role)))
                for size, each in found.items()
            ]
            for role in (*APART, "broker")
        }
        yield Curve(against, STREAM_CPU, roles, doubling)
        yield Curve(against, LATENCY, {"": [(size, each.p50_ms) for size, each in found.items()]}, doubling)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure curve after curve, and print each as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLED_MODEL)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--few", action="store_true", help="few and small sizes, to see that everything runs")
    parser.add_argument("--no-stream", action="store_true", help="without Kafka")
    parser.add_argument("--bootstrap", help="a Kafka that runs already; by default one is started")
    parser.add_argument("--rate", type=float, default=250, help="slates per second on Kafka")
    parser.add_argument("--duration", type=float, default=10, help="seconds for each run on Kafka")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw all curves there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and curves there")
    arguments = parser.parse_args(argv)

    bundle, sizes = Bundle.load(arguments.bundle), FEW if arguments.few else Sizes()
    says = f"slates of {ITEMS}, batches of {SLATES}, evidence policy"
    print(f"{headline()}\n{says}; without Kafka: one thread, the least of {arguments.rounds} rounds", flush=True)
    curves: list[Curve] = []
    with tempfile.TemporaryDirectory(prefix="whyrec-growth-") as folder:
        for curve in in_process(bundle, sizes, arguments.rounds, Path(folder)):
            curves.append(curve)
            show(curve)
    if not arguments.no_stream:
        print(f"\non Kafka: {arguments.rate:g} slates/s for {arguments.duration:g} s, broker and load on this machine")
        sys.setswitchinterval(SWITCH_S)
        slates = slates_of(bundle, everyone().select(np.arange(1_000)))
        with broker(arguments.bootstrap) as bootstrap:
            for curve in on_kafka(bootstrap, slates, sizes, arguments.rate, arguments.duration):
                curves.append(curve)
                show(curve)
    if arguments.plot is not None:
        kafka = "" if arguments.no_stream else f"; on Kafka {arguments.rate:g} slates/s"
        save(draw(curves, f"How cost grows: {says}{kafka}\n{headline()}"), arguments.plot)
    if arguments.json is not None:
        document = {"machine": describe(), "curves": [asdict(curve) for curve in curves]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
