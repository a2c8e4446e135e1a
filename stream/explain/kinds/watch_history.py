"""watch_history: "because you watched …", citing at most two past events."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

import numpy as np

from stream.explain.columns import Bools
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


def sentence(findings: Findings, row: int, words: Wording) -> str:
    """Name the cited events by what the user did, and what their absence changes, where it changes the order."""
    citations, histories = findings.citations, findings.slates.histories
    slate = findings.slates.slate[row]
    columns = [column for column in citations.column[row].tolist() if column >= 0]
    engagements = [findings.bundle.manifest.engagements[histories.engagement[slate, each] - 1] for each in columns]
    titles = [words.quoted(findings.title(histories.item[slate, column])) for column in columns]
    actions = [
        words.say(f"action.{name}", titles=words.join(title for _, title in group))
        for name, group in groupby(zip(engagements, titles, strict=True), key=itemgetter(0))
    ]
    because = words.say("watch_history", actions=words.join(actions))
    place = int(citations.decisive[row])
    if place < 0:
        return because
    key = "counterfactual" if citations.by_score[slate] else "counterfactual.by_score"
    rank, without = int(citations.rank[row]), int(citations.rank_without[row, place])
    text = words.say(key, title=titles[place], without=words.ordinal(without), rank=words.ordinal(rank))
    return words.sentences(because, text)


KIND = Kind(
    name="watch_history",
    status="verified",
    holds=holds,
    rules={"evidence": holds, "attention": cited},
    sentence=sentence,
)
