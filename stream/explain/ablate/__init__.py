"""Ablate: which past events are cited for each item. Propose, measure, choose, over one table of candidates.

Whichever policy proposes, every candidate is measured by the ablations that the bundle demands
(``models/attribution/ablation.py``): deletion always, and of blanking, masking and substitution those that the session
model allows. A citation holds if the item's score drop exceeds the bundle's margin under each of them, its centred
score drop a quarter of the margin, and if the deletion, carried through the re-ranker to the order of the slate, does
not lift the item. The bundle may ask more of older events.

In a slate of one item every centred score drop is zero, so no citation holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from stream.explain.ablate.choose import as_proposed, confirmed
from stream.explain.ablate.measure import Measured, measure
from stream.explain.ablate.propose import CITED, EVENTS, Candidates, by_attention, by_evidence
from stream.explain.counterfactual import ranks
from stream.explain.models import Models
from stream.explain.score import Scores
from stream.explain.slates import Bools, Floats, Ints, Slates

__all__ = ["CITED", "EVENTS", "POLICIES", "Citations", "Policy", "ablate"]


@dataclass(frozen=True, slots=True)
class Citations:
    """Past events cited for each of T items: C columns, the first citation first.

    column int64 [T, C], the event's column in the history, -1 for none; attribution float32 [T, C], the centred score
    drop by masking; drop and drop_centred float32 [T, C], the score drop and centred score drop by deletion (NaN where
    there is no citation); holds bool [T, C]; rank int64 [T], by re-ranking score, ties in the order shown; rank_without
    int64 [T, C], the rank after the deletion; decisive int64 [T], which of the citations that hold lowers the rank
    most, -1 where none does or where that cannot be said; by_score bool [S], the slate is shown in the order of its
    scores.
    """

    column: Ints
    attribution: Floats
    drop: Floats
    drop_centred: Floats
    holds: Bools
    rank: Ints
    rank_without: Ints
    decisive: Ints
    by_score: Bools


@dataclass(frozen=True, slots=True)
class Policy:
    """How citations are made: who proposes candidates, who chooses among the measured ones.

    only_confirmed: a candidate that is not above the margin is never cited, so its counterfactual rank is not needed.
    """

    propose: Callable[[Slates, Scores, Models], Candidates]
    choose: Callable[[Measured, Slates, Scores, Models], Ints]
    only_confirmed: bool


POLICIES: Final[dict[str, Policy]] = {
    "evidence": Policy(by_evidence, confirmed, only_confirmed=True),
    "attention": Policy(by_attention, as_proposed, only_confirmed=False),
}


def ablate(policy: str, slates: Slates, scores: Scores, models: Models) -> Citations:
    """Propose past events for each item, measure them by ablation, and choose those that are cited."""
    rules = POLICIES[policy]
    candidates = rules.propose(slates, scores, models)
    measured = measure(candidates, slates, scores, models, rank_all=not rules.only_confirmed)
    chosen = rules.choose(measured, slates, scores, models)
    return _citations(measured, chosen, slates, scores, models.bundle.catalog.title_codes)


def _citations(measured: Measured, chosen: Ints, slates: Slates, scores: Scores, title_codes: Ints) -> Citations:
    """Lay the chosen rows of measured, int64 [T, C], out by item."""
    cited = chosen >= 0
    item, place = np.nonzero(cited)
    row = chosen[item, place]

    def by_item(values: Floats | Ints | Bools, otherwise: Floats | Ints | Bools | float) -> np.ndarray:
        laid_out = np.empty(chosen.shape, dtype=values.dtype)
        laid_out[:] = otherwise
        laid_out[item, place] = values[row]
        return laid_out

    rank = measured.rank
    column, rank_without = by_item(measured.event, -1), by_item(measured.rank_without, rank[:, None])
    holds = by_item(measured.above & (measured.rank_without >= rank[measured.item]), otherwise=False)
    shown = ranks(slates.offsets, -slates.position, slates.position)
    out_of_order = np.bincount(slates.slate, weights=rank != shown, minlength=len(slates.foreign))
    return Citations(
        column=column,
        attribution=by_item(measured.attribution, 0.0),
        drop=by_item(measured.drop, np.nan),
        drop_centred=by_item(measured.centred_drop, np.nan),
        holds=holds,
        rank=rank,
        rank_without=rank_without,
        decisive=_decisive(slates, scores, title_codes, column, holds, rank_without - rank[:, None]),
        by_score=out_of_order == 0,
    )


def _decisive(slates: Slates, scores: Scores, title_codes: Ints, column: Ints, holds: Bools, lower: Ints) -> Ints:
    """Which citation lowers the rank most, int64 [T]; column, holds and lower (by how many ranks) are [T, C].

    title_codes: of the catalogue. -1 where a score of the slate could not be reproduced, and where the title is in the
    session more than once, whether as the same item or as another, and before the events that the model reads included:
    "without it" would then mean an edit that was not measured.
    """
    reproduced = np.bincount(slates.slate, weights=~scores.matches, minlength=len(slates.foreign)) == 0
    titles, every = title_codes[slates.histories.item], title_codes[slates.histories.all_items]
    once = (titles[:, :, None] == every[:, None, :]).sum(axis=2) == 1
    sayable = holds & np.take_along_axis((once & reproduced[:, None])[slates.slate], np.maximum(column, 0), axis=1)
    lower = np.where(sayable, lower, 0)
    return np.where((lower > 0).any(axis=1), lower.argmax(axis=1), -1)
