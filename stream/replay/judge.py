"""Make an archived explanation again, and compare every column of every row.

A row is one of these, the first that fits:

1. *not shown*: the impression has no such item. *not archived*: the slate's item has no row. *twice*: it has two.
2. *same*: the text has the archived hash, and every other column that can be computed is what was recomputed (numbers
   within ``TOLERANCE``, since another processor may round otherwise; on one machine they come out to the bit).
3. *reworded*: only the text differs, and the row says that other templates than today's worded it. Neither proven nor
   suspicious: the release whose templates have that hash can prove it.
4. *differs*: the columns named are not what was recomputed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np

from models.bundle import Bundle
from models.session.runtime import SessionModel
from schemas.errors import WhyrecError
from schemas.events import Audit, Detail, Impression, ItemExplanation
from stream.archive.rows.slates import SCHEMA, arrange, fields_of
from stream.explain.columns import to_columns
from stream.explain.pipeline import Explainer, Rejected
from stream.replay.archived import ArchivedSlate

TOLERANCE: Final = 1e-4
"""Of a number, absolute below 1 and relative above."""

NOT_RECOMPUTED: Final = {"computation_time_ms", "source_partition", "source_offset", "source_topic_id"}
"""How long it took, and what only the bus knows."""

_WORDS: Final = {"explanation_text_hash", "wording_hash"}
_UNKNOWN: Final = (None, "", bytes(8))
"""What a row says in a column that is newer than itself."""

Verdict = Literal["same", "reworded", "differs", "not shown", "not archived", "twice"]


class NotReplayable(WhyrecError):
    """The archived explanation cannot be made again with what is at hand."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the slate: what the archive has of it and what was recomputed, as far as there is either."""

    item_id: str
    position: int
    verdict: Verdict
    differing: tuple[str, ...]
    archived_hash: bytes | None
    hash: bytes | None
    said: ItemExplanation | None

    @property
    def detail(self) -> Detail | None:
        """The full ledger, where our models reproduce the item's scores."""
        return None if self.said is None else self.said["detail"]


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention of every head: events [L], indices into the session; weights [layers][heads][L]."""

    events: list[int]
    weights: list[list[list[float]]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """One slate, made again."""

    archived: ArchivedSlate
    impression: Impression
    model_version: str
    policy: str
    items: list[Item]
    heads: Heads

    @property
    def proven(self) -> bool:
        """Whether every row came out the same."""
        return all(item.verdict == "same" for item in self.items)


def explainer_for(archived: ArchivedSlate, bundle: Bundle, policy: str) -> Explainer:
    """Open the models under the archived policy; ``policy`` is for rows older than that column.

    Raises:
        NotReplayable: the bundle is not the one that explained.

    """
    if archived.common("model_version") != bundle.model_version:
        raise NotReplayable(
            f"{archived.common('model_version')} explained this request, and {bundle.path} holds "
            f"{bundle.model_version}: name the bundle that explained with --bundle DIR"
        )
    return Explainer(bundle, archived.common("policy") or policy)


def replay(archived: ArchivedSlate, impression: Impression, explainer: Explainer) -> Replayed:
    """Explain the impression alone, with its full ledger, and compare.

    Raises:
        NotReplayable: the impression cannot be explained at all.

    """
    asked = cast("Impression", {**impression, "detail": True})
    [outcome] = explainer.run([asked])
    if isinstance(outcome, Rejected):
        raise NotReplayable(f"the impression cannot be explained ({outcome.stage}): {outcome.error}")
    said = {item["item_id"]: item for item in outcome.explanation["items"]}
    made = {row["item_id"]: row for row in _rows(outcome.audit)}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in archived.rows:
        rows.setdefault(row["item_id"], []).append(row)
    items = [_compare(item_id, rows.get(item_id, []), made.get(item_id), said.get(item_id)) for item_id in rows | made]
    return Replayed(
        archived=archived,
        impression=impression,
        model_version=explainer.bundle.model_version,
        policy=explainer.policy,
        items=sorted(items, key=lambda item: item.position),
        heads=heads(impression, explainer.bundle),
    )


def heads(impression: Impression, bundle: Bundle) -> Heads:
    """Return the attention of every layer and head, from the newest event."""
    slates = to_columns([impression], bundle)
    histories = slates.histories
    attention = SessionModel(bundle).run(histories.item, histories.engagement, without=False).attention[0]
    there = slates.event[0] >= 0
    return Heads(slates.event[0][there].tolist(), attention[:, :, there].tolist())


def _rows(audit: Audit) -> list[dict[str, Any]]:
    """Give the rows that the sink would archive."""
    rows: list[dict[str, Any]] = arrange(fields_of([audit], np.zeros(1, np.int64))).table.to_pylist()
    return rows


def _compare(
    item_id: str, archived: list[dict[str, Any]], made: dict[str, Any] | None, said: ItemExplanation | None
) -> Item:
    verdict: Verdict = "same"
    differing: tuple[str, ...] = ()
    if made is None:
        verdict = "not shown"
    elif not archived:
        verdict = "not archived"
    elif len(archived) > 1:
        verdict = "twice"
    elif differing := _differing(archived[0], made):
        verdict = "reworded" if set(differing) == _WORDS else "differs"
    row = archived[0] if archived else None
    return Item(
        item_id=item_id,
        position=int((row or made or {})["position"]),
        verdict=verdict,
        differing=differing,
        archived_hash=None if row is None else row["explanation_text_hash"],
        hash=None if made is None else made["explanation_text_hash"],
        said=said,
    )


def _differing(archived: dict[str, Any], made: dict[str, Any]) -> tuple[str, ...]:
    """Name the columns that are not what was recomputed."""
    found = [
        name
        for name in SCHEMA.names
        if name not in NOT_RECOMPUTED and archived[name] not in _UNKNOWN and not _same(archived[name], made[name])
    ]
    # Other templates that gave the same words are no difference.
    return tuple(found) if found != ["wording_hash"] else ()


def _same(archived: Any, made: Any) -> bool:
    if isinstance(archived, float) and isinstance(made, float):
        if math.isnan(archived) or math.isnan(made):
            return math.isnan(archived) and math.isnan(made)
        return abs(archived - made) <= TOLERANCE * max(1.0, abs(archived))
    if isinstance(archived, list) and isinstance(made, list):
        return len(archived) == len(made) and all(map(_same, archived, made))
    if isinstance(archived, dict) and isinstance(made, dict):
        return archived.keys() == made.keys() and all(_same(archived[name], made[name]) for name in archived)
    return bool(archived == made)
