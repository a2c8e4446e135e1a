"""Detail: for slates that ask for it, the ledger of each item's scores, recourse, and similar moments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from schemas.events import Detail, EventLedger
from stream.explain.detail.contrast import contrast
from stream.explain.detail.exemplars import similar_moments
from stream.explain.detail.ledger import event_ledgers, feature_ledgers
from stream.explain.detail.recourse import Search
from stream.explain.findings import Findings
from stream.explain.models import Models
from stream.explain.slates import Ints
from stream.explain.wording import Wording


def detail(findings: Findings, models: Models, wordings: Sequence[Wording]) -> list[Detail | None]:
    """Make the detail of each of T items; wordings are those of the S slates.

    None for an item of a slate that does not ask for detail, and for an item whose scores our models do not reproduce.
    """
    slates, scores, signals = findings.slates, findings.scores, findings.signals
    made: list[Detail | None] = [None] * len(slates.item)
    asked = slates.batch.column("detail").to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(asked[slates.slate] & scores.matches)
    if not len(rows):
        return made
    moments = {
        slate: similar_moments(slates, scores, models, slate) for slate in np.unique(slates.slate[rows]).tolist()
    }
    searches = {slate: Search(findings, models, slate) for slate in moments}
    session_scores = np.einsum(
        "td,td->t", scores.items[rows].astype(np.float64), scores.reading.vector[slates.slate[rows]].astype(np.float64)
    )
    session_scores += scores.bias[rows]
    ledgers = zip(feature_ledgers(findings, rows), event_ledgers(findings, models, rows), strict=True)
    for row, session_score, (features, events) in zip(rows.tolist(), session_scores.tolist(), ledgers, strict=True):
        slate = int(slates.slate[row])
        base_value, raw_score = float(signals.base_value[row]), float(signals.raw_score[row])
        made[row] = Detail(
            base_value=base_value,
            raw_score=raw_score,
            residual=base_value + sum(each["contribution"] for each in features) - raw_score,
            features=features,
            session_score=session_score,
            events=events,
            events_together=_together(session_score, events),
            recourse=searches[slate].recourse(row, wordings[slate]),
            similar_moments=moments[slate],
            contrast=None,
        )
    for row, following in _following(findings, rows):
        mine, theirs = made[row], made[following]
        if mine is not None and theirs is not None:
            mine["contrast"] = contrast(mine, theirs, slates.item_id[following].as_py())
    return made


def _following(findings: Findings, rows: Ints) -> Iterator[tuple[int, int]]:
    """Yield each of the items in rows int64 [n] with the item of its slate that is shown next."""
    slates = findings.slates
    order = np.lexsort((slates.position, slates.slate))
    following = dict(zip(order[:-1].tolist(), order[1:].tolist(), strict=True))
    for row in rows.tolist():
        other = following.get(row)
        if other is not None and slates.slate[other] == slates.slate[row]:
            yield row, other


def _together(session_score: float, events: Sequence[EventLedger]) -> float | None:
    """Return what the effects of single events leave of the session score; None where an effect is not known."""
    effects = [each["effect"] for each in events if each["effect"] is not None]
    return session_score - sum(effects) if len(effects) == len(events) else None
