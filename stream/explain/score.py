"""Score: run the bundle's models, and check that they reproduce the scores that were sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.attribution.ablation import Edits, remaining
from models.reranker.history_features import HistoryFeatures
from models.reranker.runtime import Rescores, SessionRanking
from models.session.histories import Reading
from stream.explain.models import Models
from stream.explain.slates import Bools, Doubles, Floats, Ints, Slates

_FLOAT32_ROUNDING: Final = 2.0**-20
"""Relative difference that a float32 dot product of some hundred terms may have in another order of summation."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of S slates with T items by the bundle's models.

    reading: the session model's output for each slate's history; items float32 [T, d], item vectors, and bias float32
    [T], item biases, zero where the item is unknown; mean float32 [S, d], the mean vector of each slate's known items,
    which centres score drops; reranking float32 [T], our re-ranking score where it reproduces the score that was sent,
    else the score that was sent; matches bool [T], both scores are reproduced; rescorer: computes the re-ranking score
    of any item with another session score, without evaluating all trees again; history_features: computes the features
    that derive from the history again, None where they stay as they were sent.
    """

    reading: Reading
    items: Floats
    bias: Floats
    mean: Floats
    reranking: Floats
    matches: Bools
    rescorer: Rescores
    history_features: HistoryFeatures | None


def score(slates: Slates, models: Models) -> Scores:
    """Run the session model once per slate and the re-ranker once per item.

    The session model's input lacks events that the bundle does not know; if the recommender knew them, its ranking
    score is not reproduced, and the item counts as a mismatch. If most items of a slate are mismatches, another model
    scored the slate, and the few scores that agree do so by chance.
    """
    reading = models.session.read(slates.histories)
    items = models.bundle.item_vectors[slates.item]
    bias = models.bundle.item_bias[slates.item]
    ranking = np.einsum("td,td->t", reading.vector[slates.slate], items) + bias
    tolerance = models.bundle.manifest.score_tolerance
    candidates = slates.known & ~slates.foreign[slates.slate]
    reproduced = candidates & _near(ranking, slates.ranking_score, tolerance * models.spread.session)
    rows = np.flatnonzero(reproduced)
    reranking = slates.reranking_score.astype(np.float32)
    rescorer: Rescores = SessionRanking() if models.reranker is None else models.reranker.rescorer(slates.features)
    if models.history_features is not None:
        reproduced[rows] = _same_features(models.history_features, slates, rows)
        rows = rows[reproduced[rows]]
    session_score = slates.ranking_score[rows]
    raw = rescorer.raw(rows, session_score)
    reproduced[rows] = _same_raw(raw, slates.reranking_score[rows], models)
    reproduced &= _by_most(reproduced, candidates, slates)[slates.slate]
    kept = reproduced[rows]
    reranking[rows[kept]] = rescorer.sent(raw[kept])
    return Scores(
        reading, items, bias, slates.mean(items, slates.known), reranking, reproduced, rescorer, models.history_features
    )


def _near(ours: Floats | Doubles, sent: Doubles, tolerance: float) -> Bools:
    """Whether scores are equal within the tolerance and what float32 arithmetic may lose."""
    near: Bools = np.abs(ours - sent) <= tolerance + _FLOAT32_ROUNDING * np.abs(sent)
    return near


def _same_features(history_features: HistoryFeatures, slates: Slates, rows: Ints) -> Bools:
    """Whether the history-derived features of items int64 [n] are those that the bundle computes: bool [n]."""
    nothing = Edits.deletions(slates.slate[rows], np.zeros((len(rows), 1), np.bool_))
    values = history_features.values(*remaining(slates.histories, nothing), slates.item[rows])
    return history_features.agree(slates.features[np.ix_(rows, history_features.columns)], values)


def _same_raw(raw: Doubles, sent: Doubles, models: Models) -> Bools:
    """Whether re-ranking scores are equal to those sent, bool [n], on the scale of the raw scores."""
    tolerance = models.bundle.manifest.score_tolerance
    if models.reranker is None:
        return _near(raw, sent, tolerance * models.spread.session)
    link = models.reranker.link
    allowed = tolerance * models.spread.reranker + link.rounding(sent)
    same: Bools = np.abs(raw - link.raw(sent)) <= allowed
    return same


def _by_most(reproduced: Bools, candidates: Bools, slates: Slates) -> Bools:
    """Whether at least half of the scores of each slate are reproduced, of those that could be: bool [S]."""
    count = len(slates)
    found, asked = (np.bincount(slates.slate[which], minlength=count) for which in (reproduced, candidates))
    most: Bools = 2 * found >= asked
    return most
