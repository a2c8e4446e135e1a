"""Recourse: what the user could do to see less of an item, found by search and confirmed by running the models again.

**Off the slate.** We have the slate and the whole catalogue, but the re-ranker's features of the slate only. So the
search asks the first stage, which selects by session score among the items that are not in the session. The lowest
place of an item of this slate in that order is the depth that the recommender is known to reach. An item is off the
slate if its place is below that depth after all events of some titles are deleted from the session.

**The smallest set.** Every watched title that the session model reads is deleted alone. Where no single title suffices,
pairs and then triples of the titles that push the item down most alone are deleted. So a pair or a triple is the
smallest set that was found, not the smallest that exists.

**A habit.** Where no set of titles is found, the features that describe the user's habits in the item's category, and
that these habits can bring down to 0, are set to 0 together, and the re-ranker scores the item again. It must lower the
item's rank in the slate. Our advice, to watch less in the category, is true of such features only. Of other actionable
features, each is set to 0 by itself if the bundle has advice on it in the language of the slate. A sensitive feature is
never considered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from models.attribution.ablation import Edits, session_vectors
from schemas.events import Recourse
from stream.explain.counterfactual import counterfactual_ranks, ranks
from stream.explain.findings import Findings
from stream.explain.models import Models
from stream.explain.slates import Bools, Floats, Ints, watched
from stream.explain.wording import Wording

MAX_TITLES: Final = 3
"""Titles that a set holds at most."""

COMBINED: Final = 6
"""Titles per item that pairs and triples are made of."""

MAX_TRIALS: Final = 2_000
"""Sets of titles tried for one slate; a slate of hundreds of items must not occupy a worker for long."""

CATALOG_PART: Final = 65_536
"""Items of the catalogue that are scored at once."""

NOISE: Final = 2e-5
"""How much the same score may differ between two matrix products in float32, in spreads of the session scores."""

Titles = tuple[int, ...]
"""A set of titles to be deleted from the session: indices of items of the catalogue."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A session without a set of titles: session vector float32 [d], each item's place in the catalogue int64 [N]."""

    vector: Floats
    place: Ints


class Search:
    """The search on one slate; each set of titles is tried once, however many items ask for it."""

    def __init__(self, findings: Findings, models: Models, slate: int) -> None:
        slates = findings.slates
        self._findings, self._models, self._slate = findings, models, slate
        self._rows = np.arange(slates.offsets[slate], slates.offsets[slate + 1])
        self._items = slates.item[self._rows]
        # A title is deleted from the whole session, or an older event of it would move into the history.
        self._session = slates.histories.all_items[slate]
        interest = watched(slates.histories, models.bundle)[slate]
        read = slates.histories.item[slate]
        self._titles: list[Titles] = [(title,) for title in np.unique(read[interest]).tolist()]
        self._trials: dict[Titles, _Trial] = {}
        # What may be a tie counts as better here, and so does each item itself.
        vector = findings.scores.reading.vector[[slate]]
        deepest = self._places(vector, self._not_shown(self._session[None]), -NOISE) - 1
        #: The deepest place of the first stage that this slate is known to reach.
        self._depth = int(deepest[0, self._items > 0].max(initial=0))
        self._off = self._search()

    def recourse(self, row: int, words: Wording) -> Recourse | None:
        """Find what the user could do about an item, by its row among the slates' items; None if nothing is found."""
        found = self._history_recourse(row, words)
        return found if found is not None else self._habit_recourse(row, words)

    def _history_recourse(self, row: int, words: Wording) -> Recourse | None:
        number = row - int(self._rows[0])
        rank = int(self._findings.citations.rank[row])
        for titles in self._off[number]:
            without = self._rank_without(titles, number)
            if without >= rank:
                return self._take_out(titles, rank, without, words)
        return None

    def _rank_without(self, titles: Titles, number: int) -> int:
        slates, scores = self._findings.slates, self._findings.scores
        vector = self._trials[titles].vector[None]
        deletion = Edits.deletions(np.array([self._slate]), np.isin(self._session, titles)[None])
        return int(counterfactual_ranks(slates, scores, deletion, vector)[1][number])

    def _search(self) -> list[list[Titles]]:
        """Find for each item the smallest sets without which it is off the slate, the set that moves it most first."""
        self._run(self._titles)
        found: list[list[Titles]] = [[] for _ in self._items]
        deepest = [sorted(self._titles, key=self._furthest(number))[:COMBINED] for number in range(len(found))]
        for size in range(1, MAX_TITLES + 1):
            wanted = {
                number: self._titles if size == 1 else [_joined(parts) for parts in combinations(deepest[number], size)]
                for number, sets in enumerate(found)
                if not sets and self._items[number] > 0
            }
            # For all items together, so that the session model computes full batches.
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
        slates = self._findings.slates
        events = np.concatenate([slates.event[self._slate], slates.older_event[self._slate]])
        columns = np.flatnonzero(np.isin(self._session, titles))
        columns = columns[np.argsort(events[columns])]
        # In the order in which they were first watched.
        ordered = list(dict.fromkeys(self._session[columns].tolist()))
        named = [catalog.titles[title - 1] for title in ordered]
        return Recourse(
            kind="history",
            events=events[columns].tolist(),
            item_ids=[catalog.item_ids[title - 1] for title in ordered],
            titles=named,
            feature=None,
            rank=rank,
            rank_without=without,
            off_slate=True,
            text=words.say("recourse.history", titles=words.join(map(words.quoted, named))),
        )

    def _habit_recourse(self, row: int, words: Wording) -> Recourse | None:
        features, contribution = self._findings.bundle.features, self._findings.signals.contribution[row]
        if not self._findings.signals.sound[row]:
            return None
        category = np.array(
            [each.is_actionable and each.is_category and not each.is_sensitive for each in features], dtype=np.bool_
        )
        if len(features) and contribution[category].sum() > 0:
            name = self._findings.bundle.catalog.category_names[int(self._findings.signals.category[row])]
            text = words.say("recourse.category", category=words.quoted(name))
            found = self._changed(row, category, text)
            if found is not None:
                return found
        for column in np.argsort(-contribution, kind="stable").tolist():
            feature = features[column]
            advice = words.of_owner(feature.advice)
            if contribution[column] > 0 and feature.is_actionable and not feature.is_sensitive and advice:
                found = self._changed(row, np.arange(len(features)) == column, advice)
                if found is not None:
                    return found
        return None

    def _changed(self, row: int, habits: Bools, text: str) -> Recourse | None:
        """Set habits, bool [F], to 0 together; None if that does not lower the item's rank."""
        findings, reranker = self._findings, self._models.reranker
        if reranker is None:
            return None
        features = findings.slates.features[[row]]
        features[:, habits] = 0.0
        score = findings.scores.reranking[self._rows].copy()
        number = row - int(self._rows[0])
        score[number] = reranker.score(features)[0]
        rank = int(findings.citations.rank[row])
        position = findings.slates.position[self._rows]
        without = int(ranks(np.array([0, len(score)]), score, position)[number])
        if without <= rank:
            return None
        largest = int(np.where(habits, findings.signals.contribution[row], -np.inf).argmax())
        return Recourse(
            kind="feature",
            events=[],
            item_ids=[],
            titles=[],
            feature=findings.bundle.features[largest].name,
            rank=rank,
            rank_without=without,
            off_slate=False,
            text=text,
        )

    def _run(self, sets: list[Titles]) -> None:
        """Delete each set of titles that was not tried yet from the session, and place the slate's items."""
        new = [titles for titles in dict.fromkeys(sets) if titles not in self._trials]
        new = new[: MAX_TRIALS - len(self._trials)]
        if not new:
            return
        deleted = np.stack([np.isin(self._session, titles) for titles in new])
        edits = Edits.deletions(np.full(len(new), self._slate), deleted)
        vectors = session_vectors(self._models.session, self._findings.scores.reading, edits)
        places = self._places(vectors, self._not_shown(np.where(deleted, 0, self._session)), NOISE)
        self._trials |= {
            titles: _Trial(vector, place) for titles, vector, place in zip(new, vectors, places, strict=True)
        }

    def _not_shown(self, left: Ints) -> Ints:
        """Replace items of the slate by 0: the session is not recommended, but these items evidently are."""
        return np.where(np.isin(left, self._items), 0, left)

    def _places(self, vectors: Floats, left: Ints, lead: float) -> Ints:
        """Place of each item of the slate in the catalogue by session score, int64 [n, N], 1 for the best.

        vectors is float32 [n, d]; left int64 [n, L], items of the session, which are no candidates, 0 for none. An item
        is placed after every candidate whose score is higher by more than `lead`, in spreads of the session scores.
        """
        every, bias = self._models.bundle.item_vectors, self._models.bundle.item_bias
        own = vectors @ every[self._items].T + bias[self._items] + np.float32(lead * self._models.spread.session)
        better = np.zeros(own.shape, dtype=np.int64)
        for start in range(1, len(every), CATALOG_PART):
            scores = vectors @ every[start : start + CATALOG_PART].T + bias[start : start + CATALOG_PART]
            scores.sort(axis=1)
            for row, ordered in enumerate(scores):
                better[row] += len(ordered) - np.searchsorted(ordered, own[row], side="right")
        for row, (items, vector) in enumerate(zip(left, vectors, strict=True)):
            seen = np.unique(items[items > 0])
            better[row] -= (every[seen] @ vector + bias[seen] > own[row, :, None]).sum(axis=1)
        return better + 1


def _joined(parts: tuple[Titles, ...]) -> Titles:
    return tuple(sorted(title for part in parts for title in part))
