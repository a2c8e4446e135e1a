"""Recourse: what the user could do to see less of an item, found by search and confirmed by running the models again.

**Off the slate.** We hold the slate and the whole catalogue, but the re-ranker's features of the slate only. So the
question is put to the first stage, which picks by session score among what is not in the history. The lowest place
there that an item of this slate holds is how deep the recommender is known to reach. An item is off the slate once it
stands deeper than that, when titles are taken out of the history and the session model is run on what is left.

**The smallest set.** Every title that was watched is tried by itself. Where none suffices, pairs and then triples of
the titles that push the item down most by themselves; so a pair or a triple is the smallest that was found.

**A feature.** Where no such set is found, the features that the user's own habits can bring down to 0 are set to 0
together, and the re-ranker run again; it must lower the item's rank in the slate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from models.attribution.history import Histories, read
from schemas.events import Recourse
from stream.explain.columns import Bools, Floats, Ints, watched
from stream.explain.findings import Findings
from stream.explain.models import Models
from stream.explain.wording import Wording

MOST: Final = 3
"""Titles that a person may be asked to take out."""

TRIED: Final = 6
"""Titles per item of which pairs and triples are tried."""

MOST_RUNS: Final = 2_000
"""Sets of titles that are tried for one slate; a slate of hundreds of items must not hold up a worker for long."""

CATALOG_PART: Final = 65_536
"""Items of the catalogue that are scored at once."""

NOISE: Final = 2e-5
"""What a score may differ by from itself in another matrix product: logits of some tens in float32."""

Titles = tuple[int, ...]
"""Indices of items of the catalogue, each to be taken out of the history."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A history without some titles: session vector float32 [d], and each item's place in the catalogue int64 [N]."""

    vector: Floats
    place: Ints


class Search:
    """The search on one slate; each set of titles is run once, however many items ask for it."""

    def __init__(self, findings: Findings, models: Models, slate: int) -> None:
        slates = findings.slates
        self._findings, self._models, self._slate = findings, models, slate
        self._rows = np.arange(slates.offsets[slate], slates.offsets[slate + 1])
        self._items = slates.item[self._rows]
        self._history = slates.histories.item[slate]
        interest = watched(slates.histories, models.bundle)[slate]
        self._titles: list[Titles] = [(title,) for title in np.unique(self._history[interest]).tolist()]
        self._trials: dict[Titles, _Trial] = {}
        self._run([()])
        # Here what may be a tie counts as better, and so does each item as itself.
        deepest = self._places(self._trials[()].vector[None], self._not_shown(self._history[None]), -NOISE) - 1
        #: The deepest place of the first stage that this slate is known to reach.
        self._depth = int(deepest[0, self._items > 0].max(initial=0))
        self._off = self._search()

    def recourse(self, item: int, words: Wording) -> Recourse | None:
        """Find what the user could do about an item, by its row; None where nothing is found."""
        found = self._history_recourse(int(item - self._rows[0]), words)
        return found if found is not None else self._feature_recourse(item, words)

    def _history_recourse(self, number: int, words: Wording) -> Recourse | None:
        row = int(self._rows[number])
        rank = int(self._findings.citations.rank[row])
        for titles in self._off[number]:
            without = int(self._ranks(self._trials[titles].vector)[number])
            if without >= rank:
                return self._take_out(titles, rank, without, words)
        return None

    def _search(self) -> list[list[Titles]]:
        """Find for each item the smallest sets without which it is off the slate, what moves it furthest first."""
        self._run(self._titles)
        found: list[list[Titles]] = [[] for _ in self._items]
        deepest = [sorted(self._titles, key=self._furthest(number))[:TRIED] for number in range(len(found))]
        for size in range(1, MOST + 1):
            wanted = {
                number: self._titles if size == 1 else [_joined(parts) for parts in combinations(deepest[number], size)]
                for number, sets in enumerate(found)
                if not sets and self._items[number] > 0
            }
            # All items together, so that the session model runs on full batches.
            self._run([titles for sets in wanted.values() for titles in sets])
            for number, sets in wanted.items():
                tried = (titles for titles in sets if titles in self._trials)
                off = [titles for titles in tried if self._trials[titles].place[number] > self._depth]
                found[number] = sorted(off, key=self._furthest(number))
        return found

    def _furthest(self, number: int) -> Callable[[Titles], int]:
        return lambda titles: -int(self._trials[titles].place[number])

    def _take_out(self, titles: Titles, rank: int, without: int, words: Wording) -> Recourse:
        catalog = self._findings.bundle.catalog
        columns = np.flatnonzero(np.isin(self._history, titles))
        # In the order in which they were first watched.
        ordered = list(dict.fromkeys(self._history[columns].tolist()))
        named = [catalog.titles[title - 1] for title in ordered]
        return Recourse(
            kind="history",
            events=self._findings.slates.event[self._slate, columns].tolist(),
            item_ids=[catalog.item_ids[title - 1] for title in ordered],
            titles=named,
            feature=None,
            rank=rank,
            rank_without=without,
            off_slate=True,
            text=words.say("recourse.history", titles=words.join(map(words.quoted, named))),
        )

    def _feature_recourse(self, row: int, words: Wording) -> Recourse | None:
        findings = self._findings
        contribution = findings.signals.contribution[row]
        able = np.array([each.is_actionable and not each.is_sensitive for each in findings.bundle.features])
        if not findings.signals.sound[row] or contribution[able].sum() <= 0:
            return None
        features = findings.slates.features[[row]]
        features[:, able] = 0.0
        score = findings.scores.reranking[self._rows].copy()
        score[row - self._rows[0]] = self._models.reranker.score(features)[0]
        rank = int(findings.citations.rank[row])
        without = int(self._order(score)[row - self._rows[0]])
        if without <= rank:
            return None
        largest = int(np.where(able, contribution, -np.inf).argmax())
        category = findings.bundle.catalog.categories[int(findings.slates.item[row]) - 1]
        return Recourse(
            kind="feature",
            events=[],
            item_ids=[],
            titles=[],
            feature=findings.bundle.features[largest].name,
            rank=rank,
            rank_without=without,
            off_slate=False,
            text=words.say("recourse.category", category=words.quoted(category)),
        )

    def _run(self, sets: list[Titles]) -> None:
        """Run the session model without each set of titles that was not yet run, and place the slate's items."""
        new = [titles for titles in dict.fromkeys(sets) if titles not in self._trials]
        new = new[: MOST_RUNS - len(self._trials)]
        if not new:
            return
        gone = np.stack([np.isin(self._history, titles) for titles in new])
        histories = without(self._findings.slates.histories, self._slate, gone)
        vectors = read(self._models.session, histories, without=False).vector
        places = self._places(vectors, self._not_shown(np.where(gone, 0, self._history)), NOISE)
        self._trials |= {
            titles: _Trial(vector, place) for titles, vector, place in zip(new, vectors, places, strict=True)
        }

    def _not_shown(self, left: Ints) -> Ints:
        """Put 0 for items of the slate: what is in the history is not recommended, but these evidently are."""
        return np.where(np.isin(left, self._items), 0, left)

    def _places(self, vectors: Floats, left: Ints, lead: float) -> Ints:
        """Place of each item of the slate in the catalogue by session score, int64 [n, N], 1 for the best.

        vectors is float32 [n, d]; left int64 [n, W], items of the history that are not candidates, 0 for none. Better
        is what leads by more than `lead`.
        """
        every = self._models.bundle.item_vectors
        own = vectors @ every[self._items].T + np.float32(lead)
        better = np.zeros(own.shape, dtype=np.int64)
        for start in range(1, len(every), CATALOG_PART):
            scores = vectors @ every[start : start + CATALOG_PART].T
            scores.sort(axis=1)
            for row, ordered in enumerate(scores):
                better[row] += len(ordered) - np.searchsorted(ordered, own[row], side="right")
        for row, (items, vector) in enumerate(zip(left, vectors, strict=True)):
            seen = np.unique(items[items > 0])
            better[row] -= (every[seen] @ vector > own[row, :, None]).sum(axis=1)
        return better + 1

    def _ranks(self, vector: Floats) -> Ints:
        """Rank of each item of the slate by our re-ranker with another session vector, int64 [N]."""
        scores, features = self._findings.scores, self._findings.slates.features[self._rows]
        features[:, -1] = scores.items[self._rows] @ vector
        again = scores.matches[self._rows]
        score = scores.reranking[self._rows].copy()
        score[again] = self._models.reranker.score(features[again])
        return self._order(score)

    def _order(self, score: npt.NDArray[np.number]) -> Ints:
        """Rank by score, ties in the order shown."""
        rank = np.empty(len(score), dtype=np.int64)
        rank[np.lexsort((self._findings.slates.position[self._rows], -score))] = np.arange(1, len(score) + 1)
        return rank


def without(histories: Histories, row: int, gone: Bools) -> Histories:
    """Copy one history n times, each without the events in some columns; gone is bool [n, W]."""
    kept = ~gone & (histories.item[row] > 0)
    # A stable sort moves what is kept to the right, in its order.
    source = np.argsort(kept, axis=1, kind="stable")
    there = np.take_along_axis(kept, source, axis=1)
    return Histories(
        np.where(there, histories.item[row][source], 0),
        np.where(there, histories.engagement[row][source], 0),
        kept.sum(axis=1).astype(np.int64),
    )


def _joined(parts: tuple[Titles, ...]) -> Titles:
    return tuple(sorted(title for part in parts for title in part))
