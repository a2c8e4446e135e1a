"""Verify: which past events may be cited, proposed by a policy and measured by every removal.

Whatever proposes, each proposed event is taken away in the three ways of ``stream/explain/laboratory.py``: hidden,
deleted and run again as the recommender itself would have run, and blanked. A citation holds when each of them lowers
the item's score by more than the bundle's margin, and by more than a quarter of it relative to the slate, and when the
deletion, carried through the re-ranker to the order of the slate, does not lift the item. The bundle may ask more of
older events. (A session model that knows no blank event is asked in two ways only.)

A slate of one item has nothing to be relative to: it gets no citation that holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models.compiled import compiled
from stream.explain.columns import Bools, Floats, Ints, Slates
from stream.explain.laboratory import RELATIVE, Laboratory, ranks
from stream.explain.largest import list_largest
from stream.explain.models import Models
from stream.explain.scores import Scores

CITED: Final = 2
"""Past events that one explanation names at most."""

CANDIDATES: Final = 2
"""Past events per item that masking proposes and the other removals try: those that do most for it in itself."""

EVENTS: Final = 6
"""Past events per slate that are tried at most, whatever its items ask for: what bounds the cost of a slate."""

SECOND: Final = 0.5
"""Share of what the first citation does that a second must still do: it is one more thing to read."""

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

    Only what was watched can be a reason; a skip may well have moved the item, but nobody wants to be told so. Of what
    was watched, the CANDIDATES that do most for the item in itself, weighed by age, can be its reasons, where they do
    something relative to the slate, too; an event that tells the item from its slate but adds little to it is none. Of
    them, the EVENTS that do most for the slate are tried. Of those that hold, the one is cited that does most by its
    weakest removal: what the margin is of; and after it the next, if it is another title, and its deletion still does
    SECOND of what the first one's did, and a margin, once the first is gone. Without either the item would not stand
    higher: where it would (its own score falls, but others of the slate fall further), an event is no reason for its
    place.
    """
    slates, falls, margin = laboratory.slates, laboratory.falls, laboratory.margin
    candidates = np.full((len(slates.item), CANDIDATES), -1)
    _propose(
        slates.offsets, laboratory.scores.matches, laboratory.watched, laboratory.raw * laboratory.weight,
        laboratory.relative * laboratory.weight, laboratory.proposing_margin, EVENTS, candidates,
    )  # fmt: skip
    laboratory.measure(candidates)
    least = np.take_along_axis(falls.least, np.maximum(candidates, 0), axis=1)
    laboratory.reorder(np.where(least > margin, candidates, -1))
    cited = np.full((len(slates.item), CITED), -1)
    _choose(
        candidates, slates.slate, slates.histories.item, laboratory.rank, laboratory.rank_without, falls.least, margin,
        cited,
    )  # fmt: skip
    item = np.flatnonzero(cited[:, 1] >= 0)
    if len(item):
        asked = np.maximum(margin, SECOND * laboratory.least_deleted(item, cited[item, 0]))
        still = laboratory.least_after(item, *cited[item].T) > asked
        cited[item[~still], 1] = -1
    return cited


@compiled
def _propose(
    offsets: Any, matches: Any, watched: Any, raw: Any, relative: Any, margin: Any, events: Any, candidates: Any
) -> None:
    """Write each item's candidates, best first, from the events that do most for all items of its slate together."""
    width = raw.shape[1]
    able, tried = np.empty(width, np.bool_), np.empty(width, np.bool_)
    together = np.empty(width, np.float32)
    for slate in range(len(offsets) - 1):
        items = range(offsets[slate], offsets[slate + 1])
        together[:] = 0
        for item in items:
            for event in range(width):
                able[event] = matches[item] and watched[slate, event] and raw[item, event] > margin
            list_largest(raw[item], able, candidates[item])
            for event in candidates[item]:
                if event >= 0 and relative[item, event] > margin * RELATIVE:
                    together[event] += relative[item, event]
        tried[:] = False
        for _ in range(min(events, width)):
            most = together.argmax()
            tried[most] |= together[most] > 0
            together[most] = 0
        for item in items:
            for place in range(candidates.shape[1]):
                event = candidates[item, place]
                if event >= 0 and not (tried[event] and relative[item, event] > margin * RELATIVE):
                    candidates[item, place] = -1


@compiled
def _choose(
    candidates: Any, slate: Any, titles: Any, rank: Any, rank_without: Any, least: Any, margin: Any, cited: Any
) -> None:
    """Write for each item the strongest candidates that hold and do not lift it, each another title."""
    for item in range(candidates.shape[0]):
        for place in range(cited.shape[1]):
            best = margin
            for event in candidates[item]:
                if event < 0 or not least[item, event] > best or rank_without[item, event] < rank[item]:
                    continue
                new = True
                for before in cited[item, :place]:
                    new &= titles[slate[item], before] != titles[slate[item], event]
                if new:
                    best = least[item, event]
                    cited[item, place] = event
            if cited[item, place] < 0:
                break


def by_attention(laboratory: Laboratory) -> Ints:
    """Propose the two events of most attention, where they got more than half: the reference's rule.

    The same events for all items of a slate; int64 [T, CITED], -1 for none.
    """
    slates, attention = laboratory.slates, laboratory.scores.reading.attention
    there = slates.histories.item > 0
    top = np.argsort(np.where(there, -attention, np.inf), axis=1, kind="stable")[:, :CITED]
    top = np.where(np.take_along_axis(there, top, axis=1), top, -1)
    top = np.pad(top, ((0, 0), (0, CITED - top.shape[1])), constant_values=-1)
    weight = np.where(top >= 0, np.take_along_axis(attention, top, axis=1), 0.0).sum(axis=1)
    cited = np.where(weight[:, None] > ATTENTION_THRESHOLD, top, -1)[slates.slate]
    return np.where(laboratory.scores.matches[:, None], cited, -1)


UNWATCHED: Final = frozenset({"attention"})
"""Policies that may propose an event that was not watched, and so ask what it does."""

PROPOSALS: Final[dict[str, Callable[[Laboratory], Ints]]] = {"evidence": by_evidence, "attention": by_attention}
"""Who proposes citations: one row per policy."""


def verify(policy: str, slates: Slates, scores: Scores, models: Models) -> Citations:
    """Let the policy propose citations, and measure each, down to the order of the slate."""
    laboratory = Laboratory(slates, scores, models)
    rank, falls = laboratory.rank, laboratory.falls
    column = PROPOSALS[policy](laboratory)
    laboratory.measure(column)
    laboratory.reorder(column)
    item, place = np.arange(len(column))[:, None], np.maximum(column, 0)
    cited = column >= 0
    rank_without = np.where(cited, laboratory.rank_without[item, place], rank[:, None])
    holds = cited & (falls.least[item, place] > laboratory.margin) & (rank_without >= rank[:, None])
    shown = ranks(slates.offsets, -slates.position, slates.position)
    out_of_order = np.bincount(slates.slate, weights=rank != shown, minlength=len(slates.foreign))
    nothing = np.float32(np.nan)
    return Citations(
        column=column,
        attribution=np.where(cited, laboratory.relative[item, place], np.float32(0.0)),
        drop=np.where(cited, falls.drop[item, place], nothing),
        drop_centred=np.where(cited, falls.drop_centred[item, place], nothing),
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
