"""Strike a worker with every fault, on a real Kafka and a real S3 server, and count what was lost and what came twice.

Run: python -m tests.faults [--share 0.1] [--only WORDS] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.bundles import tiny_bundle
from tests.faults.proxy import Proxy
from tests.faults.scene import Result, scene
from tests.faults.stories import STORIES, Stage, Told
from tests.parts.kafka import Kafka
from tests.parts.s3_server import S3Server

HEADINGS = ("fault", "runs", "rows expected", "lost", "twice", "chain")


def tell(told: Told, kafka: Kafka, server: S3Server, folder: Path, bundle_dir: Path, runs: int, seed: int) -> Result:
    """Tell one story and say what it came to."""
    with Proxy(int(server.endpoint_url.rpartition(":")[2])) as proxy:
        stage = Stage(kafka, proxy, random.Random(seed))
        there = None if told.where == "folder" else server
        endpoint = proxy.endpoint_url if told.where == "proxy" else None
        with scene(kafka.bootstrap, folder, bundle_dir, there, endpoint) as made:
            return made.result(told.story(made, stage, runs))


def main() -> int:
    """Print a table; 1 where anything was lost, came twice, or does not verify."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the runs of each fault; 0.1 is a tenth")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    chosen = {name: told for name, told in STORIES.items() if arguments.only in name}
    width = max(map(len, [*chosen, HEADINGS[0]]))
    began = time.monotonic()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="whyrec-faults-") as scratch, Kafka() as kafka, S3Server() as server:
        bundle_dir = tiny_bundle(Path(scratch) / "bundle")
        _say(f"seed {arguments.seed}")
        _say("  ".join([f"{HEADINGS[0]:<{width}}", *(f"{heading:>13}" for heading in HEADINGS[1:])]))
        totals = [0, 0, 0, 0]
        for name, told in chosen.items():
            runs = max(1, round(told.runs * arguments.share))
            try:
                result = tell(told, kafka, server, Path(scratch), bundle_dir, runs, arguments.seed)
            except AssertionError as error:
                bad += 1
                _say(f"{name:<{width}}  did not come to its end: {error}")
                continue
            bad += not result.good
            numbers = (result.runs, result.expected, result.lost, result.twice)
            totals = [total + number for total, number in zip(totals, numbers, strict=True)]
            chain = "unbroken" if not result.findings else f"{len(result.findings)} errors"
            _say(_line(name, width, numbers, chain))
            for finding in result.findings[:5]:
                _say(f"    rule {finding.rule}: {finding.key} {finding.what}")
        _say(
            _line(
                f"all, in {(time.monotonic() - began) / 60:.0f} minutes",
                width,
                tuple(totals),
                "" if bad else "unbroken",
            )
        )
    return 1 if bad else 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the purpose of the command


def _line(name: str, width: int, numbers: tuple[int, ...], chain: str) -> str:
    return "  ".join([f"{name:<{width}}", *(f"{number:>13,}" for number in numbers), f"{chain:>13}"])


if __name__ == "__main__":
    sys.exit(main())
