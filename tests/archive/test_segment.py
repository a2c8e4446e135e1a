"""Segments: every field survives, the same rows give the same bytes, and stock DuckDB reads them as they stand."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columnar import from_records
from stream.archive.log.commitlog import Chain
from stream.archive.log.names import segment_name
from stream.archive.rows.segment import Segment, placeable, read, segments, write
from stream.archive.rows.slates import SCHEMA, Slates, joined, points_outside_history
from tests.archive.slates_of import audit, slates
from tests.strategies import audits, same

CHAIN = Chain("explanation-audit", 2)


def cut(made: Slates, first: int = 0) -> list[Segment]:
    return list(segments(made.table, CHAIN, first))


def sound(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    dangling = points_outside_history(from_records("audit", records))
    return [record for record, bad in zip(records, dangling, strict=True) if not bad]


@settings(max_examples=50)
@given(st.lists(audits, max_size=4).map(sound))
def test_every_field_of_every_entry_is_in_its_row(records: list[dict[str, Any]]) -> None:
    rows = read(write(slates(records).table)).to_pylist()
    expected = [(record, entry) for record in records for entry in record["entries"]]
    assert len(rows) == len(expected)
    for row, (record, entry) in zip(rows, expected, strict=True):
        history = record["history"]
        assert same(
            row,
            {
                "timestamp_ms": record["timestamp_ms"],
                "request_id": uuid.UUID(bytes=record["request_id"]),
                "user_id_hash": record["user_id_hash"],
                "region": record["region"],
                "item_id": entry["item_id"],
                "model_version": record["model_version"],
                "position": entry["position"],
                "ranking_score": entry["ranking_score"],
                "reranking_score": entry["reranking_score"],
                "explanation_type": entry["explanation_type"],
                "status": entry["status"],
                "explanation_text_hash": entry["explanation_text_hash"],
                "shap_top_3": entry["shap_top_3"],
                "attention_top_2": [
                    {"item_id": history[each["event"]], "event": each["event"], "weight": each["weight"]}
                    for each in entry["attention_top_2"]
                ],
                "cited_items": [history[event] for event in entry["cited"]],
                "computation_time_ms": record["computation_time_ms"],
                "source_partition": record["source_partition"],
                "source_offset": record["source_offset"],
                "policy": record["policy"],
                "wording_hash": record["wording_hash"],
                "source_topic_id": record["source_topic_id"],
                "ablations": record["ablations"] or None,
            },
        )


def test_an_object_from_before_a_column_came_is_read_with_nulls() -> None:
    newer = ["policy", "wording_hash", "source_topic_id"]
    table = slates([audit(0), audit(1)]).table
    sink = io.BytesIO()
    pq.write_table(table.drop_columns(newer), sink)
    older = read(sink.getvalue())
    assert older.schema == SCHEMA
    assert older.drop_columns(newer).equals(table.drop_columns(newer))
    assert [older[name].null_count for name in newer] == [4, 4, 4]


@pytest.mark.parametrize("event", [-1, 2])
@pytest.mark.parametrize("where", ["attention", "cited"])
def test_an_index_outside_the_history_is_found(event: int, where: str) -> None:
    records = [audit(0), audit(1), audit(2)]
    if where == "cited":
        records[1]["entries"][1]["cited"] = [event]
    else:
        records[1]["entries"][1]["attention_top_2"] = [{"event": event, "weight": 1.0}]
    assert points_outside_history(from_records("audit", records)).tolist() == [False, True, False]


def test_the_same_rows_give_the_same_bytes_however_they_came() -> None:
    records = [audit(offset, day=offset % 2, region="US" if offset % 3 else "EU") for offset in range(30)]
    at_once = cut(slates(records))
    in_parts = cut(joined([slates(records[:7], 0), slates(records[7:8], 7), slates(records[8:], 8)]))
    assert at_once == in_parts
    assert len(at_once) == 4


def test_rows_go_to_the_date_and_region_of_their_event_in_utc() -> None:
    records = [audit(0), audit(1, day=1), audit(2, region="US")]
    records[0]["timestamp_ms"] = 1_767_225_599_999  # 2025-12-31T23:59:59.999Z
    records[1]["timestamp_ms"] = 1_767_225_600_000  # 2026-01-01T00:00:00Z
    records[2]["timestamp_ms"] = -1  # 1969-12-31T23:59:59.999Z
    made = cut(slates(records), first=17)
    assert [segment.ref.key.rpartition("/")[0] for segment in made] == [
        "date=1969-12-31/region=US",
        "date=2025-12-31/region=EU",
        "date=2026-01-01/region=EU",
    ]
    for segment in made:
        name = segment_name(segment.ref.key)
        assert name is not None
        assert (name.chain, name.first, segment.ref.rows) == (CHAIN, 17, 2)
        assert segment.ref.sha256.startswith(name.digest)


def test_no_rows_make_no_object() -> None:
    assert cut(slates([])) == []
    assert cut(slates([audit(0, items=0)])) == []


@pytest.mark.parametrize("region", ["a/b", "..", ".", "ü x", "a=b", "100%", "x" * 60])
def test_an_odd_region_stays_in_its_folder_and_is_read_back(tmp_path: Path, region: str) -> None:
    (segment,) = cut(slates([audit(0, region=region)]))
    name = segment_name(segment.ref.key)
    assert name is not None
    assert name.region == region
    assert segment.ref.key.count("/") == 2
    path = tmp_path / segment.ref.key
    path.parent.mkdir(parents=True)
    path.write_bytes(segment.data)
    found = duckdb.execute("SELECT DISTINCT region FROM read_parquet(?)", [f"{tmp_path}/*/*/*.parquet"]).fetchall()
    assert found == [(region,)]


def test_a_date_or_region_that_cannot_name_a_folder_is_said_to_have_no_place() -> None:
    regions = pa.array(["EU", "EU", "", "ü" * 200, "EU"])
    times = np.array([2**63 - 1, -(2**63), 0, 0, 0])
    assert placeable(times, regions).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    "key",
    [
        "date=2026-13-01/region=EU/t-0-00000000000000000000-0123456789abcdef.parquet",
        "date=2026-01-01/region=a b/t-0-00000000000000000000-0123456789abcdef.parquet",
        "date=2026-01-01/region=EU/t-0-0-0123456789abcdef.parquet",
        "date=2026-01-01/region=EU/other.parquet",
        "x.parquet",
    ],
)
def test_other_keys_are_no_segments(key: str) -> None:
    assert segment_name(key) is None


def test_stock_duckdb_reads_the_archive_as_it_stands(tmp_path: Path) -> None:
    records = [audit(offset, day=offset % 2, region="US" if offset < 4 else "EU") for offset in range(10)]
    for segment in cut(slates(records)):
        path = tmp_path / segment.ref.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(segment.data)
    found = duckdb.execute(
        """
        SELECT date::VARCHAR, request_id::VARCHAR, lower(hex(user_id_hash)), position, ranking_score,
               shap_top_3[1].feature, attention_top_2[1].item_id, cited_items[1], source_offset
        FROM read_parquet(?) WHERE region = 'US' AND date = '2026-09-22' ORDER BY item_id
        """,
        [f"{tmp_path}/*/*/*.parquet"],
    ).fetchall()
    assert len(found) == 4
    assert found[0] == (
        "2026-09-22",
        "00000000-0000-0000-0000-000000000001",
        "0000000000000001",
        1,
        0.25,
        "session_score",
        "past-b",
        "past-b",
        1,
    )


@pytest.mark.slow
def test_row_groups_are_small_enough_to_skip() -> None:
    import pyarrow.parquet as pq

    made = slates([audit(offset, items=500) for offset in range(210)])
    found = pq.ParquetFile(pa.BufferReader(write(made.table))).metadata
    assert [found.row_group(group).num_rows for group in range(found.num_row_groups)] == [50_000, 50_000, 5_000]


def test_filtering_slates_keeps_their_rows_together() -> None:
    made = slates([audit(0, items=1), audit(1, items=3), audit(2, items=0), audit(3, items=2)], first=5)
    kept = made.only(np.array([False, True, True, True]))
    assert kept.offset.tolist() == [6, 7, 8]
    assert kept.table["source_offset"].to_pylist() == [1, 1, 1, 3, 3]
    assert kept.table.schema == SCHEMA
    assert joined([]).table.num_rows == 0
