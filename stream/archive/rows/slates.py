"""Audit records as the archive's rows: one row for each impression.

An audit record describes one slate; its entries are the slate's impressions. :func:`rows_of` turns records, as
columns of ``schemas.columnar``, into the Arrow table that a segment is cut from. ``Slates`` adds, for each slate, what
the commit log needs to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columnar import from_records
from schemas.events import EXPLANATION_TYPES, STATUSES

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SHAP_VALUE: Final = pa.struct([pa.field("feature", pa.string(), False), pa.field("value", pa.float32(), False)])
ATTENTION: Final = pa.struct(
    [
        pa.field("item_id", pa.string(), False),
        pa.field("event", pa.int32(), False),
        pa.field("weight", pa.float32(), False),
    ]
)
SCHEMA: Final = pa.schema(
    [
        pa.field("timestamp_ms", pa.int64(), False),
        pa.field("request_id", pa.uuid(), False),
        pa.field("user_id_hash", pa.binary(8), False),
        pa.field("region", pa.string(), False),
        pa.field("item_id", pa.string(), False),
        pa.field("model_version", pa.string(), False),
        pa.field("position", pa.int32(), False),
        pa.field("ranking_score", pa.float32(), False),
        pa.field("reranking_score", pa.float32(), False),
        pa.field("explanation_type", pa.string(), False),
        pa.field("status", pa.string(), False),
        pa.field("explanation_text_hash", pa.binary(8), False),
        pa.field("shap_top_3", pa.list_(pa.field("element", SHAP_VALUE, False)), False),
        pa.field("attention_top_2", pa.list_(pa.field("element", ATTENTION, False)), False),
        pa.field("cited_items", pa.list_(pa.field("element", pa.string(), False)), False),
        pa.field("computation_time_ms", pa.float32(), False),
        pa.field("source_partition", pa.int32(), False),
        pa.field("source_offset", pa.int64(), False),
        pa.field("policy", pa.string()),
        pa.field("wording_hash", pa.binary(8)),
        pa.field("source_topic_id", pa.string()),
        pa.field("ablations", pa.string()),
    ]
)
"""The columns of a segment. ``event`` is an index into the session as it was sent, oldest first. The nullable columns
came with later versions of the audit schema; objects written before lack them, and are read with nulls there."""

_TYPES = pa.array(EXPLANATION_TYPES)
_STATUSES = pa.array(STATUSES)
_ONCE_A_RECORD: Final = [
    *("timestamp_ms", "request_id", "user_id_hash", "region", "model_version", "computation_time_ms"),
    *("source_partition", "source_offset", "policy", "wording_hash", "source_topic_id", "ablations"),
]
"""Fields that an audit record has once, and each of its rows repeats."""


@dataclass(frozen=True, slots=True)
class Slates:
    """``n`` slates and the table of their impressions, in the order of their offsets.

    offset int64 [n]: of the audit record in its partition. source_topic string [n], source_partition int32 [n],
    source_offset int64 [n]: of the impression event. rows int64 [n]: how many rows of ``table`` the slate has.
    """

    offset: Int64s
    source_topic: pa.StringArray
    source_partition: Int32s
    source_offset: Int64s
    rows: Int64s
    table: pa.Table

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def nbytes(self) -> int:
        """Memory of the columns, in bytes."""
        return int(self.table.nbytes + self.source_topic.nbytes) + 28 * len(self)

    def only(self, kept: Bools) -> Slates:
        """Return the slates for which ``kept`` (bool [n]) is true."""
        if kept.all():
            return self
        return Slates(
            self.offset[kept],
            self.source_topic.filter(pa.array(kept)),
            self.source_partition[kept],
            self.source_offset[kept],
            self.rows[kept],
            self.table.filter(pa.array(np.repeat(kept, self.rows))),
        )


def joined(parts: Sequence[Slates]) -> Slates:
    """Concatenate slates, keeping their order."""
    if not parts:
        return to_slates(from_records("audit", []), np.empty(0, np.int64))
    return Slates(
        np.concatenate([part.offset for part in parts]),
        pa.concat_arrays([part.source_topic for part in parts]),
        np.concatenate([part.source_partition for part in parts]),
        np.concatenate([part.source_offset for part in parts]),
        np.concatenate([part.rows for part in parts]),
        pa.concat_tables([part.table for part in parts]),
    )


def points_outside_history(records: pa.RecordBatch) -> Bools:
    """Say of each audit record whether an entry names an event that the record's history lacks: bool [n]."""
    lengths = _lengths(records["history"])
    slate = _parents(records["entries"])
    entries = _items(records["entries"])
    outside = np.zeros(len(records), np.bool_)
    for lists, event in (
        (entries["attention_top_2"], _items(entries["attention_top_2"])["event"].to_numpy()),
        (entries["cited"], entries["cited"].flatten().to_numpy()),
    ):
        owner = slate[_parents(lists)]
        outside[owner[(event < 0) | (event >= lengths[owner])]] = True
    return outside


def to_slates(records: pa.RecordBatch, offset: Int64s) -> Slates:
    """Turn n audit records, none of which :func:`points_outside_history`, into slates.

    ``offset`` int64 [n]: of each record in its partition of the audit topic.
    """
    return Slates(
        offset,
        records["source_topic_id"],
        records["source_partition"].to_numpy(),
        records["source_offset"].to_numpy(),
        _lengths(records["entries"]).astype(np.int64),
        rows_of(records),
    )


def rows_of(records: pa.RecordBatch) -> pa.Table:
    """Turn audit records, none of which :func:`points_outside_history`, into rows of SCHEMA, one for each entry.

    Fields of the record are repeated for each of its rows, and indices into its history become item ids.
    """
    lengths = _lengths(records["history"])
    history, first = records["history"].flatten(), np.cumsum(lengths, dtype=np.int64) - lengths
    slate = _parents(records["entries"])
    entries = _items(records["entries"])
    shap, attention, cited = (entries[name] for name in ("shap_top_3", "attention_top_2", "cited"))
    weights = _items(attention)

    def item_ids(lists: pa.ListArray, event: pa.Int32Array) -> pa.StringArray:
        return history.take(pa.array(first[slate[_parents(lists)]] + event.to_numpy()))

    attended = [item_ids(attention, weights["event"]), weights["event"], weights["weight"]]
    repeated = records.select(_ONCE_A_RECORD).take(pa.array(slate))
    columns = {
        **dict(zip(repeated.schema.names, repeated.columns, strict=True)),
        **dict(zip(entries.schema.names, entries.columns, strict=True)),
        "ablations": pc.if_else(pc.equal(repeated["ablations"], ""), None, repeated["ablations"]),
        "request_id": pa.ExtensionArray.from_storage(pa.uuid(), repeated["request_id"]),
        "explanation_type": _TYPES.take(entries["explanation_type"]),
        "status": _STATUSES.take(entries["status"]),
        "shap_top_3": _lists("shap_top_3", shap, _structs(SHAP_VALUE, _items(shap).columns)),
        "attention_top_2": _lists("attention_top_2", attention, _structs(ATTENTION, attended)),
        "cited_items": _lists("cited_items", cited, item_ids(cited, cited.flatten())),
    }
    return pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _lengths(lists: pa.ListArray) -> Int32s:
    lengths: Int32s = lists.value_lengths().to_numpy()
    return lengths


def _parents(lists: pa.ListArray) -> Int64s:
    """Return the index of the list that each item is in."""
    parents: Int64s = pc.list_parent_indices(lists).to_numpy()
    return parents


def _items(lists: pa.ListArray) -> pa.RecordBatch:
    """Return the records of all lists as columns."""
    return pa.RecordBatch.from_struct_array(lists.flatten())


def _structs(kind: pa.StructType, columns: Sequence[pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def _lists(name: str, like: pa.ListArray, values: pa.Array) -> pa.ListArray:
    """Build a column of lists that are as long as the lists of ``like``."""
    edges = np.zeros(len(like) + 1, np.int32)
    np.cumsum(_lengths(like), out=edges[1:])
    return pa.ListArray.from_arrays(pa.array(edges), values, type=SCHEMA.field(name).type)
