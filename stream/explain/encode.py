"""Encode: explanations and audit records as Avro, straight from the columns, without an object for each item.

The bytes are those that the codec makes of :mod:`stream.explain.records`' dictionaries; that is the one truth, and what
this is tested against. Whatever is out of the ordinary (a number that no float holds, half a character) is left to
them: nothing comes back. Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from schemas.events import EXPLANATION_TYPES, STATUSES, EventName, ExplanationType, Status
from stream.explain import records
from stream.explain.findings import Findings
from stream.explain.layout import require
from stream.explain.put import Bytes, put_audits, put_explanations
from stream.explain.wording import wording_hash

Int64s = npt.NDArray[np.int64]

LAYOUT: Final[dict[EventName, str]] = {
    "explanation": "request_id:string timestamp_ms:long user_id_hash:string region:string locale:string "
    "model_version:string policy:string produced_at_ms:long items:array<item_id:string position:int "
    "type:enum status:enum text:string basis_text:string evidence:record<history:array<item_id:string title:string "
    "event:int attention:float attribution:float score_drop:float rank:int rank_without:int> "
    "features:array<name:string display_name:string value:float contribution:float> personal_share:float? "
    "category_match:float? residual:float? basis:enum?> detail:record?>",
    "audit": "request_id:fixed timestamp_ms:long user_id_hash:fixed region:string model_version:string policy:string "
    "wording_hash:fixed source_topic_id:string source_partition:int source_offset:long computation_time_ms:float "
    "history:array<string> entries:array<item_id:string position:int ranking_score:float reranking_score:float "
    "explanation_type:enum status:enum explanation_text_hash:fixed shap_top_3:array<feature:string value:float> "
    "attention_top_2:array<event:int weight:float> cited:array<int>>",
}
"""What is written, in its order. The schemas must say the same."""

_BASES: Final = {None: -1, "personal": 0, "mixed": 1, "popular": 2}
_NUMBERS_AT_MOST: Final = 128
"""Bytes of a slate, and of an item, beside strings, features and citations; of each of these beside its strings, 64."""

_FLOAT_LIMIT: Final = float(np.finfo(np.float32).max)


for _event, _written in LAYOUT.items():
    require(_event, _written, "stream/explain/encode.py")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A slate's explanation and audit record as Avro bodies, without any framing.

    The audit is in two parts: between them stands where the impression came from, for its reader to say.
    ``items``: type and status of each.
    """

    user_id_hash: str
    explanation: bytes
    audit_head: bytes
    audit_tail: bytes
    items: Sequence[tuple[ExplanationType, Status]]

    def audit(self, topic_id: str, partition: int, offset: int) -> bytes:
        """Return the whole audit record of an impression that stood there."""
        return b"".join((self.audit_head, _string(topic_id), _long(partition), _long(offset), self.audit_tail))


@dataclass(frozen=True, slots=True)
class Strings:
    """Byte strings one after another; number k is data[starts[k] : starts[k + 1]]."""

    data: Bytes
    starts: Int64s

    @classmethod
    def of(cls, parts: Sequence[bytes]) -> Strings:
        """Lay them side by side."""
        starts = np.zeros(len(parts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=starts[1:])
        return cls(np.frombuffer(b"".join(parts), np.uint8), starts)

    @property
    def longest(self) -> int:
        """Bytes of the longest of them."""
        return int(np.diff(self.starts).max(initial=0))


class Encoder:
    """Knows the strings of one bundle; safe to use from one thread at a time."""

    def __init__(self, bundle: Bundle) -> None:
        catalog = bundle.catalog
        ids = [_string(item_id) for item_id in catalog.item_ids]
        self._ids = Strings.of([b"", *ids])
        self._cited = Strings.of([b"", *(one + _string(title) for one, title in zip(ids, catalog.titles, strict=True))])
        names = [_string(feature.name) for feature in bundle.features]
        self._names = Strings.of(names)
        shown = [_string(feature.display_name) for feature in bundle.features]
        self._shown = Strings.of([one + other for one, other in zip(names, shown, strict=True)])
        self._model_version = _string(bundle.model_version)

    def encode(
        self,
        findings: Findings,
        said: records.Said,
        policy: str,
        produced_at_ms: int,
        computation_time_ms: float,
    ) -> list[Encoded] | None:
        """Encode each slate; None: leave them to the records. ``computation_time_ms`` is per item."""
        slates = findings.slates
        try:
            columns = _Columns(findings, said, self._shown, self._cited)
            texts = [text.encode() for text in said.texts]
            basis_texts = [text.encode() for text in said.basis_texts]
            own = self._ids_of(slates.item, slates.item_ids)
            past = self._ids_of(slates.event_item, slates.event_ids)
            heads = self._explanation_heads(findings, policy, produced_at_ms)
            audit_heads = self._audit_heads(findings, policy)
        except (_Odd, ValueError, OverflowError):
            return None
        digests = b"".join([sha256(text).digest()[: records.TEXT_HASH_BYTES] for text in texts])
        hashes = np.frombuffer(digests, np.uint8).reshape(-1, records.TEXT_HASH_BYTES)
        room = len(texts) * columns.bound + len(slates.impressions) * _NUMBERS_AT_MOST
        told = list(zip(said.kinds, said.statuses, strict=True))
        explanations = _cut(
            put_explanations,
            (Strings.of(heads), own, Strings.of(texts), Strings.of(basis_texts), self._shown, self._cited),
            room,
            (slates.offsets, *columns.explained),
        )
        audits = _cut(
            put_audits,
            (past, own, self._names),
            room,
            (_bits(np.array([computation_time_ms])), slates.sessions, slates.offsets, *columns.audited, hashes),
        )
        edges = slates.offsets.tolist()
        return [
            Encoded(slate["user_id_hash"], explanation, head, tail, told[start:end])
            for slate, explanation, head, tail, start, end in zip(
                slates.impressions, explanations, audit_heads, audits, edges[:-1], edges[1:], strict=True
            )
        ]

    def _ids_of(self, known: Int64s, names: Sequence[str]) -> Strings:
        """Item ids as Avro, by index and name; if the catalogue knows them all, none is made again."""
        data, starts = self._ids.data, self._ids.starts
        if (known > 0).all():
            sizes = starts[known + 1] - starts[known]
            ends = np.cumsum(sizes)
            places = np.repeat(starts[known] - ends + sizes, sizes) + np.arange(int(sizes.sum()))
            gathered = data[places]
            gathered.setflags(write=False)  # as all others: one signature, compiled once
            return Strings(gathered, np.concatenate([np.zeros(1, np.int64), ends]))
        return Strings.of([_string(name) for name in names])

    def _explanation_heads(self, findings: Findings, policy: str, produced_at_ms: int) -> list[bytes]:
        by, at = _string(policy), _long(produced_at_ms)
        return [
            b"".join(
                (
                    *(_string(slate["request_id"]), _long(slate["timestamp_ms"]), _string(slate["user_id_hash"])),
                    *(_string(slate["region"]), _string(slate["locale"]), self._model_version, by, at),
                    _count(items),
                )
            )
            for slate, items in zip(findings.slates.impressions, np.diff(findings.slates.offsets).tolist(), strict=True)
        ]

    def _audit_heads(self, findings: Findings, policy: str) -> list[bytes]:
        """Everything up to where the impression came from."""
        by = _string(policy)
        return [
            b"".join(
                (
                    *(bytes.fromhex(slate["request_id"].replace("-", "")), _long(slate["timestamp_ms"])),
                    *(bytes.fromhex(slate["user_id_hash"]), _string(slate["region"])),
                    *(self._model_version, by, wording_hash(slate["locale"])),
                )
            )
            for slate in findings.slates.impressions
        ]


class _Odd(Exception):
    """Something that the columns do not hold as Avro would."""


class _Columns:
    """The numbers of all items as the kernels take them; floats as the bits of their float32."""

    def __init__(self, findings: Findings, said: records.Said, shown: Strings, cited: Strings) -> None:
        slates, signals, citations = findings.slates, findings.signals, findings.citations
        count = len(slates.item)
        types = np.fromiter(map(EXPLANATION_TYPES.index, said.kinds), np.int64, count)
        statuses = np.fromiter(map(STATUSES.index, said.statuses), np.int64, count)
        bases = np.fromiter(map(_BASES.__getitem__, said.bases), np.int64, count)
        contribution = np.take_along_axis(signals.contribution, signals.top, axis=1)
        value = np.take_along_axis(slates.features, signals.top, axis=1)
        told = contribution != 0
        column = citations.column
        # Where there is none, the newest column is read, and never written.
        slate = slates.slate[:, None]
        index = np.where(column >= 0, slates.histories.item[slate, column], 0)
        event = slates.event[slate, column]
        attention = findings.scores.reading.attention
        items = np.stack([slates.position, types, statuses, bases], axis=1)
        shares = _bits(np.stack(_shares(findings), axis=1))
        contributions = _bits(contribution)
        ranks = np.broadcast_to(citations.rank[:, None], column.shape)
        places = np.stack([index, event, ranks, citations.rank_without], axis=2)
        measured = _bits(np.stack([attention[slate, column], citations.attribution, citations.drop], axis=2))
        self.explained = (items, signals.top, told, _bits(value), contributions, places, measured, shares)
        events, weights = _most_attended(findings)
        scores = _bits(np.stack([slates.ranking_score, slates.reranking_score], axis=1))
        self.audited = (items, scores, signals.top, told, contributions, places, events, _bits(weights))
        self.bound = (
            _NUMBERS_AT_MOST
            + signals.top.shape[1] * (64 + shown.longest)
            + column.shape[1] * (64 + cited.longest)
        )  # fmt: skip


def _shares(findings: Findings) -> list[npt.NDArray[np.float64]]:
    """Personal share, category match and residual of each item, NaN where there is none."""
    slates, signals = findings.slates, findings.signals
    vouched = findings.scores.matches & (slates.histories.length[slates.slate] > 0)
    return [
        np.where(signals.sound, signals.personal_share, np.nan),
        np.where(vouched, signals.category_match, np.nan),
        signals.residual,
    ]


def _most_attended(findings: Findings) -> tuple[Int64s, npt.NDArray[np.float32]]:
    """Each slate's events of most attention and their weights, -1 where there is none."""
    attention, event = findings.scores.reading.attention, findings.slates.event
    sought = np.where(event >= 0, -attention, np.inf)
    top = np.argsort(sought, axis=1, kind="stable")[:, : records.AUDITED_EVENTS]
    return np.take_along_axis(event, top, axis=1), np.take_along_axis(attention, top, axis=1)


def _cut(kernel: Any, strings: tuple[Strings, ...], room: int, columns: tuple[Any, ...]) -> list[bytes]:
    """Have a kernel write all slates into one buffer, and cut it where each ends."""
    # The bundle's strings are part of the bound; these come on top.
    size = room + sum(len(each.data) for each in strings)
    out = np.empty(size, np.uint8)
    numbers = map(np.ascontiguousarray, columns)
    ends = kernel(out, *(part for each in strings for part in (each.data, each.starts)), *numbers)
    data, edges = out[: ends[-1] if len(ends) else 0].tobytes(), [0, *ends.tolist()]
    return [data[start:end] for start, end in pairwise(edges)]


def _bits(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint32]:
    if values.dtype != np.float32 and (np.isfinite(values) & (np.abs(values) > _FLOAT_LIMIT)).any():
        raise _Odd
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def _string(text: str) -> bytes:
    data = text.encode()
    return _long(len(data)) + data


def _count(number: int) -> bytes:
    """Begin an array's only block; an empty array has none, and its end is written by whoever writes it."""
    return _long(number) if number else b""


_SHORT: Final = [bytes([number << 1]) for number in range(64)]


def _long(value: int) -> bytes:
    """Avro's zigzag varint."""
    if 0 <= value < len(_SHORT):
        return _SHORT[value]
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    made = bytearray()
    while rest > 0x7F:
        made.append(rest & 0x7F | 0x80)
        rest >>= 7
    made.append(rest)
    return bytes(made)
