"""What each question to the session model costs beside one plain run, by the number of events, in one run, one thread.

`forward` is the vector and the attention; `proposal` masks every event approximately, `without` exactly, both including
`forward`. `edited k` is one edit whose incremental inference computes the newest k positions. The limit counts matrix
products (``bench/work.py``).

Run: python -m bench.session [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.machine import describe, headline
from bench.work import Size, forward_flop, peak_flops
from models.attribution.ablation import BLANK, MASK_LAST_QUERY, Edits, every_event, session_vectors
from models.bundle import Bundle
from models.session.histories import Histories
from models.session.runtime import SessionModel
from stream.settings import BUNDLED_MODEL

LENGTHS = (4, 8, 20, 32, 48)
AGAIN = (2, 8)


def questions(model: SessionModel, bundle: Bundle, length: int, batch: int) -> dict[str, Callable[[], object]]:
    """Make what is measured: sessions of one length, drawn at random."""
    random = np.random.default_rng(length)
    items = random.integers(1, len(bundle.catalog) + 1, (batch, length))
    received = random.integers(1, len(bundle.manifest.engagements) + 1, (batch, length))
    histories = Histories(items, received, np.full(batch, length))
    asked: dict[str, Callable[[], object]] = {
        "forward": lambda: model.run(items, received, without=False),
        "proposal": lambda: every_event(model, model.read(histories), MASK_LAST_QUERY),
        "without": lambda: model.run(items, received),
    }
    reading, session = model.read(histories), np.arange(batch)
    for rows in AGAIN:
        if rows < length:
            edits = Edits.of_events(BLANK, session, np.full(batch, length - rows))
            asked[f"edited {rows}"] = partial(session_vectors, model, reading, edits)
    return asked


def measure(asked: dict[str, Callable[[], object]], batch: int, rounds: int) -> dict[str, list[float]]:
    """Processor microseconds per session, a sample per round; questions take turns."""
    samples: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(-2, rounds):
        for name, ask in asked.items():
            started = time.thread_time()
            ask()
            if turn >= 0:
                samples[name].append((time.thread_time() - started) / batch * 1e6)
    return samples


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; the samples go to a file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLED_MODEL)
    parser.add_argument("--batch", type=int, default=32, help="sessions of one length in a run (default: 32)")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, figures and samples there")
    arguments = parser.parse_args(argv)
    bundle = Bundle.load(arguments.bundle)
    model = SessionModel(bundle)
    size, flops = Size(model.layers, model.heads, model.dimension), peak_flops()
    print(headline())
    print(f"batches of {arguments.batch}, median of {arguments.rounds} rounds; limit at {flops / 1e9:.0f} GFLOP/s\n")
    print(f"{'events':>6}  {'':16}{'µs a session':>14}{'x forward':>11}{'limit, µs':>11}")
    report: list[dict[str, Any]] = []
    for length in LENGTHS:
        samples = measure(questions(model, bundle, length, arguments.batch), arguments.batch, arguments.rounds)
        forward = float(np.median(samples["forward"]))
        events = np.array([length])
        limits = {"forward": forward_flop(size, events, events).sum()}
        limits["proposal"] = limits["forward"] + length * forward_flop(size, events, np.array([1])).sum()
        limits |= {f"edited {rows}": forward_flop(size, events, np.array([rows])).sum() for rows in AGAIN}
        for name, times in samples.items():
            middle = float(np.median(times))
            limit = f"{limits[name] / flops * 1e6:.0f}" if name in limits else ""
            print(f"{length:>6}  {name:16}{middle:>14.0f}{middle / forward:>11.2f}{limit:>11}")
        report.append({"events": length, "us_per_session": samples, "flop": limits})
    if arguments.json is not None:
        document = {"machine": describe(), "flops": flops, "lengths": report}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
