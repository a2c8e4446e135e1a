"""watch_history: "because you watched …", citing at most two past events."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np

from models.bundle import OTHER
from models.manifest import Engagement
from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.slates import Bools, Ints
from stream.explain.wording.phrases import SLOT, Wording


def cited(findings: Findings) -> Bools:
    """Items for which the policy cites an event; under the evidence policy, ablation has confirmed the event."""
    return findings.citations.column[:, 0] >= 0


def holds(findings: Findings) -> Bools:
    """Items whose score, and score relative to the slate, drops when any one of their cited events is deleted."""
    citations = findings.citations
    all_hold: Bools = np.all(citations.holds | (citations.column < 0), axis=1)
    return cited(findings) & all_hold


def sentences(findings: Findings, rows: Ints, words: Sequence[Wording]) -> list[str]:
    """Name the cited events and what the user did with each, and the item's rank without one if the rank changes."""
    citations, histories, titles = findings.citations, findings.slates.histories, findings.bundle.catalog.titles
    engagements = (OTHER, *findings.bundle.engagements)
    slate, column, decisive = findings.slates.slate[rows], citations.column[rows], citations.decisive[rows]
    event, decisive_column = (slate[:, None], column), np.maximum(decisive, 0)
    item, engagement = np.where(column >= 0, histories.item[event], 0), histories.engagement[event]
    # Items of a slate often cite the same events. Equal numbers mean equal citations, so that each text is built once.
    citation_key = slate
    for each in column.T:
        citation_key = citation_key * (histories.width + 1) + each + 1
    columns = (
        citation_key,
        decisive,
        np.take_along_axis(item, decisive_column[:, None], axis=1)[:, 0],
        citations.by_score[slate],
        citations.rank_without[rows, decisive_column],
        citations.rank[rows],
    )
    # The rank was computed with such features as they were sent, although they would change as well.
    counterfactual = "counterfactual.equal" if findings.bundle.holds_history_features else "counterfactual"
    texts = []
    reasons: dict[int, str] = {}
    each_row = zip(words, *map(np.ndarray.tolist, columns), strict=True)
    for row, (wording, key, decides, decisive_item, by_score, without, rank) in enumerate(each_row):
        text = reasons.get(key)
        if text is None:
            events = zip(item[row].tolist(), engagement[row].tolist(), strict=True)
            cited_events = [(engagements[done], titles[index - 1]) for index, done in events if index]
            text = reasons[key] = _because(wording, cited_events)
        if decides >= 0:
            message = counterfactual if by_score else f"{counterfactual}.by_score"
            sentence = wording.counterfactual(message, without, rank)
            text += sentence.replace(SLOT, wording.quoted(titles[decisive_item - 1]))
        texts.append(text)
    return texts


def _because(words: Wording, events: list[tuple[Engagement, str]]) -> str:
    """Name events, given as engagement and title; consecutive events of one engagement share their verb."""
    actions = [
        _action(words, engagement).replace(SLOT, words.join([words.quoted(title) for _, title in group]))
        for engagement, group in groupby(events, key=itemgetter(0))
    ]
    return words.with_slot("watch_history", "actions").replace(SLOT, words.join(actions))


def _action(words: Wording, engagement: Engagement) -> str:
    """Name an engagement, with SLOT in place of the titles: by the bundle's verb, else by the language's phrase."""
    verb = words.of_owner(engagement.verbs)
    if verb is not None:
        return verb.replace("{titles}", SLOT)
    return words.with_slot(f"action.{engagement.name}", "titles")


KIND = Kind(
    name="watch_history",
    status="verified",
    holds=holds,
    rules={"evidence": holds, "attention": cited},
    sentences=sentences,
)
