"""Encode: explanations and audit records as Avro, straight from the columns, without an object for each item.

The bytes are those that the codec makes of :mod:`stream.explain.records`' dictionaries; that is the one truth, and what
this is tested against. Whatever is out of the ordinary (a number that no float holds, half a character) is left to
them: nothing comes back. Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from schemas.events import EXPLANATION_TYPES, STATUSES, EventName, ExplanationType, Status
from stream.explain import records
from stream.explain.ablate import CITED
from stream.explain.findings import Findings
from stream.explain.layout import require
from stream.explain.put import Bytes, put_audits, put_explanations
from stream.explain.signals import TOP_FEATURES
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

_NUMBERS_AT_MOST: Final = 128
"""Bytes of a slate, and of an item, beside strings, features and citations; of each of these beside its strings, 64."""

_TOLD: Final = [(kind, status) for kind in EXPLANATION_TYPES for status in STATUSES]
"""Type and status of an item, by the number of both."""


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


class Strings(NamedTuple):
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

    def size(self, numbers: Int64s) -> int:
        """Bytes of some of them together."""
        return int((self.starts[numbers + 1] - self.starts[numbers]).sum())


class _Page:
    """A buffer into which kernels write all slates; ``odd[0]`` says whether they met a number that no float holds."""

    def __init__(self, room: int) -> None:
        self._out = np.empty(room, np.uint8)
        self.odd = np.zeros(1, np.bool_)

    def written(self, kernel: Any, *columns: Any) -> list[bytes]:
        """Have a kernel write, and cut what it wrote where each slate ends."""
        ends = kernel(self._out, self.odd, *map(np.ascontiguousarray, columns)).tolist()
        return [self._out[start:end].tobytes() for start, end in pairwise((0, *ends))]


class Encoder:
    """Knows the strings of one bundle; safe to use from one thread at a time."""

    def __init__(self, bundle: Bundle) -> None:
        catalog = bundle.catalog
        ids = [_string(item_id) for item_id in catalog.item_ids]
        self._id_parts = [b"", *ids]
        self._ids = Strings.of(self._id_parts)
        self._cited = Strings.of([b"", *(one + _string(title) for one, title in zip(ids, catalog.titles, strict=True))])
        names = [_string(feature.name) for feature in bundle.features]
        self._names = Strings.of(names)
        shown = [_string(feature.display_name) for feature in bundle.features]
        self._shown = Strings.of([one + other for one, other in zip(names, shown, strict=True)])
        self._model_version = _string(bundle.model_version)
        self._room = _NUMBERS_AT_MOST + TOP_FEATURES * (64 + self._shown.longest) + CITED * (64 + self._cited.longest)

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
            texts, text = _distinct(said.texts)
            own, own_id = self._ids_of(slates.item, slates.unknown_items)
            past, past_id = self._ids_of(slates.event_item, slates.unknown_events)
            heads, audit_heads = self._heads(findings, policy, produced_at_ms)
        except (ValueError, OverflowError):
            return None
        basis_texts, basis_text = _distinct(said.basis_texts)
        digests = b"".join([sha256(each).digest()[: records.TEXT_HASH_BYTES] for each in texts])
        hashes = np.frombuffer(digests, np.uint8).reshape(-1, records.TEXT_HASH_BYTES)
        signals, citations, histories = findings.signals, findings.citations, slates.histories
        per_slate = (slates.offsets, histories.item, slates.event, findings.scores.reading.attention)
        words = ((Strings.of(texts), text), (Strings.of(basis_texts), basis_text))
        out = _Page(
            len(text) * self._room
            + sum(strings.size(numbers) for strings, numbers in ((own, own_id), (past, past_id), *words))
            + sum(map(len, heads))
            + len(heads) * _NUMBERS_AT_MOST
        )
        explanations = out.written(
            put_explanations,
            *(*Strings.of(heads), *own, own_id),
            *(part for strings, numbers in words for part in (*strings, numbers)),
            *(*self._shown, *self._cited),
            *(*per_slate, slates.position, said.kinds, said.statuses, said.bases),
            *(citations.column, citations.attribution, citations.drop, citations.rank, citations.rank_without),
            *(signals.top, slates.features, signals.contribution, signals.personal_share, signals.sound),
            *(signals.category_match, findings.scores.matches, histories.length, signals.residual),
        )
        audits = out.written(
            put_audits,
            *(*past, past_id, *own, own_id, *self._names, np.array([computation_time_ms]), slates.sessions, *per_slate),
            *(slates.position, slates.ranking_score, slates.reranking_score, said.kinds, said.statuses, hashes, text),
            *(citations.column, signals.top, signals.contribution),
        )
        if out.odd[0]:
            return None
        edges = slates.offsets.tolist()
        told = [_TOLD[number] for number in (said.kinds * len(STATUSES) + said.statuses).tolist()]
        return [
            Encoded(slate["user_id_hash"], explanation, head, tail, told[start:end])
            for slate, explanation, head, tail, start, end in zip(
                slates.impressions, explanations, audit_heads, audits, edges[:-1], edges[1:], strict=True
            )
        ]

    def _ids_of(self, known: Int64s, unknown: Mapping[int, str]) -> tuple[Strings, Int64s]:
        """Item ids as Avro, and the number of each; where the catalogue knows them all, none is made again."""
        if not unknown:
            return self._ids, known
        ids = [
            self._id_parts[index] if index else _string(unknown[place]) for place, index in enumerate(known.tolist())
        ]
        return Strings.of(ids), np.arange(len(ids))

    def _heads(self, findings: Findings, policy: str, produced_at_ms: int) -> tuple[list[bytes], list[bytes]]:
        """Explanations up to their items, and audit records up to where the impression came from."""
        by, at = self._model_version + _string(policy), _long(produced_at_ms)
        heads, audit_heads = [], []
        for slate, items in zip(findings.slates.impressions, np.diff(findings.slates.offsets).tolist(), strict=True):
            request, user, locale = slate["request_id"], slate["user_id_hash"], slate["locale"]
            when, region = _long(slate["timestamp_ms"]), _string(slate["region"])
            heads.append(
                b"".join((_string(request), when, _string(user), region, _string(locale), by, at, _count(items)))
            )
            ids = bytes.fromhex(request.replace("-", "")), bytes.fromhex(user)
            audit_heads.append(b"".join((ids[0], when, ids[1], region, by, wording_hash(locale))))
        return heads, audit_heads


def _distinct(texts: Sequence[str]) -> tuple[list[bytes], Int64s]:
    """Each text once, in UTF-8, and the number of each among them: items have reasons in common."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return [text.encode() for text in numbers], np.fromiter(map(numbers.__getitem__, texts), np.int64, len(texts))


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
