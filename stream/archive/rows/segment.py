"""Parquet segments: the bytes and the keys of the objects of one flush. Pure.

Equal rows give equal bytes (with the same version of pyarrow), so a repeated flush writes the same objects.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream.archive.log.commitlog import Chain, ObjectRef
from stream.archive.log.names import SegmentName
from stream.archive.rows.slates import SCHEMA

DAY_MS: Final = 86_400_000
EARLIEST_MS: Final = -62_135_596_800_000  # 0001-01-01
LATEST_MS: Final = 253_402_300_799_999  # 9999-12-31, the last day that ISO 8601 writes with four digits
LONGEST_REGION: Final = 200
"""Characters of a quoted region in a path, at most. File systems allow 255 bytes for a name."""

_DICTIONARY = [
    *("model_version", "policy", "wording_hash", "region", "explanation_type", "status"),
    *("source_topic_id", "source_partition", "ablations"),
    *("shap_top_3.list.element.feature", "attention_top_2.list.element.event"),
]
# Floats rarely repeat, so a dictionary would not compress them. Their bytes grouped by significance do compress.
_SPLIT = [
    *("timestamp_ms", "ranking_score", "reranking_score", "computation_time_ms", "source_offset"),
    *("shap_top_3.list.element.value", "attention_top_2.list.element.weight"),
]
_ONE_PAGE: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of an object: rows in a row group, the unit that readers skip or read, and the level of zstd."""

    rows_per_group: int
    level: int


FLUSHED: Final = Layout(50_000, 3)

COMPACTED: Final = Layout(20_000, 9)
"""A Parquet reader that looks for one user reads one row group. Smaller ones would cost more in the footer than they
save. The high level of zstd pays because the object is written once and kept for two years."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One Parquet object: how its entry names it, and its bytes."""

    ref: ObjectRef
    data: bytes


def placeable(timestamp_ms: npt.NDArray[np.int64], regions: pa.StringArray) -> npt.NDArray[np.bool_]:
    """Say for each row whether a key can name its place (year of four digits, region short enough): bool [n]."""
    dated = (timestamp_ms >= EARLIEST_MS) & (timestamp_ms <= LATEST_MS)
    coded = pc.dictionary_encode(regions)
    fits = [0 < len(quote(region, safe="")) <= LONGEST_REGION for region in coded.dictionary.to_pylist()]
    named = np.array(fits, np.bool_)[coded.indices.to_numpy()]
    return np.asarray(dated & named)


def segments(table: pa.Table, chain: Chain, first: int) -> Iterator[Segment]:
    """Split rows by date and region, keeping their order, and yield one segment for each.

    ``table`` has the schema :data:`stream.archive.rows.slates.SCHEMA`. ``first`` is the first offset of the commit. The
    date is that of the event, in UTC.
    """
    if table.num_rows == 0:
        return
    days = np.floor_divide(table["timestamp_ms"].to_numpy(), DAY_MS)
    regions = pc.dictionary_encode(table["region"].combine_chunks())
    names = regions.dictionary.to_pylist()
    codes = regions.indices.to_numpy()
    # Sorted by name, not by code: the order of the objects must not depend on which region comes first in the rows.
    places = sorted({(day, names[code], code) for day, code in np.unique(np.stack([days, codes]), axis=1).T.tolist()})
    for day, region, code in places:
        rows = table.filter(pa.array((days == day) & (codes == code))) if len(places) > 1 else table
        yield _segment(rows, day, region, chain, first)


def write(table: pa.Table, layout: Layout = FLUSHED) -> bytes:
    """Encode rows as Parquet. Equal rows give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(
        table.combine_chunks(),
        sink,
        row_group_size=layout.rows_per_group,
        use_dictionary=_DICTIONARY,
        column_encoding=dict.fromkeys(_SPLIT, "BYTE_STREAM_SPLIT"),
        compression="zstd",
        compression_level=layout.level,
        data_page_size=_ONE_PAGE,
        dictionary_pagesize_limit=_ONE_PAGE,
        max_rows_per_page=layout.rows_per_group,
        store_schema=False,
    )
    return sink.getvalue()


def read(data: bytes) -> pa.Table:
    """Decode a segment.

    Raises:
        pyarrow.ArrowException: the bytes are not Parquet, or have other columns.

    """
    found: pa.Table = pq.read_table(pa.BufferReader(data))
    return current(found).cast(SCHEMA)


def current(table: pa.Table) -> pa.Table:
    """Add the columns that an older object lacks, as nulls, and put the columns in the order of SCHEMA."""
    for column in SCHEMA:
        if column.nullable and column.name not in table.schema.names:
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    return table.select([name for name in SCHEMA.names if name in table.schema.names])


def _segment(rows: pa.Table, day: int, region: str, chain: Chain, first: int) -> Segment:
    data = write(rows)
    digest = hashlib.sha256(data).hexdigest()
    date = (dt.date(1970, 1, 1) + dt.timedelta(days=day)).isoformat()
    key = SegmentName(date, region, chain, first, digest[:16]).key
    return Segment(ObjectRef(key, digest, len(data), rows.num_rows), data)
