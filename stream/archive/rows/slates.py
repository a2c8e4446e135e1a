"""Audit records as columns: one row for each impression, one small array element for each slate.

``Fields`` is what a decoder fills: flat arrays, in the order of the Avro schema. :func:`arrange` turns them into
``Slates``: the Arrow table that a segment is cut from, and per slate what the commit log needs to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.events import EXPLANATION_TYPES, STATUSES, Audit

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
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
    ]
)
"""The columns of a segment. ``event`` is an index into the session as it was sent, oldest first. What may be null came
with version 2 of the audit schema: older objects lack the column, and reading them gives nulls."""

_TYPES = pa.array(EXPLANATION_TYPES)
_STATUSES = pa.array(STATUSES)
_TYPE_CODES = {name: code for code, name in enumerate(EXPLANATION_TYPES)}
_STATUS_CODES = {name: code for code, name in enumerate(STATUSES)}


@dataclass(frozen=True, slots=True)
class Fields:
    """``n`` slates with ``m`` entries in all, field by field; strings are Arrow arrays, hashes are joined bytes."""

    offset: Int64s  # of the audit record in its partition [n]
    request_id: bytes  # [16 n]
    timestamp_ms: Int64s
    user_id_hash: bytes  # [8 n]
    region: pa.StringArray
    model_version: pa.StringArray
    policy: pa.StringArray
    wording_hash: bytes  # [8 n]
    source_topic_id: pa.StringArray
    source_partition: Int32s
    source_offset: Int64s
    computation_time_ms: Float32s
    histories: Int32s  # length of each slate's history [n]
    history: pa.StringArray
    entries: Int32s  # entries of each slate [n]
    item_id: pa.StringArray  # [m]
    position: Int32s
    ranking_score: Float32s
    reranking_score: Float32s
    explanation_type: Int32s  # index into EXPLANATION_TYPES
    status: Int32s  # index into STATUSES
    explanation_text_hash: bytes  # [8 m]
    shap: Int32s  # SHAP values of each entry [m]
    shap_feature: pa.StringArray
    shap_value: Float32s
    attention: Int32s  # attention weights of each entry [m]
    attention_event: Int32s
    attention_weight: Float32s
    cited: Int32s  # citations of each entry [m]
    cited_event: Int32s


@dataclass(frozen=True, slots=True)
class Slates:
    """``n`` slates and the table of their impressions, in the order of their offsets."""

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
        """Memory that the columns take, in bytes."""
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
    """Put several runs of slates behind one another."""
    if not parts:
        return arrange(fields_of([], np.empty(0, np.int64)))
    return Slates(
        np.concatenate([part.offset for part in parts]),
        pa.concat_arrays([part.source_topic for part in parts]),
        np.concatenate([part.source_partition for part in parts]),
        np.concatenate([part.source_offset for part in parts]),
        np.concatenate([part.rows for part in parts]),
        pa.concat_tables([part.table for part in parts]),
    )


def unsound(fields: Fields) -> Bools:
    """Say of each slate (bool [n]) whether an entry points outside its history; such a record can't be arranged."""
    slate = np.repeat(np.arange(len(fields.offset)), fields.entries)
    bad = np.zeros(len(fields.offset), np.bool_)
    for counts, events in ((fields.attention, fields.attention_event), (fields.cited, fields.cited_event)):
        owner = np.repeat(slate, counts)
        bad[owner[(events < 0) | (events >= fields.histories[owner])]] = True
    return bad


def arrange(fields: Fields) -> Slates:
    """Build the table: what a slate has once is repeated for each of its impressions, indices become item ids."""
    slate = np.repeat(np.arange(len(fields.offset)), fields.entries)
    each = pa.array(slate)
    history_start = np.cumsum(fields.histories, dtype=np.int64) - fields.histories

    def past_items(counts: Int32s, events: Int32s) -> pa.StringArray:
        return fields.history.take(pa.array(history_start[np.repeat(slate, counts)] + events))

    shap = pa.StructArray.from_arrays([fields.shap_feature, pa.array(fields.shap_value)], fields=list(SHAP_VALUE))
    attention = pa.StructArray.from_arrays(
        [
            past_items(fields.attention, fields.attention_event),
            pa.array(fields.attention_event),
            pa.array(fields.attention_weight),
        ],
        fields=list(ATTENTION),
    )
    columns = {
        "timestamp_ms": pa.array(fields.timestamp_ms[slate]),
        "request_id": pa.ExtensionArray.from_storage(pa.uuid(), _fixed(fields.request_id, 16).take(each)),
        "user_id_hash": _fixed(fields.user_id_hash, 8).take(each),
        "region": fields.region.take(each),
        "item_id": fields.item_id,
        "model_version": fields.model_version.take(each),
        "position": pa.array(fields.position),
        "ranking_score": pa.array(fields.ranking_score),
        "reranking_score": pa.array(fields.reranking_score),
        "explanation_type": _TYPES.take(pa.array(fields.explanation_type)),
        "status": _STATUSES.take(pa.array(fields.status)),
        "explanation_text_hash": _fixed(fields.explanation_text_hash, 8),
        "shap_top_3": _lists("shap_top_3", fields.shap, shap),
        "attention_top_2": _lists("attention_top_2", fields.attention, attention),
        "cited_items": _lists("cited_items", fields.cited, past_items(fields.cited, fields.cited_event)),
        "computation_time_ms": pa.array(fields.computation_time_ms[slate]),
        "source_partition": pa.array(fields.source_partition[slate]),
        "source_offset": pa.array(fields.source_offset[slate]),
        "policy": fields.policy.take(each),
        "wording_hash": _fixed(fields.wording_hash, 8).take(each),
        "source_topic_id": fields.source_topic_id.take(each),
    }
    return Slates(
        fields.offset,
        fields.source_topic_id,
        fields.source_partition,
        fields.source_offset,
        fields.entries.astype(np.int64),
        pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA),
    )


def fields_of(records: Sequence[Audit], offsets: Int64s) -> Fields:
    """Take decoded records apart; ``offsets`` int64 [n] are theirs in the audit partition."""
    entries = [entry for record in records for entry in record["entries"]]
    shap = [value for entry in entries for value in entry["shap_top_3"]]
    attention = [weight for entry in entries for weight in entry["attention_top_2"]]
    return Fields(
        offset=offsets,
        request_id=b"".join(record["request_id"] for record in records),
        timestamp_ms=_numbers([record["timestamp_ms"] for record in records], np.int64),
        user_id_hash=b"".join(record["user_id_hash"] for record in records),
        region=pa.array([record["region"] for record in records], pa.string()),
        model_version=pa.array([record["model_version"] for record in records], pa.string()),
        policy=pa.array([record["policy"] for record in records], pa.string()),
        wording_hash=b"".join(record["wording_hash"] for record in records),
        source_topic_id=pa.array([record["source_topic_id"] for record in records], pa.string()),
        source_partition=_numbers([record["source_partition"] for record in records], np.int32),
        source_offset=_numbers([record["source_offset"] for record in records], np.int64),
        computation_time_ms=_numbers([record["computation_time_ms"] for record in records], np.float32),
        histories=_numbers([len(record["history"]) for record in records], np.int32),
        history=pa.array(list(chain.from_iterable(record["history"] for record in records)), pa.string()),
        entries=_numbers([len(record["entries"]) for record in records], np.int32),
        item_id=pa.array([entry["item_id"] for entry in entries], pa.string()),
        position=_numbers([entry["position"] for entry in entries], np.int32),
        ranking_score=_numbers([entry["ranking_score"] for entry in entries], np.float32),
        reranking_score=_numbers([entry["reranking_score"] for entry in entries], np.float32),
        explanation_type=_numbers([_TYPE_CODES[entry["explanation_type"]] for entry in entries], np.int32),
        status=_numbers([_STATUS_CODES[entry["status"]] for entry in entries], np.int32),
        explanation_text_hash=b"".join(entry["explanation_text_hash"] for entry in entries),
        shap=_numbers([len(entry["shap_top_3"]) for entry in entries], np.int32),
        shap_feature=pa.array([value["feature"] for value in shap], pa.string()),
        shap_value=_numbers([value["value"] for value in shap], np.float32),
        attention=_numbers([len(entry["attention_top_2"]) for entry in entries], np.int32),
        attention_event=_numbers([weight["event"] for weight in attention], np.int32),
        attention_weight=_numbers([weight["weight"] for weight in attention], np.float32),
        cited=_numbers([len(entry["cited"]) for entry in entries], np.int32),
        cited_event=_numbers([event for entry in entries for event in entry["cited"]], np.int32),
    )


def _numbers(values: list[Any], dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.array(values, dtype=dtype)


def _fixed(joined_bytes: bytes, width: int) -> pa.FixedSizeBinaryArray:
    buffers = [None, pa.py_buffer(joined_bytes)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(joined_bytes) // width, buffers)


def _lists(name: str, counts: Int32s, values: pa.Array) -> pa.ListArray:
    edges = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=edges[1:])
    return pa.ListArray.from_arrays(pa.array(edges), values, type=SCHEMA.field(name).type)
