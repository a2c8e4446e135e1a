"""What explaining costs without Kafka: our pipeline beside the plain assembly of the same parts, in one run.

From Avro to Avro: an impression's bytes are decoded, explained, and the explanation and the audit record encoded. The
plain assembly (``bench/plain.py``) starts from decoded impressions and writes no audit record, to its advantage. Both
use the same models and one thread. What is taken is processor time, so that other work on the machine adds as little
as can be; samples of contenders take turns.

Run: python -m bench.pipeline [--budget] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.machine import describe, headline
from bench.plain import PlainAssembly
from bench.work import Work, counting, peak_bandwidth, peak_flops
from models.bundle import Bundle
from models.data.simulator import simulate
from models.data.slates import impressions
from models.reranker.runtime import Reranker
from schemas.codec import Codec, Encoded
from schemas.events import Impression
from stream.commands.sources import impressions_of
from stream.explain.encode import with_source
from stream.explain.models import Models
from stream.explain.pipeline import Explainer
from stream.settings import BUNDLED_MODEL

Job = Callable[[Sequence[Any]], None]


class Ours:
    """Our pipeline from bytes to bytes, and the processor seconds of each of its stages."""

    def __init__(self, bundle: Bundle, policy: str = "evidence") -> None:
        self._codec = Codec()
        self._last = 0.0
        self.seconds: dict[str, float] = {}
        self.works: dict[str, Work] = {}
        self.bytes_in = self.bytes_out = 0
        models, self._work, self.scored = counting(Models.open(bundle))
        self.trees = Reranker.load(bundle).booster.num_trees()
        self.explainer = Explainer(bundle, policy, observe=self._observe, models=models)

    def watch(self) -> None:
        """Count from now on, for each stage, the work of the session model, and what the re-ranker scores."""
        self._work.pour(Work())
        self.works.clear()
        self.seconds.clear()
        self.scored.rows = self.scored.sums = 0
        self.bytes_in = self.bytes_out = 0

    def messages(self, slates: Sequence[Impression]) -> list[Encoded]:
        """Make what arrives."""
        return [self._codec.encode("impression", slate, "impressions") for slate in slates]

    def __call__(self, messages: Sequence[Encoded]) -> None:
        """Answer messages."""
        self._last = time.thread_time()
        decoded = self._codec.decode_batch("impression", [(each.value, each.headers) for each in messages])
        self._observe("avro decode")
        explained = self.explainer.run(decoded.batch)
        if explained.rejected:
            raise SystemExit(f"slates were rejected: {explained.rejected}")
        offsets = np.arange(len(explained.rows))
        audits = with_source(explained.audits, "", np.zeros_like(offsets), offsets)
        explanations = self._codec.encode_batch("explanation", explained.explanations, "explanations")
        said = [*explanations, *self._codec.encode_batch("audit", audits, "audit")]
        self.bytes_out += sum(len(each.value) for each in said)
        self.bytes_in += sum(len(each.value) for each in messages)
        self._observe("avro encode")

    def _observe(self, stage: str, _elapsed_s: float = 0.0) -> None:
        now = time.thread_time()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
        self._work.pour(self.works.setdefault(stage, Work()))


def slates_of(bundle: Bundle, items: int, users: int = 1_000) -> list[Impression]:
    """Make slates of simulated users that no model learned from."""
    everyone = simulate(max(8_000, users), 5)
    return list(impressions(bundle, everyone.select(np.arange(users)), log=everyone, items=items))


def measure(job: Job, inputs: Sequence[Any], items: int, turn: int, batch: int) -> float:
    """Processor microseconds per impression of one batch; turns go round all inputs."""
    part = [inputs[(turn * batch + i) % len(inputs)] for i in range(batch)]
    started = time.process_time()
    job(part)
    return (time.process_time() - started) / (batch * items) * 1e6


def compare(bundle: Bundle, slates: Sequence[Impression], batch: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds per impression of every contender, a sample per round."""
    items = len(slates[0]["items"])
    plain = PlainAssembly(bundle)
    contenders: dict[str, tuple[Job, Sequence[Any], int]] = {
        "plain, per impression": (plain.per_impression, slates, 2),
        "plain, per slate": (plain.per_slate, slates, 4),
    }
    for policy in ("attention", "evidence"):
        ours = Ours(bundle, policy)
        contenders[f"whyrec, {policy} policy"] = (ours, ours.messages(slates), batch)
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    settle()
    for turn in range(-1, rounds):  # the first compiles and loads
        for name, (job, inputs, size) in contenders.items():
            took = measure(job, inputs, items, turn, size)
            if turn >= 0:
                samples[name].append(took)
    return samples


def budget(bundle: Bundle, slates: Sequence[Impression], batch: int) -> list[dict[str, Any]]:
    """Give each stage's microseconds per impression beside the least that this core could take for its arithmetic."""
    ours = Ours(bundle)
    messages = ours.messages(slates)
    ours(messages[:batch])
    settle()
    ours.watch()
    for start in range(0, len(messages) - batch + 1, batch):
        ours(messages[start : start + batch])
    count = len(messages) // batch * batch * len(slates[0]["items"])
    flops, bandwidth = peak_flops(), peak_bandwidth()

    def flop_limit(work: Work) -> tuple[str, float]:
        says = (
            f"{work.flop / count / 1e6:.2f} MFLOP in {work.rows / count:.2f} rows of {work.sessions / count:.2f} runs"
        )
        return f"{says} at {flops / 1e9:.0f} GFLOP/s", work.flop / count / flops * 1e6

    def byte_limit(size: float, what: str) -> tuple[str, float]:
        return f"{size / count:.0f} bytes {what} at {bandwidth / 1e9:.1f} GB/s", size / count / bandwidth * 1e6

    limits = {
        "avro decode": byte_limit(ours.bytes_in, "in"),
        "score": flop_limit(ours.works["score"]),
        "ablate": flop_limit(ours.works["ablate"]),
        "avro encode": byte_limit(ours.bytes_out, "out"),
    }
    rows, sums = ours.scored.rows / count, ours.scored.sums / count
    scored = f"; {rows:.1f} rows of {ours.trees} trees, {sums:.1f} sums"
    return [
        {
            "stage": stage,
            "us": spent / count * 1e6,
            "limit_us": limits.get(stage, ("", None))[1],
            "work": limits.get(stage, ("", None))[0] + (scored if stage == "ablate" else ""),
        }
        for stage, spent in ours.seconds.items()
    ]


def settle() -> None:
    """Spare the collector what is here to stay, as the worker does (``stream/service.py``)."""
    gc.collect()
    gc.freeze()


def _show(samples: dict[str, list[float]]) -> None:
    base = float(np.median(samples["plain, per impression"]))
    print(f"{'':28}{'µs per impression':>20}{'least':>10}{'against plain':>16}")
    for name, times in samples.items():
        middle = float(np.median(times))
        print(f"{name:28}{middle:>20.1f}{min(times):>10.1f}{base / middle:>15.1f}x")


def _show_budget(lines: list[dict[str, Any]]) -> None:
    print(f"\n{'evidence policy':12}{'µs per impression':>20}{'limit':>10}   of what")
    for line in lines:
        limit = "" if line["limit_us"] is None else f"{line['limit_us']:.2f}"
        print(f"{line['stage']:15}{line['us']:>20.2f}{limit:>10}   {line['work']}")
    print(f"{'all':15}{sum(line['us'] for line in lines):>20.2f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure in turn, so that a drifting machine drifts for all alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLED_MODEL)
    parser.add_argument(
        "--impressions", metavar="FILE", help="impressions that the bundle served, instead of simulated"
    )
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--budget", action="store_true", help="each stage beside its physical limit, and nothing else")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, figures and samples there")
    arguments = parser.parse_args(argv)
    warnings.filterwarnings("ignore", message="LightGBM binary classifier with TreeExplainer")

    bundle = Bundle.load(arguments.bundle)
    slates = (
        slates_of(bundle, arguments.items) if arguments.impressions is None else impressions_of(arguments.impressions)
    )
    events = np.mean([len(slate["session"]) for slate in slates])
    print(headline())
    print(f"slates of {arguments.items}, {events:.1f} events a session, one thread, CPU time, median of rounds\n")
    document: dict[str, Any] = {"machine": describe()}
    if not arguments.budget:
        document["samples_us"] = compare(bundle, slates, arguments.batch, arguments.rounds)
        _show(document["samples_us"])
    document["budget"] = budget(bundle, slates, arguments.batch)
    _show_budget(document["budget"])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
