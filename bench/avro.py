"""What Avro costs: whole batches through Arrow (``schemas/columnar.py``) beside fastavro, record by record, in one run.

Both decode the same impressions and encode the same explanations and audit records, made by the shipped bundle. What
fastavro reads are dictionaries, which the pipeline would still have to turn into arrays.

Run: python -m bench.avro [--batch 64] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from fastavro import schemaless_reader, schemaless_writer

from bench.machine import describe, headline
from bench.pipeline import slates_of
from models.bundle import Bundle
from schemas import columnar
from schemas.codec import Codec
from schemas.events import EventName
from schemas.versions import parsed
from stream.explain.pipeline import Explainer
from stream.settings import BUNDLED_MODEL

ITEMS = 20
ROUNDS = 60


def contenders(batch: int) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Make what is measured, each through Arrow and by fastavro."""
    bundle = Bundle.load(BUNDLED_MODEL)
    codec = Codec()
    bodies = [codec.encode("impression", slate, "").value for slate in slates_of(bundle, ITEMS, batch)]
    explained = Explainer(bundle).run(columnar.decode("impression", bodies).batch)
    outputs: list[tuple[EventName, object]] = [("explanation", explained.explanations), ("audit", explained.audits)]
    jobs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "decode impressions": (
            lambda: columnar.decode("impression", bodies),
            lambda: [schemaless_reader(io.BytesIO(body), parsed("impression")) for body in bodies],
        )
    }
    for event, columns in outputs:
        records = columnar.to_records(event, columns)
        jobs[f"encode {event}s"] = (
            lambda event=event, columns=columns: columnar.encode(event, columns),  # type: ignore[misc]
            lambda event=event, records=records: [  # type: ignore[misc]
                schemaless_writer(io.BytesIO(), parsed(event), record) for record in records
            ],
        )
    return jobs


def measure(job: Callable[[], object], impressions: int) -> float:
    """Processor microseconds per impression of one call."""
    started = time.process_time()
    job()
    return (time.process_time() - started) / impressions * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="slates at a time")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    print(headline())
    print(f"\nmicroseconds per impression, median of {ROUNDS}; {arguments.batch} slates of {ITEMS}\n")
    print(f"{'':<22}{'Arrow':>8}{'fastavro':>10}{'ratio':>8}")
    for name, jobs in contenders(arguments.batch).items():
        samples = [[measure(job, arguments.batch * ITEMS) for job in jobs] for _ in range(ROUNDS)]
        ours, theirs = (statistics.median(each) for each in zip(*samples, strict=True))
        figures[name] = {"arrow_us": ours, "fastavro_us": theirs}
        print(f"{name:<22}{ours:>8.2f}{theirs:>10.2f}{theirs / ours:>7.1f}x")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": describe(), "figures": figures}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
