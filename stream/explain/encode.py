"""Encode: the columns of all stages as explanation and audit events in Arrow.

``schemas.columnar`` turns the events into Avro bytes or records. Whatever stands once in the bundle (titles, feature
names) is taken from arrays by index; whatever was sent is passed through.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.bundle import Bundle
from models.feature import shown_as
from schemas.columnar import nested_records
from schemas.events import MISMATCHES, Detail
from stream.explain.findings import Findings
from stream.explain.select import MISMATCH, Selection
from stream.explain.slates import Bools, Ints, Slates
from stream.explain.word import Texts
from stream.explain.wording import wording_hash

AUDITED_FEATURES: Final = 3
AUDITED_EVENTS: Final = 2
TEXT_HASH_BYTES: Final = 8

Columns = dict[str, pa.Array]


def text_hash(text: str) -> bytes:
    """Return the first 8 bytes of SHA-256 of the exact text in UTF-8, which pin the text in the audit record."""
    return sha256(text.encode()).digest()[:TEXT_HASH_BYTES]


class Encoder:
    """Lays out explanations and audit records of one bundle and policy."""

    def __init__(self, bundle: Bundle, policy: str, ablations: Sequence[str]) -> None:
        """Prepare to lay out; ``ablations``: the names of those that confirm the citations of this bundle."""
        self._ablations = list(ablations)
        self._model_version = bundle.model_version
        self._policy = policy
        # Index 0 of the catalogue is the unknown item.
        self._item_ids = pa.array(["", *bundle.catalog.item_ids])
        self._titles = pa.array(["", *bundle.catalog.titles])
        own = {feature.name: feature for feature in bundle.features}
        names = list(dict.fromkeys(shown_as(bundle.features)))
        self._feature_names = pa.array(names, pa.string())
        self._display_names = pa.array([own[name].display_name if name in own else name for name in names], pa.string())
        # A group has no value of its own.
        column = {feature.name: number for number, feature in enumerate(bundle.features)}
        self._columns = np.array([column.get(name, -1) for name in names], dtype=np.int64)
        self._hidden = np.array([name in own and own[name].is_sensitive for name in names], dtype=np.bool_)

    def explanations(
        self,
        findings: Findings,
        selection: Selection,
        texts: Texts,
        details: Sequence[Detail | None],
        produced_at_ms: int,
    ) -> pa.RecordBatch:
        """Lay out one explanation per slate (``explanation.avsc``); ``produced_at_ms``: milliseconds since 1970."""
        slates = findings.slates
        count = len(slates)
        item = {
            "item_id": slates.item_id,
            "position": _int32(slates.position),
            "type": _int32(selection.kind),
            "status": _int32(selection.status),
            "mismatch": _mismatches(findings.scores.mismatch),
            "text": pa.array(texts.text, pa.string()),
            "basis_text": pa.array(texts.basis_text, pa.string()),
            "evidence": self._evidence(findings, texts),
            "detail": nested_records("explanation", ("items", "item", "detail"), details),
        }
        columns = {
            **_as_sent(slates, "request_id", "timestamp_ms", "user_id_hash", "region", "locale"),
            "model_version": _constant(self._model_version, count),
            "policy": _constant(self._policy, count),
            "produced_at_ms": pa.array(np.full(count, produced_at_ms)),
            "ablations": _repeated_list(self._ablations, count),
            "items": _lists(slates.offsets, _struct(item)),
        }
        return pa.RecordBatch.from_pydict(columns)

    def audits(
        self, findings: Findings, selection: Selection, texts: Texts, computation_time_ms: float
    ) -> pa.RecordBatch:
        """Lay out one audit record per slate (``audit.avsc``); ``computation_time_ms`` is per item.

        Where the impression came from is left to :func:`with_source`.
        """
        slates = findings.slates
        count = len(slates)
        wording = [wording_hash(locale) for locale in slates.texts("locale")]
        entries = {
            "item_id": slates.item_id,
            "position": _int32(slates.position),
            "ranking_score": _float32(slates.ranking_score),
            "reranking_score": _float32(slates.reranking_score),
            "explanation_type": _int32(selection.kind),
            "status": _int32(selection.status),
            "explanation_text_hash": _text_hashes(texts.text),
            "shap_top_3": self._top_features(findings),
            "attention_top_2": _top_attention(findings, selection.status != MISMATCH),
            "cited": _cited_events(findings),
        }
        columns = {
            "request_id": _from_hex("".join(slates.texts("request_id")).replace("-", ""), 16),
            **_as_sent(slates, "timestamp_ms"),
            "user_id_hash": _from_hex("".join(slates.texts("user_id_hash")), 8),
            **_as_sent(slates, "region"),
            "model_version": _constant(self._model_version, count),
            "policy": _constant(self._policy, count),
            "wording_hash": pa.array(wording, pa.binary(8)),
            "computation_time_ms": pa.array(np.full(count, computation_time_ms, np.float32)),
            "ablations": _constant(",".join(self._ablations), count),
            "history": _lists(slates.sessions, slates.event_id),
            "entries": _lists(slates.offsets, _struct(entries)),
        }
        return with_source(pa.RecordBatch.from_pydict(columns), "", np.full(count, -1), np.full(count, -1))

    def _evidence(self, findings: Findings, texts: Texts) -> pa.StructArray:
        signals = findings.signals
        has_history = findings.slates.histories.length[findings.slates.slate] > 0
        # A share of contributions is a claim about them: it is not made where they do not add up.
        return _struct(
            {
                "history": self._citations(findings),
                "features": self._features(findings),
                "personal_share": _optional(signals.personal_share, signals.sound),
                "category_match": _optional(signals.category_match, findings.scores.matches & has_history),
                "residual": _optional(signals.residual, np.ones(len(signals.residual), np.bool_)),
                "basis": pa.array(texts.basis.astype(np.int32), mask=texts.basis < 0),
            }
        )

    def _citations(self, findings: Findings) -> pa.ListArray:
        """List the cited events of each item."""
        citations, slates = findings.citations, findings.slates
        cited, item, place = _cited(findings)
        slate, column = slates.slate[item], citations.column[item, place]
        known = pa.array(slates.histories.item[slate, column])
        return _lists(
            _offsets(cited),
            _struct(
                {
                    "item_id": self._item_ids.take(known),
                    "title": self._titles.take(known),
                    "event": _int32(slates.event[slate, column]),
                    "attention": _attention(findings, slate, column),
                    "attribution": _float32(citations.attribution[item, place]),
                    "score_drop": _float32(citations.drop[item, place]),
                    "rank": _int32(citations.rank[item]),
                    "rank_without": _int32(citations.rank_without[item, place]),
                }
            ),
        )

    def _features(self, findings: Findings) -> pa.ListArray:
        """List the largest contributions of each item."""
        shown, item, feature = self._largest(findings)
        column = self._columns[feature]
        value = np.where(column >= 0, findings.slates.features[item, column], np.nan)
        return _lists(
            _offsets(shown),
            _struct(
                {
                    "name": self._feature_names.take(pa.array(feature)),
                    "display_name": self._display_names.take(pa.array(feature)),
                    "value": _float32(value),
                    "contribution": _float32(findings.signals.shown[item, feature]),
                }
            ),
        )

    def _top_features(self, findings: Findings) -> pa.ListArray:
        """List the contributions of each item that the archive keeps."""
        shown, item, feature = self._largest(findings, AUDITED_FEATURES)
        values = {
            "feature": self._feature_names.take(pa.array(feature)),
            "value": _float32(findings.signals.shown[item, feature]),
        }
        return _lists(_offsets(shown), _struct(values))

    def _largest(self, findings: Findings, limit: int | None = None) -> tuple[Ints, Ints, Ints]:
        """Find the largest contributions that are not 0: their number per item, and of each its item and its place.

        A sensitive feature is left out: neither a page nor the archive may name it.
        """
        top, contribution = findings.signals.shown_top, findings.signals.shown
        shown = (np.take_along_axis(contribution, top, axis=1) != 0) & ~self._hidden[top]
        if limit is not None:
            shown &= shown.cumsum(axis=1) <= limit
        item, place = shown.nonzero()
        return shown.sum(axis=1), item, top[item, place]


def with_source(audits: pa.RecordBatch, topic_id: str, partition: Ints, offset: Ints) -> pa.RecordBatch:
    """Say where on the bus the impression of each audit record stood: its topic's id, partition and offset, [S] each.

    The sink recognises a repeated audit record by its source.
    """
    sources: Columns = {
        "source_topic_id": _constant(topic_id, audits.num_rows),
        "source_partition": _int32(partition),
        "source_offset": pa.array(offset.astype(np.int64)),
    }
    for name, column in sources.items():
        place = audits.schema.get_field_index(name)
        audits = audits.append_column(name, column) if place < 0 else audits.set_column(place, name, column)
    return audits


def _cited(findings: Findings) -> tuple[Ints, Ints, Ints]:
    """Find the citations: their number per item int64 [T], and of each citation its item and its place among them."""
    there = findings.citations.column >= 0
    item, place = there.nonzero()
    return there.sum(axis=1), item, place


def _cited_events(findings: Findings) -> pa.ListArray:
    """List the cited events of each item by their index in the session."""
    cited, item, place = _cited(findings)
    column = findings.citations.column[item, place]
    return _lists(_offsets(cited), _int32(findings.slates.event[findings.slates.slate[item], column]))


def _top_attention(findings: Findings, matched: Bools) -> pa.ListArray:
    """List the events with the most attention of the slate of each item that matches the models, bool [T]."""
    attention, event, slate = findings.scores.reading.attention, findings.slates.event, findings.slates.slate
    if attention is None:
        attention, event = np.zeros(event.shape, np.float32), np.full_like(event, -1)
    order = np.argsort(np.where(event >= 0, -attention, np.inf), axis=1, kind="stable")[:, :AUDITED_EVENTS]
    events, weights = np.take_along_axis(event, order, axis=1), np.take_along_axis(attention, order, axis=1)
    shown = (events >= 0)[slate] & matched[:, None]
    item, place = shown.nonzero()
    values = {
        "event": _int32(events[slate[item], place]),
        "weight": _float32(weights[slate[item], place]),
    }
    return _lists(_offsets(shown.sum(axis=1)), _struct(values))


def _attention(findings: Findings, slate: Ints, column: Ints) -> pa.FloatArray:
    """Return the attention on columns int64 [n] of the histories of slates int64 [n], null for a model without it."""
    attention = findings.scores.reading.attention
    return pa.nulls(len(slate), pa.float32()) if attention is None else _float32(attention[slate, column])


def _mismatches(codes: Ints) -> pa.StringArray:
    """Name the mismatch of each item, null where there is none."""
    return pa.array(MISMATCHES).take(pa.array(np.maximum(codes, 0), mask=codes < 0))


def _text_hashes(texts: Sequence[str]) -> pa.FixedSizeBinaryArray:
    """Hash each distinct text once: the items of a slate often share a reason."""
    hashes = {text: text_hash(text) for text in set(texts)}
    return _fixed(b"".join([hashes[text] for text in texts]), TEXT_HASH_BYTES)


def _as_sent(slates: Slates, *fields: str) -> Columns:
    return {field: slates.batch.column(field) for field in fields}


def _constant(text: str, count: int) -> pa.StringArray:
    return pa.repeat(pa.scalar(text, pa.string()), count)


def _repeated_list(texts: Sequence[str], count: int) -> pa.ListArray:
    return _lists(np.arange(count + 1) * len(texts), pa.array(list(texts) * count, pa.string()))


def _struct(columns: Columns) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def _lists(offsets: Ints, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(_int32(offsets), values)


def _offsets(counts: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(counts)])


def _int32(values: npt.NDArray[Any]) -> pa.Int32Array:
    return pa.array(values.astype(np.int32))


def _float32(values: npt.NDArray[Any]) -> pa.FloatArray:
    return pa.array(values.astype(np.float32))


def _optional(values: npt.NDArray[Any], known: Bools) -> pa.FloatArray:
    """Give numbers where they are known and not NaN, else null."""
    return pa.array(values.astype(np.float32), mask=~known | np.isnan(values))


def _from_hex(digits: str, width: int) -> pa.FixedSizeBinaryArray:
    return _fixed(bytes.fromhex(digits), width)


def _fixed(joined: bytes, width: int) -> pa.FixedSizeBinaryArray:
    buffers = [None, pa.py_buffer(joined)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(joined) // width, buffers)
