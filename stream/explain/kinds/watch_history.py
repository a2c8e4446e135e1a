"""watch_history: "because you watched …", citing at most two past events."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

import numpy as np

from stream.explain.columns import Bools, Ints
from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.wording import Wording


def cited(findings: Findings) -> Bools:
    """Items for which the policy proposed an event (under evidence: one that deletion has confirmed)."""
    return findings.citations.column[:, 0] >= 0


def holds(findings: Findings) -> Bools:
    """Items of which every cited event lowers the score when it is deleted, in itself and relative to the slate."""
    citations = findings.citations
    every: Bools = np.all(citations.holds | (citations.column < 0), axis=1)
    return cited(findings) & every


def sentences(findings: Findings, rows: Ints, words: Sequence[Wording]) -> list[str]:
    """Name the cited events by what the user did, and what their absence changes, where it changes the order."""
    citations, histories, titles = findings.citations, findings.slates.histories, findings.bundle.catalog.titles
    names = ("", *findings.bundle.manifest.engagements)
    event = (findings.slates.slate[rows, None], citations.column[rows])
    decisive = citations.decisive[rows]
    columns = (
        np.where(event[1] >= 0, histories.item[event], 0),  # else it is the newest column's
        histories.engagement[event],
        decisive,
        citations.by_score[event[0][:, 0]],
        citations.rank[rows],
        citations.rank_without[rows, np.maximum(decisive, 0)],
    )
    said = []
    for each, items, actions, place, by_score, rank, rank_without in zip(
        words, *map(np.ndarray.tolist, columns), strict=True
    ):
        cited = tuple([(names[done], titles[item - 1]) for item, done in zip(items, actions, strict=True) if item])
        text = _because(each, cited)
        if place >= 0:
            key = "counterfactual" if by_score else "counterfactual.by_score"
            title, without = each.quoted(cited[place][1]), each.ordinal(rank_without)
            text = each.sentences(text, each.say(key, title=title, without=without, rank=each.ordinal(rank)))
        said.append(text)
    return said


@lru_cache(maxsize=10_000)
def _because(words: Wording, cited: tuple[tuple[str, str], ...]) -> str:
    """Name events, each by what was done and its title; the items of a user have reasons in common."""
    actions = [
        words.say(f"action.{name}", titles=words.join([words.quoted(title) for _, title in group]))
        for name, group in groupby(cited, key=itemgetter(0))
    ]
    return words.say("watch_history", actions=words.join(actions))


KIND = Kind(
    name="watch_history",
    status="verified",
    holds=holds,
    rules={"evidence": holds, "attention": cited},
    sentences=sentences,
)
