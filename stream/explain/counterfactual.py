"""Score drops and counterfactual ranks: how items' scores and order change with another session vector."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from models.attribution.ablation import Edits, remaining
from models.compiled import compiled, compiled_sum, empty
from stream.explain.score import Scores
from stream.explain.slates import Floats, Ints, Slates

MAX_RERANKED_ROWS: Final = 65_536
"""Rows that are scored in one call; large slates with long histories need more."""

Vectors = tuple[Floats, Ints]
"""Session vectors float32 [m, d], and which of them each of n items is scored with, int64 [n]."""


def score_drops(slates: Slates, scores: Scores, item: Ints, before: Vectors, after: Vectors) -> tuple[Floats, Floats]:
    """Score drop and centred score drop of items from one session vector to another, float32 [n] each.

    The drop of item i is (before - after) · item_vector; the centred drop subtracts the mean drop of the slate's known
    items. item int64 [n] are rows of the slates' items.
    """
    drop, centred = empty(len(item), np.float32), empty(len(item), np.float32)
    _drops(item, slates.slate[item], *before, *after, scores.items, scores.mean, drop, centred)
    return drop, centred


@compiled_sum
def drop_of(before: Any, after: Any, item: Any, mean: Any) -> Any:
    """Score drop and centred score drop of one item; all float32 [d], mean that of the slate's items."""
    drop, common = np.float32(0.0), np.float32(0.0)
    for i in range(len(item)):
        difference = before[i] - after[i]
        drop += difference * item[i]
        common += difference * mean[i]
    return drop, drop - common


@compiled
def _drops(
    item: Any, slate: Any, before: Any, before_row: Any, after: Any, after_row: Any, items: Any, mean: Any, drop: Any,
    centred: Any,
) -> None:  # fmt: skip
    for n in range(len(item)):
        drop[n], centred[n] = drop_of(before[before_row[n]], after[after_row[n]], items[item[n]], mean[slate[n]])


def ranks(offsets: Ints, score: Floats | Ints, position: Ints) -> Ints:
    """Rank of each row by score, highest first, within its group; ties in the order of position: int64 [n].

    offsets int64 [G + 1]: the boundaries of the groups; score float32 or int64 [n]; position int64 [n].
    """
    rank = empty(len(score), np.int64)
    _rank(offsets, score.astype(np.float64), position, rank)
    return rank


def counterfactual_ranks(slates: Slates, scores: Scores, edits: Edits, vectors: Floats) -> tuple[Ints, Ints]:
    """Rank the items of k slates by the re-ranker after a deletion for each: offsets and ranks.

    edits: the deletions; vectors float32 [k, d]: session vectors after them. Features that derive from the history are
    computed again where the bundle can, else they stay as they were sent. The ranks of slate i are
    ``ranks[offsets[i]:offsets[i + 1]]``, one per item. An item whose scores our models do not reproduce keeps the
    re-ranking score that was sent.
    """
    slate = edits.session
    size = np.diff(slates.offsets)[slate]
    offsets = np.concatenate([[0], np.cumsum(size)])
    group = np.repeat(np.arange(len(slate)), size)
    row = np.arange(len(group)) + (slates.offsets[slate] - offsets[:-1])[group]
    score = scores.reranking[row]
    left = None if scores.history_features is None else remaining(slates.histories, edits)
    again = np.flatnonzero(scores.matches[row])
    for begin in range(0, len(again), MAX_RERANKED_ROWS):
        part = again[begin : begin + MAX_RERANKED_ROWS]
        session_score = empty(len(part), np.float64)
        _score(group[part], row[part], vectors, scores.items, session_score)
        session_score += scores.bias[row[part]]
        if scores.history_features is None or left is None:
            score[part] = scores.rescorer.score(row[part], session_score)
        else:
            items, engagements = (each[group[part]] for each in left)
            values = scores.history_features.values(items, engagements, slates.item[row[part]])
            score[part] = scores.rescorer.changed(row[part], session_score, scores.history_features.columns, values)
    return offsets, ranks(offsets, score, slates.position[row])


@compiled
def _rank(offsets: Any, score: Any, position: Any, rank: Any) -> None:
    """Sort each group by insertion: rows come in the order shown, which is nearly that of their scores."""
    order = empty(len(rank), np.int64)
    for group in range(len(offsets) - 1):
        first = offsets[group]
        for row in range(first, offsets[group + 1]):
            place = row
            while place > first:
                before = order[place - 1]
                if score[before] > score[row] or (score[before] == score[row] and position[before] <= position[row]):
                    break
                order[place] = before
                place -= 1
            order[place] = row
        for place in range(first, offsets[group + 1]):
            rank[order[place]] = place - first + 1


@compiled_sum
def _score(which: Any, row: Any, vectors: Any, items: Any, out: Any) -> None:
    """Write the session scores of n items with n of the session vectors; which and row int64 [n]."""
    for n in range(len(row)):
        vector, item = vectors[which[n]], items[row[n]]
        total = np.float32(0.0)
        for i in range(len(item)):
            total += vector[i] * item[i]
        out[n] = total
