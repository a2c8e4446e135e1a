"""Score: run the models that we hold, and see whether they are the ones that served."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.attribution import METHODS
from models.attribution.glance import glance
from models.attribution.history import Floats, Reading
from models.reranker.runtime import Rescorer
from stream.explain.columns import Bools, Doubles, Slates, watched
from stream.explain.models import Models


@dataclass(frozen=True, slots=True)
class Scores:
    """What our models say of each item, and whether they agree with what was sent.

    reading: the session model's output per slate; without float32 [S, W, d], the session vector without each event,
    nearly (see ``models/attribution/glance.py``): it proposes, and what is said rests on runs of their own;
    items float32 [T, d], item vectors (zero where unknown); mean float32 [S, d], of each slate's known items, so that a
    product with an item's vector minus it is relative to the slate; reranking float32 [T], our re-ranking score where
    it reproduces the one sent, else the one sent; matches bool [T], both scores are reproduced; rescorer: scores any of
    the T items again, with another session score, without asking all trees again.
    """

    reading: Reading
    without: Floats
    items: Floats
    mean: Floats
    reranking: Floats
    matches: Bools
    rescorer: Rescorer


def score(slates: Slates, models: Models, *, unwatched: bool = True) -> Scores:
    """Run the session model once per slate and the re-ranker once per item.

    Where nobody asks what events do that were not watched, as ``unwatched=False`` says, they seem to do nothing; of the
    newest two, for which the effect is exact, it is always said.

    Events that the bundle does not know are left out of the session model's input; if the recommender knew them, its
    ranking score is not reproduced, and the item counts as a mismatch. An empty history has the zero vector, so every
    item's session score is 0.
    """
    histories = slates.histories
    wanted = (
        None if unwatched else watched(histories, models.bundle) | (np.arange(histories.width) >= histories.width - 2)
    )
    reading = glance(models.session, histories, wanted)
    without = reading.without if reading.without is not None else METHODS["deletion"](models.session, histories)
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
    return Scores(reading, without, items, slates.mean(items, slates.known), reranking, candidates, rescorer)


def _near(ours: Floats | Doubles, sent: Doubles, tolerance: float) -> Bools:
    """Equal within the tolerance: absolute around 1 and below, relative above, as float32 has it."""
    return np.abs(ours - sent) <= tolerance * np.maximum(1.0, np.abs(sent))
