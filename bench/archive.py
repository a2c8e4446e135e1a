"""What an archived impression weighs, and how fast the sink takes them in.

Rows are random where real ones are hard to compress (scores, SHAP values, attention weights, times, text hashes), so
the figures are upper bounds rather than averages. Attention and times are drawn once per slate, as the pipeline gives
them; ``--attention row`` draws attention for every impression, which is the worst that the schema allows.

Run: python -m bench.archive [--attention slate|row] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from bench.machine import describe, headline
from schemas.codec import Codec
from schemas.columnar import from_records
from schemas.events import EXPLANATION_TYPES, STATUSES, Audit
from stream.archive.log.commitlog import Chain
from stream.archive.objects import MemoryStore
from stream.archive.rows.segment import Layout, write
from stream.archive.rows.slates import joined, to_slates
from stream.archive.writing.decode import Decoder, Record
from stream.archive.writing.writer import Batch, ChainWriter

SLATE = 20
USERS = 62_000
ITEMS = 5_000
TEXTS = 397_000
FEATURES = 41
HISTORY = 50
FLUSHES = {"1 minute": 54, "5 minutes": 270, "1 hour": 3_240}
"""Slates in a flush of one partition and region, at 400M impressions a day over 32 partitions and 8 regions."""

Attention = Literal["slate", "row"]


def audits(slates: int, attention: Attention, seed: int = 7) -> list[Audit]:
    """Make audit records of the shape that the pipeline gives, 20 impressions each."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.8
    popularity /= popularity.sum()
    items = [f"item-{number:05d}" for number in rng.permutation(ITEMS)]
    users = _pieces(rng.bytes(8 * USERS), 8)
    texts = _pieces(rng.bytes(8 * TEXTS), 8)
    features = [f"feature_{number}" for number in range(FEATURES)]
    made: list[Audit] = []
    for number in range(slates):
        history = [items[item] for item in rng.choice(ITEMS, HISTORY, p=popularity)]
        shown = rng.choice(ITEMS, SLATE, replace=False, p=popularity)
        weights = np.sort(rng.random((SLATE, 2)).astype(np.float32) / 2, axis=1)[:, ::-1]
        events = rng.integers(0, HISTORY, (SLATE, 2))
        if attention == "slate":
            weights[:], events[:] = weights[0], events[0]
        kinds = rng.choice(4, SLATE, p=[0.55, 0.2, 0.05, 0.2])
        scores = rng.normal(size=(SLATE, 2)).astype(np.float32)
        shap = rng.normal(size=(SLATE, 3)).astype(np.float32)
        names = rng.integers(0, FEATURES, (SLATE, 3))
        said = (rng.pareto(0.6, SLATE) * 50).astype(np.int64) % TEXTS
        made.append(
            Audit(
                request_id=rng.bytes(16),
                timestamp_ms=1_790_000_000_000 + number * 1_000 + int(rng.integers(0, 1_000)),
                user_id_hash=users[rng.integers(0, USERS)],
                region="EU",
                model_version="streamrec@1.0.0",
                policy="evidence",
                wording_hash=b"wordings",
                source_topic_id="0Qkz5bYFRX2nLcAe1mWgDw",
                source_partition=3,
                source_offset=987_654 + number,
                computation_time_ms=float(np.float32(rng.random())),
                ablations="deletion,blanking,masking",
                history=history,
                entries=[
                    {
                        "item_id": items[shown[place]],
                        "position": place + 1,
                        "ranking_score": float(scores[place, 0]),
                        "reranking_score": float(scores[place, 1]),
                        "explanation_type": EXPLANATION_TYPES[kinds[place]],
                        "status": STATUSES[(0, 1, 1, 2)[kinds[place]]],
                        "explanation_text_hash": texts[said[place]],
                        "shap_top_3": [
                            {"feature": features[names[place, rank]], "value": float(shap[place, rank])}
                            for rank in range(3)
                        ],
                        "attention_top_2": [
                            {"event": int(events[place, rank]), "weight": float(weights[place, rank])}
                            for rank in range(2)
                        ],
                        "cited": [int(events[place, 0])] if kinds[place] == 0 else [],
                    }
                    for place in range(SLATE)
                ],
            )
        )
    return made


def encoded(records: Sequence[Audit]) -> list[Record]:
    """Encode records as messages of the audit topic, plain Avro."""
    codec = Codec()
    made: list[Record] = []
    for offset, record in enumerate(records):
        message = codec.encode("audit", record, "explanation-audit")
        made.append(Record(3, offset, None, message.value, message.headers))
    return made


def sizes(records: Sequence[Audit], messages: Sequence[Record]) -> dict[str, float]:
    """Bytes per impression: on the bus, as flushed, and compacted (a day sorted by user, zstd 9)."""
    rows = SLATE * len(records)
    found = {"Avro on the bus": sum(len(message.value or b"") for message in messages) / rows}
    whole = to_slates(from_records("audit", records), np.arange(len(records), dtype=np.int64))
    for name, slates in FLUSHES.items():
        keep = np.arange(len(whole)) < slates
        part = whole.only(keep)
        found[f"Parquet, flushed every {name}"] = len(write(part.table)) / part.table.num_rows
    by_user = whole.table.take(
        pc.sort_indices(whole.table, [("user_id_hash", "ascending"), ("source_offset", "ascending")])
    )
    found["Parquet, compacted, row groups of 50,000"] = len(write(by_user, Layout(50_000, 9))) / rows
    found["Parquet, compacted, row groups of 20,000"] = len(write(by_user, Layout(20_000, 9))) / rows
    return found


def speeds(messages: Sequence[Record], take: int = 512) -> dict[str, float]:
    """Impressions a second on one core: bytes to columns, columns to a commit in memory, and both."""
    decoder = Decoder(Codec())
    decoder.decode(messages[:take])
    began = time.perf_counter()
    parts = [decoder.decode(messages[first : first + take])[0] for first in range(0, len(messages), take)]
    decoded = time.perf_counter()
    writer = ChainWriter(MemoryStore(), Chain("explanation-audit", 3), writer="bench")
    writer.open()
    writer.commit(Batch(0, len(messages), joined(parts)))
    done = time.perf_counter()
    rows = SLATE * len(messages)
    return {
        "decode": rows / (decoded - began),
        "sort, encode, hash, commit": rows / (done - decoded),
        "both": rows / (done - began),
    }


def _pieces(data: bytes, width: int) -> list[bytes]:
    return [data[place : place + width] for place in range(0, len(data), width)]


def main() -> None:
    """Print both tables, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slates", type=int, default=5_000)
    parser.add_argument("--attention", choices=["slate", "row"], default="slate")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    records = audits(arguments.slates, arguments.attention)
    messages = encoded(records)
    weighed = sizes(records, messages)
    sped = speeds(messages)
    print(f"{headline()}; {len(records):,} slates of {SLATE}, attention per {arguments.attention}")
    for name, bytes_per_row in weighed.items():
        print(f"  {name:<45}{bytes_per_row:>8.1f} bytes an impression")
    for name, rate in sped.items():
        print(f"  {name:<45}{rate:>8,.0f} impressions a second and core")
    if arguments.json is not None:
        report: dict[str, Any] = {"machine": describe(), "bytes_per_row": weighed, "rows_per_s": sped}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
