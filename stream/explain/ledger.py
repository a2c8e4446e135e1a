"""Detail: for one slate, every event and every feature of each item, adding up exactly to its scores.

Two sums, both exact: the contributions of all features, with the base, are the re-ranker's raw score (up to the float
noise that ``residual`` states); and the effects of all events, with what they do only in company, are the session
score, which is the value of the feature of that name.
"""

from __future__ import annotations

import numpy as np

from models.attribution.history import read
from schemas.events import Detail, EventLedger, FeatureLedger
from stream.explain.columns import Doubles
from stream.explain.findings import Findings
from stream.explain.models import Models
from stream.explain.moments import similar_moments
from stream.explain.recourse import Search, without
from stream.explain.wording import Wording


def details(findings: Findings, models: Models, slate: int, words: Wording) -> list[Detail | None]:
    """Lay open each item of one slate; None for an item whose scores our models do not reproduce."""
    slates, matches = findings.slates, findings.scores.matches
    start, stop = int(slates.offsets[slate]), int(slates.offsets[slate + 1])
    rows = start + np.flatnonzero(matches[start:stop])
    made: list[Detail | None] = [None] * (stop - start)
    if not len(rows):
        return made
    features = slates.features[rows]
    effect, score = _effects(findings, models, slate, rows)
    moments = similar_moments(slates, findings.scores, models, slate)
    search = Search(findings, models, slate)
    for place, row in enumerate(rows.tolist()):
        base_value, raw_score = float(findings.signals.base_value[row]), float(findings.signals.raw_score[row])
        ledger = _features(findings, features[place], findings.signals.contribution[row])
        session_score = float(score[place])
        events = _events(findings, slate, row, effect[:, place])
        made[row - start] = Detail(
            base_value=base_value,
            raw_score=raw_score,
            residual=base_value + sum(each["contribution"] for each in ledger) - raw_score,
            features=ledger,
            session_score=session_score,
            events=events,
            events_together=session_score - sum(each["effect"] for each in events),
            recourse=search.recourse(row, words),
            similar_moments=moments,
        )
    return made


def _effects(findings: Findings, models: Models, slate: int, rows: np.ndarray) -> tuple[Doubles, Doubles]:
    """Fall of each item's session score without each column of the history, and the score: float64 [W, n], [n]."""
    histories = findings.slates.histories
    there = np.flatnonzero(histories.item[slate] > 0)
    items = findings.scores.items[rows].astype(np.float64)
    vector = findings.scores.reading.vector[slate].astype(np.float64)
    effect = np.zeros((histories.width, len(rows)))
    if len(there):
        left = without(histories, slate, np.arange(histories.width) == there[:, None])
        effect[there] = (vector - read(models.session, left, without=False).vector) @ items.T
    return effect, items @ vector


def _features(findings: Findings, values: Doubles, contributions: Doubles) -> list[FeatureLedger]:
    return [
        FeatureLedger(
            name=feature.name,
            display_name=feature.display_name,
            owner=feature.owner,
            unit=feature.unit,
            value=value,
            contribution=contribution,
            sensitive=feature.is_sensitive,
        )
        for feature, value, contribution in zip(
            findings.bundle.features, values.tolist(), contributions.tolist(), strict=True
        )
    ]


def _events(findings: Findings, slate: int, row: int, effect: Doubles) -> list[EventLedger]:
    """List every event of the impression; what the session model does not read has no attention and no effect."""
    slates, catalog, vectors = findings.slates, findings.bundle.catalog, findings.bundle.item_vectors
    impression = slates.impressions[slate]
    known = catalog.index([event["item_id"] for event in impression["session"]])
    column = {event: column for column, event in enumerate(slates.event[slate].tolist()) if event >= 0}
    attention = findings.scores.reading.attention[slate]
    target = vectors[slates.item[row]].astype(np.float64)
    sizes = np.linalg.norm(vectors[known].astype(np.float64), axis=1) * np.linalg.norm(target)
    products = vectors[known].astype(np.float64) @ target
    return [
        EventLedger(
            event=number,
            item_id=event["item_id"],
            title=catalog.titles[index - 1] if index else event["item_id"],
            engagement=event["engagement"],
            age_s=(impression["timestamp_ms"] - event["timestamp_ms"]) // 1000,
            attention=float(attention[column[number]]) if number in column else 0.0,
            similarity=product / size if index and size > 0 else None,
            effect=float(effect[column[number]]) if number in column else 0.0,
        )
        for number, (event, index, product, size) in enumerate(
            zip(impression["session"], known.tolist(), products.tolist(), sizes.tolist(), strict=True)
        )
    ]
