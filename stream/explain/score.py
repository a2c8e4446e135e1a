"""Score: run the bundle's models, and check that they reproduce the scores that were sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.reranker.runtime import Rescorer
from models.session.histories import Reading
from stream.explain.models import Models
from stream.explain.slates import Bools, Doubles, Floats, Slates


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of S slates with T items by the bundle's models.

    reading: the session model's output for each slate's history; items float32 [T, d], item vectors, zero where the
    item is unknown; mean float32 [S, d], the mean vector of each slate's known items, which centres score drops;
    reranking float32 [T], our re-ranking score where it reproduces the score that was sent, else the score that was
    sent; matches bool [T], both scores are reproduced; rescorer: computes the re-ranking score of any item with another
    session score, without evaluating all trees again.
    """

    reading: Reading
    items: Floats
    mean: Floats
    reranking: Floats
    matches: Bools
    rescorer: Rescorer


def score(slates: Slates, models: Models) -> Scores:
    """Run the session model once per slate and the re-ranker once per item.

    The session model's input lacks events that the bundle does not know; if the recommender knew them, its ranking
    score is not reproduced, and the item counts as a mismatch. An empty history has the zero vector, so every item's
    session score is 0.
    """
    reading = models.session.read(slates.histories)
    items = models.bundle.item_vectors[slates.item]
    ranking = np.einsum("td,td->t", reading.vector[slates.slate], items)
    tolerance = models.bundle.manifest.score_tolerance
    candidates = slates.known & ~slates.foreign[slates.slate]
    candidates &= _near(ranking, slates.ranking_score, tolerance)
    rows = np.flatnonzero(candidates)
    matches = np.zeros(len(rows), dtype=np.bool_)
    reranking = slates.reranking_score.astype(np.float32)
    rescorer = models.reranker.rescorer(slates.features)
    if len(rows):
        ours = rescorer.score(rows, slates.features[rows, -1])
        matches = _near(ours, slates.reranking_score[rows], tolerance)
        reranking[rows[matches]] = ours[matches]
    candidates[rows] = matches
    return Scores(reading, items, slates.mean(items, slates.known), reranking, candidates, rescorer)


def _near(ours: Floats | Doubles, sent: Doubles, tolerance: float) -> Bools:
    """Whether scores are equal within the tolerance; it is relative to the score that was sent if that is above 1."""
    return np.abs(ours - sent) <= tolerance * np.maximum(1.0, np.abs(sent))
