"""Propose: which past events may be the reason of an item, found quickly, before anything is measured exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models.attribution.ablation import DELETE, MASK_LAST_QUERY, Edits, session_vectors
from models.compiled import compiled
from models.errors import BundleError
from models.session.runtime import SessionModel
from stream.explain.ablate.margin import RELATIVE, age_weights, citation_margin
from stream.explain.counterfactual import drop_of, score_drops
from stream.explain.models import Models
from stream.explain.score import Scores
from stream.explain.slates import Bools, Floats, Ints, Slates, watched
from stream.explain.top_k import write_top_k

CANDIDATES: Final = 2
"""Events proposed per item at most: those with the largest score drops."""

EVENTS: Final = 6
"""Events proposed per slate at most, for all of its items together: this bounds the cost of a slate."""

CITED: Final = 2
"""Past events that one explanation names at most."""

APPROXIMATE: Final = 0.5
"""Share of the margin that a score drop must exceed to be proposed, where masking is approximate.

``python -m bench.proposals`` measures how many citations that misses.
"""

MIN_ATTENTION: Final = 0.01
"""Attention of the newest event, mean over layers and heads, below which approximate masking is taken to do nothing."""

MAX_RUNS: Final = 50
"""Events of a session that are deleted at most to propose, those with the most attention, where each costs a run."""

ATTENTION_THRESHOLD: Final = 0.5
"""The rule of the policy ``attention``: the two events with the most attention have more than this together."""


@dataclass(frozen=True, slots=True)
class Deletions:
    """Session vectors float32 [m, d] without one event each; key int64 [m], in order: history times width + column."""

    key: Ints
    vectors: Floats

    def of(self, key: Ints) -> Floats:
        """Return the vectors of keys int64 [k], each of which is among the deletions."""
        found: Floats = self.vectors[np.searchsorted(self.key, key)]
        return found


@dataclass(frozen=True, slots=True)
class Candidates:
    """n pairs of an item and a past event that may be cited for it, item by item, the best of each item first.

    item int64 [n], rows of the slates' items; event int64 [n], columns of the slate's history; attribution float32 [n],
    the centred score drop by the ablation that proposed; deletions: session vectors that are known already.
    """

    item: Ints
    event: Ints
    attribution: Floats
    deletions: Deletions | None = None


@dataclass(frozen=True, slots=True)
class _Proposing:
    """One quick ablation of m events: session int64 [m] in order, column int64 [m], and session vectors [m, d].

    exact: the events were deleted, so that the vectors need not be computed again.
    """

    session: Ints
    column: Ints
    vectors: Floats
    exact: bool

    def deletions(self, width: int) -> Deletions | None:
        """Return the vectors if they are those of deletions."""
        return Deletions(self.session * width + self.column, self.vectors) if self.exact else None


def by_evidence(slates: Slates, scores: Scores, models: Models) -> Candidates:
    """Propose the watched events with the largest score drops.

    A skipped title is never proposed: it may have moved the score, but it is no reason that a user would accept. Of an
    item's events, the CANDIDATES with the largest drops, weighted by age, are proposed if their centred drops count as
    well: an event that tells the item from its slate but adds little to its score is no reason. Of all events proposed
    for a slate, the EVENTS with the largest centred drops in sum stay.
    """
    histories = slates.histories
    matched = np.bincount(slates.slate[scores.matches], minlength=len(histories)) > 0
    matched &= _may_move(models)
    quick = _ablate(slates, scores, models, watched(histories, models.bundle) & matched[:, None])
    margin = citation_margin(models) * (APPROXIMATE if is_approximate(models.session) else 1.0)
    event = np.full((len(slates.item), CANDIDATES), -1)
    attribution = np.zeros(event.shape, dtype=np.float32)
    _propose(
        slates.offsets, scores.matches, scores.items, scores.reading.vector, scores.mean,
        np.searchsorted(quick.session, np.arange(len(histories) + 1)), quick.column, quick.vectors,
        age_weights(histories.width, models.bundle.manifest.citation_ageing), margin, event, attribution,
    )  # fmt: skip
    item, place = np.nonzero(event >= 0)
    deletions = quick.deletions(histories.width)
    return Candidates(item, event[item, place], attribution[item, place], deletions)


def by_attention(slates: Slates, scores: Scores, models: Models) -> Candidates:
    """Propose the two events of most attention, if they have more than half of it: the rule that is common practice.

    All items of a slate have the same candidates.
    """
    histories, attention = slates.histories, scores.reading.attention
    if attention is None:
        raise BundleError("expected attention, got a session model without: choose the policy evidence.")
    top = np.argsort(np.where(histories.present, -attention, np.inf), axis=1, kind="stable")[:, :CITED]
    proposed = np.take_along_axis(histories.present, top, axis=1)
    share = np.where(proposed, np.take_along_axis(attention, top, axis=1), 0.0).sum(axis=1)
    proposed &= (share[:, None] > ATTENTION_THRESHOLD) & _may_move(models)
    item, place = np.nonzero(proposed[slates.slate] & scores.matches[:, None])
    event = top[slates.slate[item], place]
    wanted = np.zeros_like(histories.present)
    wanted[slates.slate[item], event] = True
    quick = _ablate(slates, scores, models, wanted)
    row = np.full(wanted.shape, -1)
    row[quick.session, quick.column] = np.arange(len(quick.session))
    after = row[slates.slate[item], event]
    attribution, ablated = np.zeros(len(item), dtype=np.float32), np.flatnonzero(after >= 0)
    before = scores.reading.vector, slates.slate[item[ablated]]
    _, attribution[ablated] = score_drops(slates, scores, item[ablated], before, (quick.vectors, after[ablated]))
    return Candidates(item, event, attribution, quick.deletions(wanted.shape[1]))


def _may_move(models: Models) -> bool:
    """Whether past events can move the order of a slate: what orders it reads the session score."""
    return models.reranker is None or models.reranker.reads_session_score


def is_approximate(model: SessionModel) -> bool:
    """Whether the ablation that proposes is not exact, so that more is proposed than exceeds the margin."""
    return model.incremental is not None or (model.has_estimate and not model.has_without)


def _ablate(slates: Slates, scores: Scores, models: Models, wanted: Bools) -> _Proposing:
    """Ablate each of the events wanted, bool [S, W], in the quickest way that the session model allows.

    Incremental inference masks for the newest position only. A graph may mask each event, or estimate the vector
    without it, in the run that read the history. Otherwise events are deleted. Events with hardly any attention are
    left out where each event costs a run, but for the newest two, for which incremental inference is exact.
    """
    histories, reading = slates.histories, scores.reading
    read = reading.estimate if reading.masked is None else reading.masked
    if read is None and reading.attention is not None:
        newest = np.arange(histories.width) >= histories.width - 2
        enough: Floats | float = MIN_ATTENTION
        if models.session.incremental is None:
            enough = np.sort(reading.attention, axis=1)[:, [max(0, histories.width - MAX_RUNS)]]
        wanted = wanted & (newest | (reading.attention >= enough))
    session, column = np.nonzero(wanted & histories.present)
    if read is not None:
        return _Proposing(session, column, read[session, column], exact=False)
    kind = DELETE if models.session.incremental is None else MASK_LAST_QUERY
    edits = Edits.of_events(kind, session, column)
    return _Proposing(session, column, session_vectors(models.session, reading, edits), exact=kind == DELETE)


@compiled
def _propose(
    offsets: Any, matches: Any, items: Any, vector: Any, mean: Any, bounds: Any, column: Any, without: Any, weight: Any,
    margin: Any, event: Any, attribution: Any,
) -> None:  # fmt: skip
    """Write each item's candidates, the largest drop first, to event int64 [T, C], -1 for none.

    Slate s has the session vectors without[bounds[s]:bounds[s + 1]]; attribution float32 [T, C].
    """
    width = len(weight)
    drop, centred, total = np.zeros(width, np.float32), np.zeros(width, np.float32), np.zeros(width, np.float32)
    eligible = np.zeros(width, np.bool_)
    for slate in range(len(offsets) - 1):
        first = bounds[slate]
        count = bounds[slate + 1] - first
        total[:] = 0
        for item in range(offsets[slate], offsets[slate + 1]):
            if not matches[item]:
                continue
            for n in range(count):
                drop[n], centred[n] = drop_of(vector[slate], without[first + n], items[item], mean[slate])
                drop[n] *= weight[column[first + n]]
                eligible[n] = drop[n] > margin
            # Until the last step, candidates are numbered within the slate.
            write_top_k(drop[:count], eligible[:count], event[item])
            for place in range(event.shape[1]):
                n = event[item, place]
                if n >= 0:
                    attribution[item, place] = centred[n]
                    weighted = centred[n] * weight[column[first + n]]
                    if weighted > margin * RELATIVE:
                        total[n] += weighted
                    else:
                        event[item, place] = -1
        _keep(total[:count], column[first : first + count], event[offsets[slate] : offsets[slate + 1]])


@compiled
def _keep(total: Any, column: Any, event: Any) -> None:
    """Keep in event int64 [N, C] the EVENTS with the largest totals, and replace their numbers by their columns."""
    kept = np.zeros(len(total), np.bool_)
    for _ in range(min(EVENTS, len(total))):
        largest = total.argmax()
        kept[largest] |= total[largest] > 0
        total[largest] = 0
    for item in range(len(event)):
        for place in range(event.shape[1]):
            n = event[item, place]
            if n >= 0:
                event[item, place] = column[n] if kept[n] else -1
