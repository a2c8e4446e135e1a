"""Measure: what every ablation of a candidate does to its item's score, and what its deletion does to its rank.

Each distinct event of a slate is ablated once, however many items it is a candidate for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.attribution.ablation import DELETE, MASK, Edits, available, session_vectors
from stream.explain.ablate.margin import age_weights, citation_margin, margin_drop
from stream.explain.ablate.propose import Candidates
from stream.explain.counterfactual import counterfactual_ranks, ranks, score_drops
from stream.explain.models import Models
from stream.explain.score import Scores
from stream.explain.slates import Bools, Floats, Ints, Slates


@dataclass(frozen=True, slots=True)
class Measured:
    """The n candidates with their measurements, over k distinct events of slates.

    item and event int64 [n], as proposed; attribution float32 [n], the centred score drop by masking, exact where it
    was measured, else as proposed; drop and centred_drop float32 [n], by deletion; smallest_drop float32 [n], the
    smallest over the ablations made, as it is compared with the margin (:func:`margin_drop`); above bool [n], whether
    it exceeds the margin; ablations int64 [n], how many were made; rank int64 [T], of each item by re-ranking score;
    rank_without int64 [n], after the deletion, where it was asked for, else the rank; distinct int64 [n], the
    candidate's event as a row of without float32 [k, d], the session vectors after its deletion.
    """

    item: Ints
    event: Ints
    attribution: Floats
    drop: Floats
    centred_drop: Floats
    smallest_drop: Floats
    above: Bools
    ablations: Ints
    rank: Ints
    rank_without: Ints
    distinct: Ints
    without: Floats


def measure(candidates: Candidates, slates: Slates, scores: Scores, models: Models, *, rank_all: bool) -> Measured:
    """Ablate each candidate in every way that the session model allows, until one drop is not above the margin.

    Counterfactual ranks are computed of the candidates above the margin or, with rank_all, of all candidates.
    """
    item, event = candidates.item, candidates.event
    slate, width = slates.slate[item], slates.histories.width
    key, distinct = np.unique(slate * width + event, return_inverse=True)
    session, column = np.divmod(key, width)
    margin = citation_margin(models)
    weight = age_weights(width, models.bundle.manifest.citation_ageing)[event]
    attribution, smallest = candidates.attribution.copy(), np.full(len(item), np.inf, dtype=np.float32)
    drop, centred_drop = (np.full_like(attribution, np.nan) for _ in range(2))
    ablations = np.zeros(len(item), dtype=np.int64)
    without = np.zeros((len(key), models.session.dimension), dtype=np.float32)
    for kinds in _rounds(models):
        asked = np.zeros(len(key), dtype=np.bool_)
        asked[distinct[smallest > margin]] = True
        row = np.cumsum(asked) - 1
        if kinds == (DELETE,) and candidates.deletions is not None:
            vectors = candidates.deletions.of(key[asked])
        else:
            edits = Edits.concatenate([Edits.of_events(kind, session[asked], column[asked]) for kind in kinds])
            vectors = session_vectors(models.session, scores.reading, edits)
        for kind, after in zip(kinds, np.split(vectors, len(kinds)), strict=True):
            pairs = np.flatnonzero(smallest > margin)
            before = scores.reading.vector, slate[pairs]
            one, centred = score_drops(slates, scores, item[pairs], before, (after, row[distinct[pairs]]))
            smallest[pairs] = np.minimum(smallest[pairs], margin_drop(one, centred, weight[pairs]))
            ablations[pairs] += 1
            if kind == DELETE:
                drop[pairs], centred_drop[pairs], without[asked] = one, centred, after
            if kind == MASK:
                attribution[pairs] = centred
    above = smallest > margin
    rank = ranks(slates.offsets, scores.reranking, slates.position)
    rank_without = rank[item]
    # A deletion that cannot be made, since nobody knows what an empty session scores, has no rank.
    ranked = np.flatnonzero((above | rank_all) & np.isfinite(drop))
    if len(ranked):
        events, which = np.unique(distinct[ranked], return_inverse=True)
        deletions = Edits.of_events(DELETE, session[events], column[events])
        offsets, order = counterfactual_ranks(slates, scores, deletions, without[events])
        rank_without[ranked] = order[offsets[which] + item[ranked] - slates.offsets[slate[ranked]]]
    return Measured(
        item=item,
        event=event,
        attribution=attribution,
        drop=drop,
        centred_drop=centred_drop,
        smallest_drop=smallest,
        above=above,
        ablations=ablations,
        rank=rank,
        rank_without=rank_without,
        distinct=distinct,
        without=without,
    )


def _rounds(models: Models) -> list[tuple[int, ...]]:
    """Group the ablations by the calls that make them; deletion is in the first.

    Incremental inference is so quick that one call for all ablations costs less than a call for each. The graph runs
    only what the ablations before left above the margin.
    """
    kinds = available(models.session)
    return [kinds] if models.session.incremental is not None else [(kind,) for kind in kinds]
