"""Measure: what each removal of a past event does to the items of its slate.

An event can be taken away in three ways (``models/attribution/history.py``). Masking is known for all events at once,
though only nearly where the session model can take sessions up again; deletion, blanking and exact masking are run for
the events that are asked for, once each, however many items ask. How much an event did for an item is the *fall* of the
item's score without it, in itself and relative to the slate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.attribution.blank import HIDDEN, Swaps
from models.attribution.history import Deletions, run_together
from stream.explain.columns import Floats, Ints, Slates, watched
from stream.explain.models import Models
from stream.explain.scores import Scores

NEARLY: Final = 0.5
"""Share of the margin that a nearly known effect of masking must exceed for its event to be tried.

What that misses: ``python -m bench.proposals``.
"""

MAX_RERANKED_ROWS: Final = 65_536
"""Rows that are scored at once; large slates with long histories have more."""


@dataclass(frozen=True, slots=True)
class Falls:
    """What taking events away did to items' scores: C events for each of n items, NaN where there is no event.

    drop and drop_centred float32 [n, C]: by deletion, in itself and minus the slate's mean; least float32 [n, C]: the
    smallest fall of all removals, each in itself and relative; relative float32 [n, C]: the relative fall, as the mean
    of all removals.
    """

    drop: Floats
    drop_centred: Floats
    least: Floats
    relative: Floats

    @property
    def tables(self) -> tuple[Floats, Floats, Floats, Floats]:
        """All four, in the order of the fields."""
        return self.drop, self.drop_centred, self.least, self.relative


class Laboratory:
    """Measurements on the histories of one batch of slates."""

    def __init__(self, slates: Slates, scores: Scores, models: Models) -> None:
        self.slates = slates
        self.scores = scores
        # A fall smaller than what we can reproduce of a score is no fall.
        self.margin = max(models.bundle.manifest.citation_margin, models.bundle.manifest.score_tolerance)
        self.watched = watched(slates.histories, models.bundle)
        self.rank = ranks(slates.slate, scores.reranking, slates.position)
        session, state = models.session, scores.reading.state
        self._deletions = Deletions(session, slates.histories, state)
        self._blanks = Swaps(session, slates.histories, session.blank_event, state) if session.has_blank else None
        # Where the effects of masking are only nearly known, what they propose is masked exactly.
        self._masks = Swaps(session, slates.histories, HIDDEN, state) if session.reruns is not None else None
        self.proposing_margin = self.margin * (NEARLY if self._masks is not None else 1.0)
        self.raw, self.relative = _masking_effects(slates, scores)
        # What was measured, by item and column: nothing is measured twice.
        self._known = Falls(*(np.full(self.raw.shape, np.nan, dtype=np.float32) for _ in range(4)))
        self._rank_without = np.zeros(self.raw.shape, dtype=np.int64)

    def effect(self, item: Ints, before: Floats, after: Floats) -> tuple[Floats, Floats]:
        """Fall of items' scores from one session vector to another, in itself and relative to the slate: [n] each."""
        fall = before - after
        return (
            np.einsum("nd,nd->n", fall, self.scores.items[item]),
            np.einsum("nd,nd->n", fall, self.scores.centred[item]),
        )

    def deleted(self, item: Ints, column: Ints) -> Floats:
        """Session vector of the item's slate without one event, float32 [n, d]; item and column int64 [n]."""
        return self._deletions.vectors(self.slates.slate[item], column)

    def falls_after(self, item: Ints, first: Ints, second: Ints) -> tuple[Floats, Floats]:
        """Fall of items' scores when a second event is deleted and the first is gone already; all int64 [n]."""
        both = self._deletions.without_two(self.slates.slate[item], first, second)
        return self.effect(item, self.deleted(item, first), both)

    def measure(self, column: Ints) -> Falls:
        """Take each event away by itself, in every way that the session model allows; column int64 [T, C], -1: none.

        What an event has failed by one removal is not tried by the next, unless runs are so short that it costs more
        to ask for them one after the other.
        """
        item, place = np.nonzero(column >= 0)
        event = column[item, place]
        new = np.isnan(self._known.least[item, event])
        if new.any():
            self._measure(item[new], event[new])
        falls = Falls(*(np.full(column.shape, np.nan, dtype=np.float32) for _ in range(4)))
        for table, known in zip(falls.tables, self._known.tables, strict=True):
            table[item, place] = known[item, event]
        return falls

    def _measure(self, item: Ints, event: Ints) -> None:
        slate = self.slates.slate[item]
        before = self.scores.reading.vector[slate]
        if self._blanks is not None and self._masks is not None:
            older = event < self.slates.histories.width - 2
            hidden = (self._masks, slate[older], event[older])
            run_together([(self._deletions, slate, event), (self._blanks, slate, event), hidden])
        drop, centred = self.effect(item, before, self.deleted(item, event))
        least, relative, removals = np.minimum(drop, centred), centred.copy(), 1
        for swaps in (self._blanks, self._masks):
            left = np.flatnonzero(least > self.margin)
            if swaps is None or not len(left):
                continue
            if swaps is self._masks:
                self._mask(item[left], event[left])
                fall, fall_centred = self.raw[item[left], event[left]], self.relative[item[left], event[left]]
            else:
                fall, fall_centred = self.effect(item[left], before[left], swaps.vectors(slate[left], event[left]))
            least[left] = np.min([least[left], fall, fall_centred], axis=0)
            removals += 1
            relative[left] += (fall_centred - relative[left]) / removals
        if self._masks is None:
            masked, masked_centred = self.raw[item, event], self.relative[item, event]
            least = np.min([least, masked, masked_centred], axis=0)
            relative += (masked_centred - relative) / (removals + 1)
        for known, values in zip(self._known.tables, (drop, centred, least, relative), strict=True):
            known[item, event] = values

    def _mask(self, item: Ints, event: Ints) -> None:
        """Mask events exactly; for the newest two of a history the nearly known effect is exact already."""
        older = event < self.slates.histories.width - 2
        item, event = item[older], event[older]
        if self._masks is not None and len(item):
            slate = self.slates.slate[item]
            after = self._masks.vectors(slate, event)
            fall, fall_centred = self.effect(item, self.scores.reading.vector[slate], after)
            self.raw[item, event], self.relative[item, event] = fall, fall_centred

    def rank_without(self, column: Ints) -> Ints:
        """Rank of each item without each event, int64 [T, C]; its rank as it is where column [T, C] is -1."""
        item, place = np.nonzero(column >= 0)
        event = column[item, place]
        new = self._rank_without[item, event] == 0
        if new.any():
            found = _ranks_without(self, item[new], event[new])
            self._rank_without[item[new], event[new]] = found
        rank_without = np.repeat(self.rank[:, None], column.shape[1], axis=1)
        rank_without[item, place] = self._rank_without[item, event]
        return rank_without


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


def ranks(group: Ints, score: npt.NDArray[np.number], position: Ints) -> Ints:
    """Rank of each row by score, highest first, within its group; ties in the order shown. All int64 [n] or [n]."""
    order = np.lexsort((position, -score, group))
    sizes = np.bincount(group)
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    return rank


def _ranks_without(laboratory: Laboratory, item: Ints, column: Ints) -> Ints:
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
        session_score = np.einsum("nd,nd->n", vector[group[part]], scores.items[row[part]])
        score[part] = scores.rescorer.score(row[part], session_score.astype(np.float64))
    rank = ranks(group, score, slates.position[row])
    found: Ints = rank[start[which] + item - slates.offsets[slates.slate[item]]]
    return found
