"""watch_history: "because you watched …", citing at most two past events."""

from __future__ import annotations

from itertools import groupby

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
    columns = [column for column in findings.citations.column[row].tolist() if column >= 0]
    slate = findings.slates.slate[row]
    histories = findings.slates.histories
    engagements = [_engagement(findings, code) for code in histories.engagement[slate, columns].tolist()]
    titles = [words.quoted(findings.title(index)) for index in histories.item[slate, columns].tolist()]
    actions = [
        words.say(f"action.{name}", titles=words.join(title for _, title in group))
        for name, group in groupby(zip(engagements, titles, strict=True), key=lambda pair: pair[0])
    ]
    because = words.say("watch_history", actions=words.join(actions))
    return because + _counterfactual(findings, row, titles, words)


def _engagement(findings: Findings, code: int) -> str:
    return findings.bundle.manifest.engagements[code - 1]


def _counterfactual(findings: Findings, row: int, titles: list[str], words: Wording) -> str:
    """Say where the item would stand without the event that moves it most, if it would stand lower.

    Nothing is said where a score of the slate could not be reproduced, where the event does not hold, or where the
    title stands in the history more than once: "without it" would then mean something that was not measured.
    """
    citations, slates = findings.citations, findings.slates
    slate = int(slates.slate[row])
    items = slice(slates.offsets[slate], slates.offsets[slate + 1])
    if not findings.scores.matches[items].all():
        return ""
    history = slates.histories.item[slate]
    lower = [
        (int(citations.rank_without[row, place]), -place)
        for place in range(len(titles))
        if citations.holds[row, place] and (history == history[citations.column[row, place]]).sum() == 1
    ]
    rank = int(citations.rank[row])
    if not lower or max(lower)[0] <= rank:
        return ""
    without, place = max(lower)
    key = "counterfactual" if citations.by_score[slate] else "counterfactual.by_score"
    text = words.say(key, title=titles[-place], without=words.ordinal(without), rank=words.ordinal(rank))
    return f" {text}"


KIND = Kind(
    name="watch_history",
    status="verified",
    holds=holds,
    rules={"evidence": holds, "attention": cited},
    sentence=sentence,
)
