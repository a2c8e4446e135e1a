"""One user's rows out of a large archive: how much of it is read, by ``whyrec archive pull`` and by stock DuckDB.

The default is one day of one region at 400M impressions a day over 8 regions and 32 partitions, as the tier task leaves
it: an object for each partition, sorted by user, 90 impressions a user, who are where Kafka's partitioner puts them.
Random where real rows are hard to compress, as in ``bench.archive``. ``--cost`` prints what the archive costs a month,
from the bytes per row just measured.

Run: python -m bench.pull [--rows N] [--keep FOLDER] [--cost] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from bench.cost import monthly
from bench.machine import describe, headline
from schemas.columnar import arrow_schema
from stream.archive.aging import compact
from stream.archive.log import changes, commitlog
from stream.archive.log.changes import State, Transaction
from stream.archive.log.commitlog import Chain, ObjectRef, Tail, Written
from stream.archive.log.intervals import Intervals
from stream.archive.log.names import ObjectName, Place
from stream.archive.log.sources import Source
from stream.archive.objects import Store
from stream.archive.proof import snapshot
from stream.archive.reading import pull, view
from stream.archive.reading.pull import Counted, Query, Reads, Scope
from stream.archive.rows import partitioner, segment
from stream.archive.rows.slates import rows_of
from stream.archive.store import open_store

SLATE = 20
PER_USER = 90
ITEMS, FEATURES, HISTORY, TEXTS = 5_000, 41, 8, 397_000
FIRST_DAY = 20_750
"""Days since 1970: 2026-10-24."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one way of reading took; ``share`` is of the archive's bytes."""

    rows: int
    bytes: int
    share: float
    reads: int
    reads_per_place: float
    seconds: float


def users_of(count: int, partition: int, partitions: int) -> npt.NDArray[np.uint8]:
    """Draw users whom Kafka's partitioner puts into a partition: uint8 [count, 8]."""
    rng = np.random.default_rng(partition)
    drawn = rng.integers(0, 256, (2 * partitions * count + 1_000, 8), dtype=np.uint8)
    return np.asarray(drawn[partitioner.numbers(drawn) % partitions == partition][:count])


def audits(
    rng: np.random.Generator, slates: int, users: npt.NDArray[np.uint8], partition: int, day: int
) -> pa.RecordBatch:
    """Draw audit records of 20 impressions each, as columns, with no Python object for an impression."""
    m = SLATE * slates
    items = pa.array([f"item-{number:05d}" for number in range(ITEMS)])
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.8
    edges = np.cumsum(popularity / popularity.sum())

    def drawn(count: int) -> Any:
        return np.minimum(np.searchsorted(edges, rng.random(count)), ITEMS - 1)

    def same(text: str) -> pa.StringArray:
        return pa.DictionaryArray.from_arrays(np.zeros(slates, np.int32), pa.array([text])).dictionary_decode()

    place = np.tile(np.arange(SLATE, dtype=np.int32), slates)
    texts = rng.integers(0, 2**63, TEXTS, dtype=np.int64)
    said = (rng.pareto(0.6, m) * 50).astype(np.int64) % TEXTS
    kinds = rng.choice(4, m, p=[0.55, 0.2, 0.05, 0.2]).astype(np.int32)
    cited = (kinds == 0).astype(np.int32)
    weights = np.sort(rng.random((slates, 2)).astype(np.float32) / 2, axis=1)[:, ::-1]
    features = pa.array([f"feature_{number}" for number in range(FEATURES)])
    shap = {
        "feature": features.take(pa.array(rng.integers(0, FEATURES, 3 * m))),
        "value": rng.normal(size=3 * m).astype(np.float32),
    }
    attention = {
        "event": np.repeat(rng.integers(0, HISTORY, (slates, 2)), SLATE, axis=0).ravel().astype(np.int32),
        "weight": np.repeat(weights, SLATE, axis=0).ravel(),
    }
    entries = {
        "item_id": items.take(pa.array(drawn(m) // SLATE * SLATE + place)),  # none twice in a slate
        "position": place + 1,
        "ranking_score": rng.normal(size=m).astype(np.float32),
        "reranking_score": rng.normal(size=m).astype(np.float32),
        "explanation_type": kinds,
        "status": np.array([0, 1, 1, 2], np.int32)[kinds],
        "explanation_text_hash": _fixed(texts[said].tobytes(), 8),
        "shap_top_3": _lists(np.full(m, 3), _structs(shap)),
        "attention_top_2": _lists(np.full(m, 2), _structs(attention)),
        "cited": _lists(cited, pa.array(rng.integers(0, HISTORY, int(cited.sum())).astype(np.int32))),
    }
    records = {
        "request_id": _fixed(rng.bytes(16 * slates), 16),
        "timestamp_ms": np.sort(rng.integers(0, segment.DAY_MS, slates)) + (FIRST_DAY + day) * segment.DAY_MS,
        "user_id_hash": _fixed(users[rng.integers(0, len(users), slates)].tobytes(), 8),
        "region": same("EU"),
        "model_version": same("streamrec@1.0.0"),
        "policy": same("evidence"),
        "wording_hash": _fixed(b"wordhash" * slates, 8),
        "source_topic_id": same("AAAAAAAAAAAAAAAAAAAAAA"),
        "source_partition": np.full(slates, partition, np.int32),
        "source_offset": np.arange(slates, dtype=np.int64) + day * slates,
        "computation_time_ms": rng.random(slates).astype(np.float32),
        "ablations": same("deletion,blanking,masking"),
        "history": _lists(np.full(slates, HISTORY), items.take(pa.array(drawn(HISTORY * slates)))),
        "entries": _lists(np.full(slates, SLATE), _structs(entries)),
    }
    return pa.RecordBatch.from_pydict(records, schema=arrow_schema("audit"))


def _fixed(joined: bytes, width: int) -> pa.FixedSizeBinaryArray:
    count = len(joined) // width
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, pa.py_buffer(joined)])


def _structs(columns: dict[str, Any]) -> pa.StructArray:
    return pa.StructArray.from_arrays([pa.array(column) for column in columns.values()], names=list(columns))


def _lists(lengths: npt.NDArray[np.integer[Any]], values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)), values)


def generate(store: Store, rows: int, partitions: int, days: int, seed: int = 7) -> int:
    """Fill an archive as sinks and the tier task do, and return how many rows it has.

    What a sink wrote is only named, since the tier task has deleted it.
    """
    rng = np.random.default_rng(seed)
    slates = max(1, rows // (SLATE * partitions * days))
    users = max(1, slates * SLATE // PER_USER)
    states: dict[Place, State] = {}
    for partition in range(partitions):
        chain, tail = Chain("explanation-audit", partition), Tail()
        owners = users_of(users, partition, partitions)
        for day in range(days):
            place = Place(str(np.datetime64(FIRST_DAY + day, "D")), "EU")
            state = states.get(place, State())
            tables = [rows_of(audits(rng, slates, owners, partition, day))]
            made = compact.merged(tables, place, chain, state.number)
            store.put_if_absent(made.ref.key, made.data)
            flushed = ObjectName("", place, chain, tail.next, None, made.ref.sha256[:16]).key
            refs = (ObjectRef(flushed, made.ref.sha256, made.ref.bytes, made.ref.rows),)
            first = day * slates
            new = {Source("", partition): Intervals(((first, first + slates),))}
            written = Written(tail.next + slates, refs, 0, Intervals(), (), new)
            entry = commitlog.append(tail, chain, written, origin=None, writer="bench", written_at_ms=0)
            encoded = commitlog.encode(entry)
            store.put_if_absent(chain.key(entry.first), encoded)
            tail = commitlog.tail_after(entry, encoded)
            done = Transaction("compacted", refs, (made.ref,), made.content)
            change = changes.append(state, place, done, holds=0, who="bench", written_at_ms=0)
            store.put_if_absent(change.key, changes.encode(change))
            states[place] = state.after(change, changes.encode(change))
    return slates * SLATE * partitions * days


class CountedFiles(LocalFileSystem):  # type: ignore[misc]
    """Local files that tell what DuckDB reads of them."""

    protocol = "counted"
    reads = Reads()

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return Counted(Path(path).open(mode), CountedFiles.reads)  # type: ignore[arg-type]

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return LocalFileSystem._strip_protocol(path.removeprefix("counted://"))  # noqa: SLF001


def by_whyrec(store: Store, query: Query, whole: int) -> Measured:
    """Pull a query, from the snapshot to the last row."""
    began = time.perf_counter()
    reads = Reads()
    refs = [ref for ref in snapshot.take(store, query.scope).objects if query.reaches(ref)]
    rows = sum(table.num_rows for table in pull.rows(store, refs, query, reads))
    return _measured(rows, reads, whole, _places(refs), time.perf_counter() - began)


def by_duckdb(store: Store, query: Query, whole: int) -> Measured:
    """Ask stock DuckDB for the same, all columns, over the objects of the view."""
    refs = [ref for ref in snapshot.take(store, query.scope).objects if query.reaches(ref)]
    reads = CountedFiles.reads = Reads()
    began = time.perf_counter()
    with duckdb.connect(":memory:") as connection:
        connection.register_filesystem(fsspec.filesystem("counted", skip_instance_cache=True))
        connection.execute("SET threads = 1")
        connection.execute(view.statement(f"counted://{store.url}", refs))
        asked = f"SELECT * FROM {view.NAME} WHERE user_id_hash = from_hex('{query.user}')"  # noqa: S608
        rows = len(connection.sql(asked).fetchall())
    return _measured(rows, reads, whole, _places(refs), time.perf_counter() - began)


def _measured(rows: int, reads: Reads, whole: int, places: int, seconds: float) -> Measured:
    return Measured(rows, reads.bytes, reads.bytes / whole, reads.count, reads.count / places, seconds)


def _places(refs: list[ObjectRef]) -> int:
    return len({ref.key.rpartition("/")[0] for ref in refs})


def main() -> None:
    """Generate, pull, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--partitions", type=int, default=32)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder to generate into, and to use again")
    parser.add_argument("--cost", action="store_true", help="also print what the archive would cost a month")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="whyrec-pull-"))
    try:
        report = measure(folder, arguments.rows, arguments.partitions, arguments.days)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.cost:
        print(monthly(report["bytes_per_row"]))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": describe(), **report}, indent=2) + "\n")


def measure(folder: Path, rows: int, partitions: int, days: int) -> dict[str, Any]:
    """Print the table, and return it."""
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    store = open_store(str(folder))
    if not any(store.list(commitlog.COMMITS)):
        generate(store, rows, partitions, days)
    first, last = (str(np.datetime64(FIRST_DAY + day, "D")) for day in (0, days - 1))
    scope = Scope(first, last)
    refs = snapshot.take(store, scope).objects
    whole, count = sum(ref.bytes for ref in refs), sum(ref.rows for ref in refs)
    partition = partitions // 2
    owners = max(1, rows // (partitions * days) // PER_USER)
    user = users_of(owners, partition, partitions)[owners // 2].tobytes().hex()
    print(f"{headline()}\n{count:,} rows, {whole:,} bytes, {whole / count:.1f} a row, {len(refs):,} objects")
    print(f"{'one user':<42}{'rows':>6}{'bytes read':>14}{'share':>10}{'reads':>8}{'per date, region':>18}{'s':>7}")
    found: dict[str, Measured] = {}
    for known in (partition, None):
        query = Query(scope, user=user, partition=known)
        where = "its partition known" if known is not None else "any partition"
        for name, way in (("whyrec archive pull", by_whyrec), ("stock DuckDB", by_duckdb)):
            result = found[f"{name}, {where}"] = way(store, query, whole)
            print(
                f"{f'{name}, {where}':<42}{result.rows:>6,}{result.bytes:>14,}{result.share:>10.4%}{result.reads:>8,}"
                f"{result.reads_per_place:>18.1f}{result.seconds:>7.2f}"
            )
    return {
        "rows": count,
        "bytes": whole,
        "bytes_per_row": whole / count,
        "ways": {name: asdict(result) for name, result in found.items()},
    }


if __name__ == "__main__":
    main()
