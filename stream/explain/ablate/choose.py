"""Choose: which of the measured candidates are cited, at most CITED for each item."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from models.attribution.ablation import DELETE, Edits, session_vectors
from models.compiled import compiled
from stream.explain.ablate.margin import age_weights, citation_margin, margin_drop
from stream.explain.ablate.measure import Measured
from stream.explain.ablate.propose import CITED
from stream.explain.counterfactual import score_drops
from stream.explain.models import Models
from stream.explain.score import Scores
from stream.explain.slates import Floats, Ints, Slates

SECOND: Final = 0.5
"""Share of the first citation's drop that a second citation must still have: it is one more thing to read."""


def confirmed(measured: Measured, slates: Slates, scores: Scores, models: Models) -> Ints:
    """Cite the events with the largest smallest drop, each another title: rows of measured, int64 [T, CITED], -1: none.

    Only candidates above the margin are cited, and none whose deletion lifts the item: its own score drops then, but
    other items of the slate drop further, so the event is no reason for the item's place. A second event is cited if,
    with the first deleted, its deletion still exceeds the margin and SECOND of the first event's drop.
    """
    cited = np.full((len(slates.item), CITED), -1)
    items = slates.histories.item[slates.slate[measured.item], measured.event]
    titles = models.bundle.catalog.title_codes[items]
    eligible = measured.above & (measured.rank_without >= measured.rank[measured.item])
    _choose(measured.item, titles, measured.smallest_drop, eligible, cited)
    pair = cited[cited[:, 1] >= 0]
    if len(pair):
        margin = citation_margin(models)
        weight = age_weights(slates.histories.width, models.bundle.manifest.citation_ageing)[measured.event]
        first, second = pair.T
        of_first = margin_drop(measured.drop[first], measured.centred_drop[first], weight[first])
        of_second = margin_drop(*_drops_given(measured, first, second, slates, scores, models), weight[second])
        refused = ~(of_second > np.maximum(margin, SECOND * of_first))
        cited[measured.item[first[refused]], 1] = -1
    return cited


def as_proposed(measured: Measured, slates: Slates, scores: Scores, models: Models) -> Ints:  # noqa: ARG001 (one shape)
    """Cite every candidate whose deletion could be measured: rows of measured, int64 [T, CITED], -1 for none."""
    cited = np.full((len(slates.item), CITED), -1)
    row = np.flatnonzero(np.isfinite(measured.drop))
    item = measured.item[row]
    cited[item, np.arange(len(row)) - np.searchsorted(item, item)] = row
    return cited


def _drops_given(
    measured: Measured, first: Ints, second: Ints, slates: Slates, scores: Scores, models: Models
) -> tuple[Floats, Floats]:
    """Score drops and centred score drops by the deletion of second events after that of the first ones; int64 [n]."""
    item, width = measured.item[first], slates.histories.width
    one, other = measured.event[first], measured.event[second]
    # Many items of a slate have the same two citations.
    key = (slates.slate[item] * width + np.minimum(one, other)) * width + np.maximum(one, other)
    pairs, which = np.unique(key, return_inverse=True)
    session, columns = np.divmod(pairs, width * width)
    edits = Edits(session, np.full(len(pairs), DELETE), np.stack(np.divmod(columns, width), axis=1))
    after = session_vectors(models.session, scores.reading, edits), which
    return score_drops(slates, scores, item, (measured.without, measured.distinct[first]), after)


@compiled
def _choose(item: Any, titles: Any, smallest_drop: Any, eligible: Any, cited: Any) -> None:
    """Write the rows of each item's eligible candidates to cited [T, C], the largest drop first, each another title."""
    begin = 0
    while begin < len(item):
        end = begin
        while end < len(item) and item[end] == item[begin]:
            end += 1
        chosen = cited[item[begin]]
        for place in range(len(chosen)):
            for row in range(begin, end):
                fits = eligible[row] and (chosen[place] < 0 or smallest_drop[row] > smallest_drop[chosen[place]])
                for before in chosen[:place]:
                    fits &= titles[before] != titles[row]
                if fits:
                    chosen[place] = row
            if chosen[place] < 0:
                break
        begin = end
