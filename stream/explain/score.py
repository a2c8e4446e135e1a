"""Score: run the bundle's models, and check that they reproduce the scores that were sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.attribution.ablation import Edits, remaining
from models.bundle import Bundle
from models.reranker.history_features import HistoryFeatures
from models.reranker.runtime import Rescores, SessionRanking
from models.session.histories import Reading
from schemas.events import MISMATCHES
from stream.explain.models import Models
from stream.explain.slates import Bools, Doubles, Floats, Ints, Slates

_HISTORY_FEATURES: Final = MISMATCHES.index("history_features")
_RERANKING_SCORE: Final = MISMATCHES.index("reranking_score")
_OTHER_ITEMS: Final = MISMATCHES.index("other_items")

_FLOAT32_ROUNDING: Final = 2.0**-20
"""Relative difference that a float32 dot product of some hundred terms may have in another order of summation."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of S slates with T items by the bundle's models.

    reading: the session model's output for each slate's history; items float32 [T, d], item vectors, and bias float32
    [T], item biases, zero where the item is unknown; mean float32 [S, d], the mean vector of each slate's known items,
    which centres score drops; reranking float32 [T], our re-ranking score where it reproduces the score that was sent,
    else the score that was sent; matches bool [T], both scores are reproduced; mismatch int64 [T],
    an index into MISMATCHES where they are not, else -1; rescorer: computes the re-ranking score
    of any item with another session score, without evaluating all trees again; history_features: computes the features
    that derive from the history again, None where they stay as they were sent.
    """

    reading: Reading
    items: Floats
    bias: Floats
    mean: Floats
    reranking: Floats
    matches: Bools
    mismatch: Ints
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
    mismatch = _not_ours(slates, models.bundle)
    candidates = mismatch < 0
    ranking = np.einsum("td,td->t", reading.vector[slates.slate], items) + bias
    tolerance = models.bundle.manifest.score_tolerance * models.spread.session
    differ = candidates & ~_near(ranking, slates.ranking_score, tolerance)
    mismatch[differ] = _unread(slates)[slates.slate[differ]]
    rescorer: Rescores = SessionRanking() if models.reranker is None else models.reranker.rescorer(slates.features)
    rows = np.flatnonzero(mismatch < 0)
    if models.history_features is not None:
        mismatch[rows[~_same_features(models.history_features, slates, rows)]] = _HISTORY_FEATURES
        rows = np.flatnonzero(mismatch < 0)
    raw = rescorer.raw(rows, slates.ranking_score[rows])
    mismatch[rows[~_same_raw(raw, slates.reranking_score[rows], models)]] = _RERANKING_SCORE
    chance = (mismatch < 0) & ~_by_most(mismatch < 0, candidates, slates)[slates.slate]
    mismatch[chance] = _OTHER_ITEMS
    kept = mismatch[rows] < 0
    reranking = slates.reranking_score.astype(np.float32)
    reranking[rows[kept]] = rescorer.sent(raw[kept])
    mean = slates.mean(items, slates.known)
    return Scores(reading, items, bias, mean, reranking, mismatch < 0, mismatch, rescorer, models.history_features)


def _not_ours(slates: Slates, bundle: Bundle) -> Ints:
    """Say of each item which cannot be ours at all: its mismatch, int64 [T], -1 for the others."""
    mismatch = np.where(slates.known, -1, MISMATCHES.index("unknown_item"))
    if slates.foreign.any():
        other_model = np.array([each != bundle.model_version for each in slates.texts("model_version")])
        served = np.where(other_model, MISMATCHES.index("other_model"), MISMATCHES.index("other_features"))
        foreign = slates.foreign[slates.slate]
        mismatch[foreign] = served[slates.slate[foreign]]
    return mismatch


def _unread(slates: Slates) -> Ints:
    """Say of each slate why its ranking scores may differ: a mismatch, int64 [S]."""
    events, known = np.diff(slates.sessions), slates.histories.length
    if slates.histories.older is not None:
        known = known + slates.histories.older.length
    cause = np.where(events > known, MISMATCHES.index("unknown_event"), MISMATCHES.index("ranking_score"))
    return np.where((known == 0) & (events == 0), MISMATCHES.index("empty_session"), cause)


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
