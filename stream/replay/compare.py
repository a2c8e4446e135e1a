"""Explain an archived impression again, and compare every column of every archived row.

The verdict on a row is the first of these that applies:

1. *not shown*: the impression has no such item. *not archived*: the item has no row. *twice*: the item has two rows.
2. *same*: the text has the archived hash, and every other column that can be recomputed has the recomputed value
   (numbers within ``TOLERANCE``: another processor may round differently; on one machine they are equal bit for bit).
3. *reworded*: only the text differs, and the row names other templates than those of this release. The text is neither
   proven nor suspicious: the release whose templates have that hash can prove it.
4. *differs*: some columns have other values than the recomputed ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from models.bundle import Bundle
from models.session.runtime import SessionModel
from schemas.columnar import from_records, to_records
from schemas.errors import InvalidEvent, WhyrecError
from schemas.events import Detail, Impression, ItemExplanation
from stream.archive.rows.slates import SCHEMA, rows_of
from stream.explain.decode import decode_records
from stream.explain.pipeline import Explainer
from stream.replay.archived import ArchivedSlate

TOLERANCE: Final = 1e-4
"""Tolerance of a number: absolute below 1, relative above."""

NOT_RECOMPUTED: Final = {"computation_time_ms", "source_partition", "source_offset", "source_topic_id"}
"""Columns that cannot be recomputed: the computation time, and what only the bus knows."""

_WORDING_COLUMNS: Final = {"explanation_text_hash", "wording_hash"}
_ABSENT: Final = (None, "", bytes(8))
"""Values of a column that was added after the row was archived."""

Verdict = Literal["same", "reworded", "differs", "not shown", "not archived", "twice"]


class NotReplayable(WhyrecError):
    """The archived impression cannot be explained again with this bundle."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the slate, as archived and as recomputed.

    archived_hash is None where no row is archived; hash and explanation are None where the impression has no such item.
    """

    item_id: str
    position: int
    verdict: Verdict
    differing: tuple[str, ...]
    archived_hash: bytes | None
    hash: bytes | None
    explanation: ItemExplanation | None

    @property
    def detail(self) -> Detail | None:
        """The full ledger, where the bundle's models reproduce the item's scores; None elsewhere."""
        return None if self.explanation is None else self.explanation["detail"]


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention of every head of the session model.

    events [L] are indices into the session; weights [layers][heads][L] are attention weights from the newest event,
    of no layer for a session model without attention.
    """

    events: list[int]
    weights: list[list[list[float]]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """One slate, explained again and compared."""

    archived: ArchivedSlate
    impression: Impression
    model_version: str
    policy: str
    items: list[Item]
    heads: Heads

    @property
    def proven(self) -> bool:
        """Whether every row has the verdict *same*."""
        return all(item.verdict == "same" for item in self.items)


def explainer_for(archived: ArchivedSlate, bundle: Bundle, policy: str) -> Explainer:
    """Open the bundle under the archived policy; ``policy`` serves rows that were archived before policies were.

    Raises:
        NotReplayable: the archived explanation came from another bundle.

    """
    if archived.common("model_version") != bundle.model_version:
        raise NotReplayable(
            f"{archived.common('model_version')} explained this request, but {bundle.path} holds "
            f"{bundle.model_version}: name the bundle that explained it with --bundle DIR, or set WHYREC_BUNDLES_URL "
            "to where its versions are"
        )
    return Explainer(bundle, archived.common("policy") or policy)


def replay(archived: ArchivedSlate, impression: Impression, explainer: Explainer) -> Replayed:
    """Explain the impression on its own, with its full ledger, and compare it with the archived rows.

    Raises:
        NotReplayable: the impression cannot be explained.

    """
    asked = cast("Impression", {**impression, "detail": True})
    version = archived.common("model_version")
    if "@" not in impression["model_version"] and version.startswith(f"{impression['model_version']}@"):
        asked["model_version"] = version  # as the worker chose it for this user
    try:
        outcome = explainer.run(from_records("impression", [asked]))
    except InvalidEvent as error:
        raise NotReplayable(f"the impression cannot be explained: {error}") from error
    for rejected in outcome.rejected.values():
        raise NotReplayable(f"the impression cannot be explained ({rejected.stage}): {rejected.error}")
    [explanation] = to_records("explanation", outcome.explanations)
    explained = {item["item_id"]: cast("ItemExplanation", item) for item in explanation["items"]}
    recomputed = {row["item_id"]: row for row in rows_of(outcome.audits).to_pylist()}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in archived.rows:
        rows.setdefault(row["item_id"], []).append(row)
    items = [
        _compare(item_id, rows.get(item_id, []), recomputed.get(item_id), explained.get(item_id))
        for item_id in rows | recomputed
    ]
    return Replayed(
        archived=archived,
        impression=impression,
        model_version=explainer.bundle.model_version,
        policy=explainer.policy,
        items=sorted(items, key=lambda item: item.position),
        heads=attention_heads(impression, explainer.bundle),
    )


def attention_heads(impression: Impression, bundle: Bundle) -> Heads:
    """Return the attention weights of every layer and head, from the newest event."""
    slates = decode_records([impression], bundle)
    histories = slates.histories
    attention = SessionModel(bundle).run(histories.item, histories.engagement, without=False).attention
    there = slates.event[0] >= 0
    weights = [] if attention is None else attention[0][:, :, there].tolist()
    return Heads(slates.event[0][there].tolist(), weights)


def _compare(
    item_id: str, archived: list[dict[str, Any]], recomputed: dict[str, Any] | None, explanation: ItemExplanation | None
) -> Item:
    verdict: Verdict = "same"
    differing: tuple[str, ...] = ()
    if recomputed is None:
        verdict = "not shown"
    elif not archived:
        verdict = "not archived"
    elif len(archived) > 1:
        verdict = "twice"
    elif differing := _differing(archived[0], recomputed):
        verdict = "reworded" if set(differing) == _WORDING_COLUMNS else "differs"
    row = archived[0] if archived else None
    return Item(
        item_id=item_id,
        position=int((row or recomputed or {})["position"]),
        verdict=verdict,
        differing=differing,
        archived_hash=None if row is None else row["explanation_text_hash"],
        hash=None if recomputed is None else recomputed["explanation_text_hash"],
        explanation=explanation,
    )


def _differing(archived: dict[str, Any], recomputed: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the columns whose archived and recomputed values differ."""
    found = [
        name
        for name in SCHEMA.names
        if name not in NOT_RECOMPUTED and archived[name] not in _ABSENT and not _same(archived[name], recomputed[name])
    ]
    # Other templates that gave the same text are not a difference.
    return tuple(found) if found != ["wording_hash"] else ()


def _same(archived: Any, recomputed: Any) -> bool:
    if isinstance(archived, float) and isinstance(recomputed, float):
        if math.isnan(archived) or math.isnan(recomputed):
            return math.isnan(archived) and math.isnan(recomputed)
        return abs(archived - recomputed) <= TOLERANCE * max(1.0, abs(archived))
    if isinstance(archived, list) and isinstance(recomputed, list):
        return len(archived) == len(recomputed) and all(map(_same, archived, recomputed))
    if isinstance(archived, dict) and isinstance(recomputed, dict):
        return archived.keys() == recomputed.keys() and all(
            _same(archived[name], recomputed[name]) for name in archived
        )
    return bool(archived == recomputed)
