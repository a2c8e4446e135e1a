"""Measure: what each removal of a past event does to the items of its slate.

An event can be taken away in three ways (``models/attribution/removal.py``). Masking is known for all events at once,
though only nearly where the session model can take sessions up again; deletion, blanking and exact masking are run for
the events that are asked for, once each, however many items ask. How much an event did for an item is the *fall* of the
item's score without it, in itself and relative to the slate.

What is done for each item and event is compiled: a batch has thousands of them, and while compiled code runs, the
thread beside it can send and receive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from models.attribution.removal import BLANKED, DELETED, MASKED, REMOVALS, Removals
from models.compiled import compiled, compiled_sum
from stream.explain.columns import Floats, Ints, Slates, watched
from stream.explain.models import Models
from stream.explain.scores import Scores

NEARLY: Final = 0.5
"""Share of the margin that a nearly known effect of masking must exceed for its event to be tried.

What that misses: ``python -m bench.proposals``.
"""

RELATIVE: Final = 0.25
"""Share of the margin by which an item must fall relative to its slate; in itself it must fall by all of it.

A slate's items are alike, so what an event does for one it does for most; only the rest can tell one from another.
"""

MAX_RERANKED_ROWS: Final = 65_536
"""Rows that are scored at once; large slates with long histories have more."""


@dataclass(frozen=True, slots=True)
class Falls:
    """What taking events away did to items' scores, so far: float32 [T, W] each, of T items and W events.

    drop and drop_centred: by deletion, in itself and minus the slate's mean, NaN where it was not tried; least: the
    smallest fall of all removals, to be compared with the margin: of each the fall in itself, and the relative one over
    RELATIVE, weighed by the event's age; infinite where none was tried; tried, int64 [T, W], of how many removals.
    """

    drop: Floats
    drop_centred: Floats
    least: Floats
    tried: Ints

    @classmethod
    def none(cls, items: int, width: int) -> Self:
        """Nothing was tried yet."""
        shape = (items, width)
        drop, least = np.full(shape, np.nan, dtype=np.float32), np.full(shape, np.inf, dtype=np.float32)
        return cls(drop, drop.copy(), least, np.zeros(shape, dtype=np.int64))


class Laboratory:
    """Measurements on the histories of one batch of slates; what was measured is kept, by item and event.

    raw and relative float32 [T, W], the fall by masking in itself and relative to the slate, where nothing was measured
    nearly; weight float32 [W], of falls by age; falls, of all that was measured; rank int64 [T], each item's by
    re-ranking score, and rank_without int64 [T, W], without each event that was reordered, else its rank as it is.
    """

    def __init__(self, slates: Slates, scores: Scores, models: Models) -> None:
        self.slates = slates
        self.scores = scores
        # A fall smaller than what we can reproduce of a score is no fall.
        margin = max(models.bundle.manifest.citation_margin, models.bundle.manifest.score_tolerance / RELATIVE)
        # As precise as what is compared with it, or compiled code and numpy would not agree on equals.
        self.margin = float(np.float32(margin))
        self.watched = watched(slates.histories, models.bundle)
        session, width = models.session, slates.histories.width
        self._removals = Removals(session, slates.histories, scores.reading.state)
        able = {DELETED: True, BLANKED: session.has_blank, MASKED: session.reruns is not None or session.has_without}
        removals = [each for each in REMOVALS if able[each]]
        if session.reruns is not None:
            # Runs are so short that it costs more to ask for them one after the other.
            self._turns = [[*enumerate(removals)]]
            self._exact_from = max(width - 2, 0)
            self.proposing_margin = self.margin * NEARLY
        else:
            self._turns = [[each] for each in enumerate(removals)]
            self._exact_from = 0
            self.proposing_margin = self.margin
        self.raw = np.zeros((len(slates.item), width), dtype=np.float32)
        self.relative = np.zeros_like(self.raw)
        self.weight = weights_by_age(width, models.bundle.manifest.citation_ageing)
        _mask_all(
            slates.offsets, slates.histories.length, scores.reading.vector, scores.without, scores.items, scores.mean,
            self.raw, self.relative,
        )  # fmt: skip
        self.falls = Falls.none(*self.raw.shape)
        self.rank = ranks(slates.offsets, scores.reranking, slates.position)
        self.rank_without = np.repeat(self.rank[:, None], width, axis=1)
        self._reordered = np.zeros(slates.histories.item.shape, dtype=np.bool_)

    def measure(self, column: Ints) -> None:
        """Take each event away by itself, in every way that the session model allows; column int64 [T, C], -1: none.

        What an event has failed by one removal is not counted by the next.
        """
        slates, scores, falls = self.slates, self.scores, self.falls
        for removals in self._turns:
            asked = np.zeros(slates.histories.item.shape, dtype=np.bool_)
            _ask(column, slates.slate, falls.least, self.margin, asked)
            wanted = np.zeros((len(REMOVALS), *asked.shape), dtype=np.bool_)
            wanted[[removal for _, removal in removals]] = asked
            wanted[MASKED, :, self._exact_from :] = False
            self._removals.run(wanted)
            for turn, removal in removals:
                _measure(
                    column, slates.slate, scores.reading.vector, self._removals.vectors[removal], scores.items,
                    scores.mean, turn, removal, self._exact_from, self.margin, self.weight, self.raw, self.relative,
                    falls.drop, falls.drop_centred, falls.least, falls.tried,
                )  # fmt: skip

    def least_after(self, item: Ints, first: Ints, second: Ints) -> Floats:
        """Fall of items' scores when a second event is deleted and the first is gone already; all int64 [n].

        As `Falls.least`, by deletion alone, float32 [n]; both events were measured.
        """
        slate = self.slates.slate[item]
        one = self._removals.vectors[DELETED, slate, first]
        return self._least_between(item, one, self._removals.without_two(slate, first, second), second)

    def least_deleted(self, item: Ints, event: Ints) -> Floats:
        """Fall of items' scores when an event is deleted that was measured; as `least_after`."""
        slate = self.slates.slate[item]
        whole, one = self.scores.reading.vector[slate], self._removals.vectors[DELETED, slate, event]
        return self._least_between(item, whole, one, event)

    def _least_between(self, item: Ints, before: Floats, after: Floats, event: Ints) -> Floats:
        """Fall of items' scores from session vectors [n, d] to others, which an event is gone from."""
        least = np.empty(len(item), dtype=np.float32)
        _fall_again(item, self.slates.slate[item], before, after, self.scores.items, self.scores.mean, least)
        return least * self.weight[event]

    def reorder(self, column: Ints) -> None:
        """Rank the slate without each event that was measured: all of its items are scored again; as for `measure`.

        An item whose scores we cannot reproduce keeps the re-ranking score that was sent.
        """
        slates, scores = self.slates, self.scores
        wanted = np.zeros_like(self._reordered)
        _ask(column, slates.slate, self.falls.least, -np.inf, wanted)
        slate, event = np.nonzero(wanted & ~self._reordered)
        if not len(slate):
            return
        self._reordered |= wanted
        size = np.diff(slates.offsets)[slate]
        offsets = np.concatenate([[0], np.cumsum(size)])
        group = np.repeat(np.arange(len(slate)), size)
        row = np.arange(len(group)) + (slates.offsets[slate] - offsets[:-1])[group]
        score = scores.reranking[row]
        again = np.flatnonzero(scores.matches[row])
        vectors = self._removals.vectors[DELETED, slate, event]
        for begin in range(0, len(again), MAX_RERANKED_ROWS):
            part = again[begin : begin + MAX_RERANKED_ROWS]
            session_score = np.empty(len(part))
            _score(group[part], row[part], vectors, scores.items, session_score)
            score[part] = scores.rescorer.score(row[part], session_score)
        self.rank_without[row, event[group]] = ranks(offsets, score, slates.position[row])


def weights_by_age(width: int, ageing: float) -> Floats:
    """Weigh the falls of W events, the newest last, so that one margin holds for all: float32 [W], 1 for the newest.

    With an ageing above 0 an older event must do more. Newer events repeat much of what older ones said; what little an
    old one still does alone is the least certain, and integrated gradients, which let all fade together, seldom bear it
    out.
    """
    return np.arange(width, 0, -1, dtype=np.float32) ** np.float32(-ageing)


def ranks(offsets: Ints, score: Floats | Ints, position: Ints) -> Ints:
    """Rank of each row by score, highest first, within its group; ties in the order shown: int64 [n].

    offsets int64 [G + 1]: where the groups begin and end; score float32 or int64 [n]; position int64 [n].
    """
    rank = np.empty(len(score), dtype=np.int64)
    _rank(offsets, score.astype(np.float64), position, rank)
    return rank


@compiled
def _rank(offsets: Any, score: Any, position: Any, rank: Any) -> None:
    """Sort by insertion: rows come in the order shown, and hardly leave it."""
    order = np.empty_like(rank)
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


@compiled
def _ask(column: Any, slate: Any, least: Any, margin: Any, wanted: Any) -> None:
    """Mark in bool [S, W] the events of columns [T, C] that have not failed any item that asks for them."""
    for item in range(column.shape[0]):
        for event in column[item]:
            if event >= 0 and least[item, event] > margin:
                wanted[slate[item], event] = True


@compiled_sum
def _fall(before: Any, after: Any, item: Any, mean: Any) -> Any:
    """Fall of an item's score from one session vector to another, in itself and relative to the slate's mean item."""
    fall, common = np.float32(0.0), np.float32(0.0)
    for i in range(len(item)):
        away = before[i] - after[i]
        fall += away * item[i]
        common += away * mean[i]
    return fall, fall - common


@compiled
def _least(fall: Any, centred: Any) -> Any:
    """Say by how much an item falls, as the margin of the newest event has it."""
    return min(fall, centred / np.float32(RELATIVE))


@compiled
def _mask_all(
    offsets: Any, length: Any, vector: Any, without: Any, items: Any, mean: Any, raw: Any, relative: Any
) -> None:
    """Write the fall of each item's score without each event of its history."""
    width = without.shape[1]
    for slate in range(len(length)):
        for event in range(width - length[slate], width):
            for item in range(offsets[slate], offsets[slate + 1]):
                fall, centred = _fall(vector[slate], without[slate, event], items[item], mean[slate])
                raw[item, event], relative[item, event] = fall, centred


@compiled
def _measure(
    column: Any, slate: Any, vector: Any, without: Any, items: Any, mean: Any, turn: Any, removal: Any,
    exact_from: Any, margin: Any, weight: Any, raw: Any, masked: Any, drop: Any, drop_centred: Any, least: Any,
    tried: Any,
) -> None:  # fmt: skip
    """Count one removal more for what has not failed; the arguments are the fields of `Laboratory` and `Falls`."""
    for item in range(column.shape[0]):
        for event in column[item]:
            if event < 0 or not least[item, event] > margin or tried[item, event] > turn:
                continue
            if removal == MASKED and event >= exact_from:
                fall, centred = raw[item, event], masked[item, event]
            else:
                s = slate[item]
                fall, centred = _fall(vector[s], without[s, event], items[item], mean[s])
            if removal == MASKED:
                raw[item, event], masked[item, event] = fall, centred
            if removal == DELETED:
                drop[item, event], drop_centred[item, event] = fall, centred
            tried[item, event] += 1
            least[item, event] = min(least[item, event], _least(fall, centred) * weight[event])


@compiled
def _fall_again(item: Any, slate: Any, before: Any, after: Any, items: Any, mean: Any, least: Any) -> None:
    for n in range(len(item)):
        fall, centred = _fall(before[n], after[n], items[item[n]], mean[slate[n]])
        least[n] = _least(fall, centred)


@compiled_sum
def _score(which: Any, row: Any, vectors: Any, items: Any, out: Any) -> None:
    """Write the score of n items with n of several session vectors; which and row int64 [n]."""
    for n in range(len(row)):
        vector, item = vectors[which[n]], items[row[n]]
        total = np.float32(0.0)
        for i in range(len(item)):
            total += vector[i] * item[i]
        out[n] = total
