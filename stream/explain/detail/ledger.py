"""The ledger: the contribution of every feature and every event to an item's scores.

Both sums are exact. The contributions of all features and the base value add up to the re-ranker's raw score, up to the
float noise that ``residual`` states. The effects of all events, and what the events do only together, add up to the
session score, which is the value of the feature ``session_score``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from models.attribution.ablation import DELETE, Edits, session_vectors
from schemas.events import EventLedger, FeatureLedger, Impression, SessionEvent
from stream.explain.counterfactual import score_drops
from stream.explain.findings import Findings
from stream.explain.models import Models
from stream.explain.slates import Floats, Ints


def feature_ledgers(findings: Findings, rows: Ints) -> Iterator[list[FeatureLedger]]:
    """Yield the value and the contribution of every feature, for each of the items in rows int64 [n]."""
    values, contributions = findings.slates.features[rows], findings.signals.contribution[rows]
    for value_row, contribution_row in zip(values.tolist(), contributions.tolist(), strict=True):
        yield [
            FeatureLedger(
                name=feature.name,
                display_name=feature.display_name,
                owner=feature.owner,
                unit=feature.unit,
                value=value,
                contribution=contribution,
                sensitive=feature.is_sensitive,
            )
            for feature, value, contribution in zip(findings.bundle.features, value_row, contribution_row, strict=True)
        ]


def event_ledgers(findings: Findings, models: Models, rows: Ints) -> Iterator[list[EventLedger]]:
    """Yield every event as sent and its effect, for each of the items in rows int64 [n].

    The effect is the score drop by the deletion of the event. An event that the session model does not read has neither
    attention nor effect.
    """
    slates, catalog, vectors = findings.slates, findings.bundle.catalog, findings.bundle.item_vectors
    for row, effect in zip(rows.tolist(), event_effects(findings, models, rows), strict=True):
        slate = int(slates.slate[row])
        impression = slates.impression(slate)
        known = catalog.index([event["item_id"] for event in impression["session"]])
        column = {event: column for column, event in enumerate(slates.event[slate].tolist()) if event >= 0}
        weights = findings.scores.reading.attention
        attention = None if weights is None else weights[slate].tolist()
        target = vectors[slates.item[row]].astype(np.float64)
        sizes = np.linalg.norm(vectors[known].astype(np.float64), axis=1) * np.linalg.norm(target)
        products = vectors[known].astype(np.float64) @ target
        yield [
            EventLedger(
                event=number,
                item_id=event["item_id"],
                title=catalog.titles[index - 1] if index else event["item_id"],
                engagement=event["engagement"],
                age_s=_age_s(impression, event),
                attention=None if attention is None else attention[column[number]] if number in column else 0.0,
                similarity=product / size if index and size > 0 else None,
                effect=_known(effect[column[number]]) if number in column else 0.0,
            )
            for number, (event, index, product, size) in enumerate(
                zip(impression["session"], known.tolist(), products.tolist(), sizes.tolist(), strict=True)
            )
        ]


def _known(effect: np.floating[Any]) -> float | None:
    """Return an effect, None for that of a deletion after which nobody knows the score."""
    return float(effect) if np.isfinite(effect) else None


def _age_s(impression: Impression, event: SessionEvent) -> int | None:
    """Return the whole seconds between an event and the slate, None for an event of unknown time."""
    event_ms = event["timestamp_ms"]
    return None if event_ms is None else (impression["timestamp_ms"] - event_ms) // 1000


def event_effects(findings: Findings, models: Models, rows: Ints) -> Floats:
    """Score drops of items by the deletion of each event of their histories, float32 [n, W], 0 at padding."""
    slates, reading = findings.slates, findings.scores.reading
    asked = np.zeros_like(slates.histories.present)
    asked[slates.slate[rows]] = slates.histories.present[slates.slate[rows]]
    session, column = np.nonzero(asked)
    deletion = np.zeros(asked.shape, dtype=np.int64)
    deletion[session, column] = np.arange(len(session))
    vectors = session_vectors(models.session, reading, Edits.of_events(DELETE, session, column))
    effect = np.zeros((len(rows), slates.histories.width), dtype=np.float32)
    place, event = np.nonzero(asked[slates.slate[rows]])
    item = rows[place]
    after = vectors, deletion[slates.slate[item], event]
    effect[place, event], _ = score_drops(slates, findings.scores, item, (reading.vector, slates.slate[item]), after)
    return effect
