"""Verify: which past events may be cited, proposed by a policy and measured by every removal.

Whatever proposes, each proposed event is taken away in the three ways of ``stream/explain/laboratory.py``: hidden,
deleted and run again as the recommender itself would have run, and blanked. A citation holds when each of them lowers
the item's score by more than the bundle's margin, both in itself and relative to the slate, and when the deletion,
carried through the re-ranker to the order of the slate, does not lift the item. (A session model that knows no blank
event is asked in two ways only.)

A slate of one item has nothing to be relative to: it gets no citation that holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from stream.explain.columns import Bools, Floats, Ints, Slates
from stream.explain.laboratory import Laboratory, ranks
from stream.explain.models import Models
from stream.explain.scores import Scores

CITED: Final = 2
"""Past events that one explanation names at most."""

CANDIDATES: Final = 3
"""Past events per item that masking proposes and the other removals try."""

EVENTS: Final = 6
"""Past events per slate that are tried at most, whatever its items ask for: what bounds the cost of a slate."""

ATTENTION_THRESHOLD: Final = 0.5
"""The reference's rule: the two events that got most attention got more than this."""


@dataclass(frozen=True, slots=True)
class Citations:
    """Past events named for each item: C columns per item, the first named first.

    column int64 [T, C], the event's column in the padded history, -1 for none; attribution float32 [T, C], masking
    effect minus the slate's mean; drop and drop_centred float32 [T, C], what deletion did to the score, in itself and
    minus the slate's mean (NaN where there is none); holds bool [T, C]; rank int64 [T], by re-ranking score, ties as
    shown; rank_without int64 [T, C]; decisive int64 [T], which of the citations that hold lowers the rank most, -1
    where none does or where it cannot be said; by_score bool [S], the slate is shown in the order of its scores.
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


def by_evidence(laboratory: Laboratory) -> Ints:
    """Propose by masking, confirm by the other removals, the second given the first; int64 [T, CITED], -1 for none.

    Only what was watched can be a reason; a skip may well have moved the item, but nobody wants to be told so. The
    EVENTS that do most for the slate are looked at, and of them, for each item, the best CANDIDATES by relative masking
    effect. Of those that hold, the one is cited whose absence costs the item most relative to the slate, as the mean of
    all removals; and after it the next, if it is another title, and its deletion still lowers the score once the first
    is gone.
    """
    slates, margin = laboratory.slates, laboratory.margin
    propose = laboratory.proposing_margin
    able = laboratory.scores.matches[:, None] & (laboratory.raw > propose) & (laboratory.relative > propose)
    able &= laboratory.watched[slates.slate]
    able &= _worth_trying(slates, np.where(able, laboratory.relative, 0.0))
    candidates = _largest(np.where(able, laboratory.relative, -np.inf), CANDIDATES)
    falls = laboratory.measure(candidates)
    strength = np.where(falls.least > margin, falls.relative, -np.inf)
    first = _strongest(laboratory, candidates, strength)
    # The same title is not named twice.
    titles = slates.histories.item[slates.slate]
    same = np.take_along_axis(titles, candidates, axis=1) == np.take_along_axis(titles, first[:, None], axis=1)
    strength[same | (first < 0)[:, None]] = -np.inf
    second = _strongest(laboratory, candidates, strength)
    item = np.flatnonzero(second >= 0)
    if len(item):
        still = np.min(laboratory.falls_after(item, first[item], second[item]), axis=0) > margin
        second[item] = np.where(still, second[item], -1)
    return np.column_stack([first, second])


def _worth_trying(slates: Slates, gain: Floats) -> Bools:
    """Mark, for each item, the events that do most for all items of its slate together: bool [T, W]; gain [T, W]."""
    together = np.zeros(slates.histories.item.shape, dtype=np.float32)
    np.add.at(together, slates.slate, gain)
    most = _largest(np.where(together > 0, together, -np.inf), EVENTS)
    row, place = np.nonzero(most >= 0)
    worth = np.zeros(together.shape, dtype=np.bool_)
    worth[row, most[row, place]] = True
    return worth[slates.slate]


def _strongest(laboratory: Laboratory, candidates: Ints, strength: Floats) -> Ints:
    """Name the strongest candidate without which the item would not stand higher, int64 [T], -1 for none.

    Where an item would (its own score falls, but others of the slate fall further), the event is no reason for its
    place: its strength, float32 [T, C], becomes minus infinity, and the next is looked at.
    """
    item = np.arange(len(candidates))
    while True:
        place = strength.argmax(axis=1)
        named = np.where(np.isfinite(strength[item, place]), candidates[item, place], -1)
        lifted = laboratory.rank_without(named[:, None])[:, 0] < laboratory.rank
        if not lifted.any():
            return named
        strength[lifted, place[lifted]] = -np.inf


def by_attention(laboratory: Laboratory) -> Ints:
    """Propose the two events of most attention, where they got more than half: the reference's rule.

    The same events for all items of a slate; int64 [T, CITED], -1 for none.
    """
    attention = laboratory.scores.reading.attention
    top = _largest(np.where(laboratory.slates.histories.item > 0, attention, -np.inf), CITED)
    weight = np.where(top >= 0, np.take_along_axis(attention, top, axis=1), 0.0).sum(axis=1)
    cited = np.where(weight[:, None] > ATTENTION_THRESHOLD, top, -1)[laboratory.slates.slate]
    return np.where(laboratory.scores.matches[:, None], cited, -1)


UNWATCHED: Final = frozenset({"attention"})
"""Policies that may propose an event that was not watched, and so ask what it does."""

PROPOSALS: Final[dict[str, Callable[[Laboratory], Ints]]] = {"evidence": by_evidence, "attention": by_attention}
"""Who proposes citations: one row per policy."""


def verify(policy: str, slates: Slates, scores: Scores, models: Models) -> Citations:
    """Let the policy propose citations, and measure each, down to the order of the slate."""
    laboratory = Laboratory(slates, scores, models)
    rank = laboratory.rank
    column = PROPOSALS[policy](laboratory)
    rank_without = laboratory.rank_without(column)
    falls = laboratory.measure(column)
    holds = (falls.least > laboratory.margin) & (rank_without >= rank[:, None])
    shown = ranks(slates.slate, -slates.position, slates.position)
    out_of_order = np.bincount(slates.slate, weights=rank != shown, minlength=len(slates.foreign))
    attribution = np.where(column >= 0, np.take_along_axis(laboratory.relative, np.maximum(column, 0), axis=1), 0.0)
    return Citations(
        column=column,
        attribution=attribution.astype(np.float32),
        drop=falls.drop,
        drop_centred=falls.drop_centred,
        holds=holds,
        rank=rank,
        rank_without=rank_without,
        decisive=_decisive(laboratory, column, holds, rank_without - rank[:, None]),
        by_score=out_of_order == 0,
    )


def _decisive(laboratory: Laboratory, column: Ints, holds: Bools, lower: Ints) -> Ints:
    """Which citation lowers the rank most, int64 [T]; column, holds and lower (by how many ranks) are [T, C].

    Nothing is said where a score of the slate could not be reproduced, nor where the title stands in the history more
    than once: "without it" would then mean something that was not measured.
    """
    slates = laboratory.slates
    whole = np.bincount(slates.slate, weights=~laboratory.scores.matches, minlength=len(slates.foreign)) == 0
    titles = slates.histories.item
    once = (titles[:, :, None] == titles[:, None, :]).sum(axis=2) == 1
    sayable = holds & np.take_along_axis((once & whole[:, None])[slates.slate], np.maximum(column, 0), axis=1)
    lower = np.where(sayable, lower, 0)
    return np.where((lower > 0).any(axis=1), lower.argmax(axis=1), -1)


def _largest(values: Floats, count: int) -> Ints:
    """Columns of the largest finite values of each row, largest first, int64 [n, count]; -1 where there are fewer."""
    count_here = min(count, values.shape[1])
    part = np.argpartition(-values, count_here - 1, axis=1)[:, :count_here]
    order = np.take_along_axis(part, np.argsort(-np.take_along_axis(values, part, 1), axis=1, kind="stable"), axis=1)
    order = np.where(np.isfinite(np.take_along_axis(values, order, axis=1)), order, -1)
    return np.pad(order, ((0, 0), (0, count - count_here)), constant_values=-1).astype(np.int64)
