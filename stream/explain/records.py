"""Records: the only step that makes objects, one explanation and one audit record per slate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np

from schemas.events import (
    EXPLANATION_TYPES,
    STATUSES,
    Audit,
    AuditEntry,
    Basis,
    Citation,
    Detail,
    Evidence,
    Explanation,
    FeatureContribution,
    Impression,
    ItemExplanation,
)
from stream.explain import basis
from stream.explain.columns import Bools, Ints
from stream.explain.findings import Findings
from stream.explain.wording import wording_hash

AUDITED_FEATURES: Final = 3
AUDITED_EVENTS: Final = 2
TEXT_HASH_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Said:
    """What was chosen and worded for each item, T of each; details are None but in slates that asked for them.

    kinds, statuses and bases int64 [T] are places in EXPLANATION_TYPES, STATUSES and BASES, the last -1 for none.
    """

    kinds: Ints
    statuses: Ints
    texts: Sequence[str]
    bases: Ints
    basis_texts: Sequence[str]
    details: Sequence[Detail | None]


def text_hash(text: str) -> bytes:
    """First 8 bytes of SHA-256 of the exact text in UTF-8: what the audit record pins."""
    return sha256(text.encode()).digest()[:TEXT_HASH_BYTES]


def explanations(findings: Findings, said: Said, policy: str, produced_at_ms: int) -> list[Explanation]:
    """Make the explanation of each slate, in order."""
    evidence = _evidence(findings, [basis.name_of(place) for place in said.bases.tolist()])
    kinds, statuses = said.kinds.tolist(), said.statuses.tolist()
    slates = findings.slates
    made: list[Explanation] = []
    for row, impression in enumerate(slates.impressions):
        start = int(slates.offsets[row])
        made.append(
            Explanation(
                request_id=impression["request_id"],
                timestamp_ms=impression["timestamp_ms"],
                user_id_hash=impression["user_id_hash"],
                region=impression["region"],
                locale=impression["locale"],
                model_version=findings.bundle.model_version,
                policy=policy,
                produced_at_ms=produced_at_ms,
                items=[
                    ItemExplanation(
                        item_id=item["item_id"],
                        position=item["position"],
                        type=EXPLANATION_TYPES[kinds[index]],
                        status=STATUSES[statuses[index]],
                        text=said.texts[index],
                        basis_text=said.basis_texts[index],
                        evidence=evidence[index],
                        detail=said.details[index],
                    )
                    for index, item in enumerate(impression["items"], start)
                ],
            )
        )
    return made


def audits(findings: Findings, said: Sequence[Explanation], computation_time_ms: float) -> list[Audit]:
    """Make the audit record of each slate out of what was said; where it came from its reader fills in.

    computation_time_ms is per item.
    """
    attention = _attention(findings)
    made: list[Audit] = []
    for row, (impression, explanation) in enumerate(zip(findings.slates.impressions, said, strict=True)):
        entries = [
            AuditEntry(
                item_id=item["item_id"],
                position=item["position"],
                ranking_score=item["ranking_score"],
                reranking_score=item["reranking_score"],
                explanation_type=told["type"],
                status=told["status"],
                explanation_text_hash=text_hash(told["text"]),
                shap_top_3=[
                    {"feature": each["name"], "value": each["contribution"]}
                    for each in told["evidence"]["features"][:AUDITED_FEATURES]
                ],
                attention_top_2=[] if told["status"] == "model_mismatch" else attention[row],
                cited=[citation["event"] for citation in told["evidence"]["history"]],
            )
            for item, told in zip(impression["items"], explanation["items"], strict=True)
        ]
        made.append(_audit(impression, explanation, computation_time_ms, entries))
    return made


def _audit(
    impression: Impression, explanation: Explanation, computation_time_ms: float, entries: list[AuditEntry]
) -> Audit:
    return Audit(
        request_id=bytes.fromhex(impression["request_id"].replace("-", "")),
        timestamp_ms=impression["timestamp_ms"],
        user_id_hash=bytes.fromhex(impression["user_id_hash"]),
        region=impression["region"],
        model_version=explanation["model_version"],
        policy=explanation["policy"],
        wording_hash=wording_hash(explanation["locale"]),
        source_topic_id="",
        source_partition=-1,
        source_offset=-1,
        computation_time_ms=computation_time_ms,
        history=[event["item_id"] for event in impression["session"]],
        entries=entries,
    )


def _evidence(findings: Findings, bases: Sequence[Basis | None]) -> list[Evidence]:
    signals = findings.signals
    # A share of contributions is a claim about them: it is not made where they do not add up.
    personal = np.where(signals.sound, signals.personal_share, np.nan)
    matches = findings.scores.matches
    category = np.where(matches & (findings.slates.histories.length[findings.slates.slate] > 0), 1.0, np.nan)
    columns = zip(
        _citations(findings),
        _features(findings, signals.top.shape[1]),
        _numbers(personal),
        _numbers(signals.category_match * category),
        _numbers(signals.residual),
        bases,
        strict=True,
    )
    return [
        Evidence(
            history=history,
            features=features,
            personal_share=share,
            category_match=match,
            residual=residual,
            basis=basis,
        )
        for history, features, share, match, residual, basis in columns
    ]


def _citations(findings: Findings) -> list[list[Citation]]:
    """List each item's citations, at most two."""
    citations, slates = findings.citations, findings.slates
    made: list[list[Citation]] = [[] for _ in slates.slate]
    item, place = np.nonzero(citations.column >= 0)
    slate, column = slates.slate[item], citations.column[item, place]
    index = slates.histories.item[slate, column]
    catalog = findings.bundle.catalog
    columns = (
        item,
        index,
        slates.event[slate, column],
        findings.scores.reading.attention[slate, column],
        citations.attribution[item, place],
        citations.drop[item, place],
        citations.rank[item],
        citations.rank_without[item, place],
    )
    rows: zip[tuple[Any, ...]] = zip(*(values.tolist() for values in columns), strict=True)
    for row, known, event, attention, attribution, drop, rank, rank_without in rows:
        made[row].append(
            Citation(
                item_id=catalog.item_ids[known - 1],
                title=catalog.titles[known - 1],
                event=event,
                attention=attention,
                attribution=attribution,
                score_drop=drop,
                rank=rank,
                rank_without=rank_without,
            )
        )
    return made


def _features(findings: Findings, count: int) -> list[list[FeatureContribution]]:
    """List each item's largest contributions; none where they were not computed or do not move the score."""
    signals = findings.signals
    top = signals.top[:, :count]
    values = np.take_along_axis(findings.slates.features, top, axis=1).tolist()
    contributions = np.take_along_axis(signals.contribution, top, axis=1).tolist()
    names = [(feature.name, feature.display_name) for feature in findings.bundle.features]
    return [
        [
            FeatureContribution(name=names[k][0], display_name=names[k][1], value=value, contribution=contribution)
            for k, value, contribution in zip(*row, strict=True)
            if contribution
        ]
        for row in zip(top.tolist(), values, contributions, strict=True)
    ]


def _attention(findings: Findings) -> list[list[Any]]:
    """List each slate's events of most attention, at most two."""
    attention, event = findings.scores.reading.attention, findings.slates.event
    top = np.argsort(np.where(event >= 0, -attention, np.inf), axis=1, kind="stable")[:, :AUDITED_EVENTS]
    events = np.take_along_axis(event, top, axis=1).tolist()
    weights = np.take_along_axis(attention, top, axis=1).tolist()
    return [
        [{"event": index, "weight": weight} for index, weight in zip(*row, strict=True) if index >= 0]
        for row in zip(events, weights, strict=True)
    ]


def _numbers(values: np.ndarray[Any, Any]) -> list[float | None]:
    """Give plain numbers, None for NaN."""
    missing: Bools = np.isnan(values)
    return [None if nothing else value for value, nothing in zip(values.tolist(), missing.tolist(), strict=True)]
