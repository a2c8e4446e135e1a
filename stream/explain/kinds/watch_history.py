"""watch_history: "because you watched …", citing at most two past events."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np

from stream.explain.columns import Bools, Ints
from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.wording.phrases import HOLE, Wording


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
    slate, column, decisive = findings.slates.slate[rows], citations.column[rows], citations.decisive[rows]
    event, place = (slate[:, None], column), np.maximum(decisive, 0)
    item, action = np.where(column >= 0, histories.item[event], 0), histories.engagement[event]
    # The items of a slate have reasons in common: a number for each.
    reason = slate
    for each in column.T:
        reason = reason * (histories.width + 1) + each + 1
    columns = (
        reason,
        decisive,
        np.take_along_axis(item, place[:, None], axis=1)[:, 0],
        citations.by_score[slate],
        citations.rank_without[rows, place],
        citations.rank[rows],
    )
    said = []
    known: dict[int, str] = {}
    each_row = zip(words, *map(np.ndarray.tolist, columns), strict=True)
    for row, (wording, number, decides, title, by_score, without, rank) in enumerate(each_row):
        text = known.get(number)
        if text is None:
            cited = zip(item[row].tolist(), action[row].tolist(), strict=True)
            text = known[number] = _because(wording, [(names[done], titles[what - 1]) for what, done in cited if what])
        if decides >= 0:
            skeleton = wording.without("counterfactual" if by_score else "counterfactual.by_score", without, rank)
            text += skeleton.replace(HOLE, wording.quoted(titles[title - 1]))
        said.append(text)
    return said


def _because(words: Wording, cited: list[tuple[str, str]]) -> str:
    """Name events, each by what was done and its title."""
    actions = [
        words.skeleton(f"action.{name}", "titles").replace(
            HOLE, words.join([words.quoted(title) for _, title in group])
        )
        for name, group in groupby(cited, key=itemgetter(0))
    ]
    return words.skeleton("watch_history", "actions").replace(HOLE, words.join(actions))


KIND = Kind(
    name="watch_history",
    status="verified",
    holds=holds,
    rules={"evidence": holds, "attention": cited},
    sentences=sentences,
)
