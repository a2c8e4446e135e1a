"""Verify: which past events may be cited, proposed by a policy and measured by deletion.

Whatever proposes, each proposed event is deleted and the session model run again, as the recommender itself would have
run. A citation holds when the item's score falls by more than the bundle's margin both in itself and relative to the
slate, and when the fall, carried through the re-ranker to the order of the slate, does not lift the item.

A slate of one item has nothing to be relative to: it gets no citation that holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.attribution.history import Deletions
from models.reranker.runtime import Reranker
from stream.explain.columns import Bools, Floats, Ints, Slates, watched
from stream.explain.models import Models
from stream.explain.scores import Scores

CITED: Final = 2
"""Past events that one explanation names at most."""

CANDIDATES: Final = 3
"""Past events per item that masking proposes and deletion tries."""

MAX_RERANKED_ROWS: Final = 65_536
"""Rows of features that are laid out at once; large slates with long histories have more."""

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


class Laboratory:
    """Measurements on the histories of one batch: masking effects, and deletions that are run once each."""

    def __init__(self, slates: Slates, scores: Scores, models: Models) -> None:
        self.slates = slates
        self.scores = scores
        # A fall smaller than what we can reproduce of a score is no fall.
        self.margin = max(models.bundle.manifest.citation_margin, models.bundle.manifest.score_tolerance)
        self.watched = watched(slates.histories, models.bundle)
        self._deletions = Deletions(models.session, slates.histories)
        self.raw, self.relative = _masking_effects(slates, scores)

    def effect(self, item: Ints, before: Floats, after: Floats) -> tuple[Floats, Floats]:
        """Fall of items' scores from one session vector to another, in itself and relative to the slate: [n] each."""
        fall = before - after
        return (
            np.einsum("nd,nd->n", fall, self.scores.items[item]),
            np.einsum("nd,nd->n", fall, self.scores.centred[item]),
        )

    def deleted(self, item: Ints, column: Ints, other: Ints | None = None) -> Floats:
        """Session vector of the item's slate without one event or two, float32 [n, d]; all arguments int64 [n]."""
        return self._deletions.vectors(self.slates.slate[item], column, other)

    def measure(self, column: Ints) -> tuple[Floats, Floats, Bools]:
        """Delete each proposed event by itself: fall in itself, relative fall, and whether both exceed the margin.

        column is int64 [T, C], -1 for none; all three are [T, C].
        """
        drop = np.full(column.shape, np.nan, dtype=np.float32)
        centred = drop.copy()
        item, place = np.nonzero(column >= 0)
        if len(item):
            before = self.scores.reading.vector[self.slates.slate[item]]
            after = self.deleted(item, column[item, place])
            drop[item, place], centred[item, place] = self.effect(item, before, after)
        return drop, centred, (drop > self.margin) & (centred > self.margin)


def _masking_effects(slates: Slates, scores: Scores) -> tuple[Floats, Floats]:
    """Fall of each item's score without each event, in itself and relative to the slate: float32 [T, W] each."""
    raw = np.zeros((len(slates.item), slates.histories.width), dtype=np.float32)
    relative = raw.copy()
    for row in np.flatnonzero(slates.histories.length).tolist():
        items = slice(slates.offsets[row], slates.offsets[row + 1])
        first = slates.histories.first_column(row)
        fall = (scores.reading.vector[row] - scores.without[row, first:]).T
        raw[items, first:] = scores.items[items] @ fall
        relative[items, first:] = scores.centred[items] @ fall
    return raw, relative


def by_evidence(laboratory: Laboratory) -> Ints:
    """Propose by masking, confirm by deletion, choose the second given the first; int64 [T, CITED], -1 for none.

    Only what was watched can be a reason; a skip may well have moved the item, but nobody wants to be told so. The
    best CANDIDATES by relative masking effect are tried; the first that deletion confirms is cited. The second is
    the one among the other confirmed whose deletion, after the first is gone, still lowers the score most.
    """
    slates, margin = laboratory.slates, laboratory.margin
    able = laboratory.scores.matches[:, None] & (laboratory.raw > margin) & (laboratory.relative > margin)
    able &= laboratory.watched[slates.slate]
    candidates = _largest(np.where(able, laboratory.relative, -np.inf), CANDIDATES)
    holds = laboratory.measure(candidates)[2]
    cited = np.full((len(slates.item), CITED), -1, dtype=np.int64)
    item = np.flatnonzero(holds.any(axis=1))
    first = candidates[item, holds[item].argmax(axis=1)]
    cited[item, 0] = first
    others = candidates[item]
    titles = slates.histories.item[slates.slate[item]]
    # The same title is not named twice.
    another = np.take_along_axis(titles, others, axis=1) != np.take_along_axis(titles, first[:, None], axis=1)
    row, place = np.nonzero(another & holds[item])
    if len(row):
        pair, given, second = item[row], first[row], others[row, place]
        drop, centred = laboratory.effect(
            pair, laboratory.deleted(pair, given), laboratory.deleted(pair, given, second)
        )
        fall = np.full(others.shape, -np.inf, dtype=np.float32)
        fall[row, place] = np.where((drop > margin) & (centred > margin), centred, -np.inf)
        cited[item, 1] = np.where(
            np.isfinite(fall).any(axis=1), np.take_along_axis(others, fall.argmax(axis=1)[:, None], 1)[:, 0], -1
        )
    return cited


def by_attention(laboratory: Laboratory) -> Ints:
    """Propose the two events of most attention, where they got more than half: the reference's rule.

    The same events for all items of a slate; int64 [T, CITED], -1 for none.
    """
    attention = laboratory.scores.reading.attention
    top = _largest(np.where(laboratory.slates.histories.item > 0, attention, -np.inf), CITED)
    weight = np.where(top >= 0, np.take_along_axis(attention, top, axis=1), 0.0).sum(axis=1)
    cited = np.where(weight[:, None] > ATTENTION_THRESHOLD, top, -1)[laboratory.slates.slate]
    return np.where(laboratory.scores.matches[:, None], cited, -1)


PROPOSALS: Final[dict[str, Callable[[Laboratory], Ints]]] = {"evidence": by_evidence, "attention": by_attention}
"""Who proposes citations: one row per policy."""


def verify(policy: str, slates: Slates, scores: Scores, models: Models) -> Citations:
    """Let the policy propose citations, and measure each by deletion, down to the order of the slate."""
    laboratory = Laboratory(slates, scores, models)
    rank = ranks(slates.slate, scores.reranking, slates.position)
    column = PROPOSALS[policy](laboratory)
    rank_without = _ranks_without_each(laboratory, models.reranker, column, rank)
    if policy == "evidence":
        column, rank_without = _not_lifted(column, rank_without, rank)
    drop, centred, holds = laboratory.measure(column)
    holds &= rank_without >= rank[:, None]
    shown = ranks(slates.slate, -slates.position, slates.position)
    out_of_order = np.bincount(slates.slate, weights=rank != shown, minlength=len(slates.foreign))
    attribution = np.where(column >= 0, np.take_along_axis(laboratory.relative, np.maximum(column, 0), axis=1), 0.0)
    return Citations(
        column=column,
        attribution=attribution.astype(np.float32),
        drop=drop,
        drop_centred=centred,
        holds=holds,
        rank=rank,
        rank_without=rank_without,
        decisive=_decisive(laboratory, column, holds, rank_without - rank[:, None]),
        by_score=out_of_order == 0,
    )


def _ranks_without_each(laboratory: Laboratory, reranker: Reranker, column: Ints, rank: Ints) -> Ints:
    """Rank of each item without each event proposed for it, int64 [T, C]; its rank as it is where there is none."""
    rank_without = np.repeat(rank[:, None], column.shape[1], axis=1)
    item, place = np.nonzero(column >= 0)
    if len(item):
        rank_without[item, place] = _ranks_without(laboratory, reranker, item, column[item, place])
    return rank_without


def _not_lifted(column: Ints, rank_without: Ints, rank: Ints) -> tuple[Ints, Ints]:
    """Drop the citations without which the item would stand higher, and close the gaps: column, rank_without [T, C].

    Its own score falls, but others of the slate fall further: the event is no reason for its place.
    """
    kept = (column >= 0) & (rank_without >= rank[:, None])
    order = np.argsort(~kept, axis=1, kind="stable")
    column = np.where(kept, column, -1)
    rank_without = np.where(kept, rank_without, rank[:, None])
    return np.take_along_axis(column, order, axis=1), np.take_along_axis(rank_without, order, axis=1)


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


def ranks(group: Ints, score: npt.NDArray[np.number], position: Ints) -> Ints:
    """Rank of each row by score, highest first, within its group; ties in the order shown. All int64 [n] or [n]."""
    order = np.lexsort((position, -score, group))
    sizes = np.bincount(group)
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    return rank


def _ranks_without(laboratory: Laboratory, reranker: Reranker, item: Ints, column: Ints) -> Ints:
    """Rank of each item with an event of its history deleted: every item of the slate is scored again, int64 [n].

    An item whose scores we cannot reproduce keeps the re-ranking score that was sent.
    """
    slates, scores = laboratory.slates, laboratory.scores
    width = slates.histories.width
    deletions, which = np.unique(slates.slate[item] * width + column, return_inverse=True)
    slate, column = np.divmod(deletions, width)
    size = np.diff(slates.offsets)[slate]
    start = np.cumsum(size) - size
    group = np.repeat(np.arange(len(slate)), size)
    row = np.arange(len(group)) - start[group] + slates.offsets[slate][group]
    vector = laboratory.deleted(slates.offsets[slate], column)
    score = scores.reranking[row]
    again = np.flatnonzero(scores.matches[row])
    for part in np.array_split(again, -(-len(again) // MAX_RERANKED_ROWS)):
        features = slates.features[row[part]]
        features[:, -1] = np.einsum("nd,nd->n", vector[group[part]], scores.items[row[part]])
        score[part] = reranker.score(features)
    rank = ranks(group, score, slates.position[row])
    found: Ints = rank[start[which] + item - slates.offsets[slates.slate[item]]]
    return found


def _largest(values: Floats, count: int) -> Ints:
    """Columns of the largest finite values of each row, largest first, int64 [n, count]; -1 where there are fewer."""
    count_here = min(count, values.shape[1])
    part = np.argpartition(-values, count_here - 1, axis=1)[:, :count_here]
    order = np.take_along_axis(part, np.argsort(-np.take_along_axis(values, part, 1), axis=1, kind="stable"), axis=1)
    order = np.where(np.isfinite(np.take_along_axis(values, order, axis=1)), order, -1)
    return np.pad(order, ((0, 0), (0, count - count_here)), constant_values=-1).astype(np.int64)
