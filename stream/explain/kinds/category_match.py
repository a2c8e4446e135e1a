"""category_match: "you have been watching titles in …"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from stream.explain.columns import Bools, Ints
from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.wording import Wording

DECIDING: Final = 3
"""A feature among so many of the largest contributions counts as one that decided."""

MATCH_THRESHOLD: Final = 0.6
"""The reference's rule: more than this share of the history is in the item's category."""


def holds(findings: Findings) -> Bools:
    """Items that a deciding category feature and the category as a whole push *up*, with titles of it watched."""
    signals = findings.signals
    rises = signals.contribution[:, _category(findings)].sum(axis=1) > 0
    held: Bools = _deciding(findings, up=True) & rises & (signals.category_titles > 0)
    return held


def by_reference(findings: Findings) -> Bools:
    """Items with a deciding category feature, whichever way it pushes, and most of the history in the category."""
    signals = findings.signals
    return _deciding(findings, up=False) & (signals.category_match > MATCH_THRESHOLD) & (signals.category_titles > 0)


def _category(findings: Findings) -> Bools:
    return np.array([feature.is_category and not feature.is_sensitive for feature in findings.bundle.features])


def _deciding(findings: Findings, *, up: bool) -> Bools:
    signals = findings.signals
    category = _category(findings)
    top = signals.top[:, :DECIDING]
    contribution = np.take_along_axis(signals.contribution, top, axis=1)
    decides = contribution > 0 if up else contribution != 0
    return signals.sound & (category[top] & decides).any(axis=1)


def sentences(findings: Findings, rows: Ints, words: Sequence[Wording]) -> list[str]:
    """Name the category and how many titles of it were watched."""
    categories = findings.bundle.catalog.categories
    item, titles = findings.slates.item[rows].tolist(), findings.signals.category_titles[rows].tolist()
    return [
        each.count("category_match", number, category=each.quoted(categories[index - 1]))
        for each, index, number in zip(words, item, titles, strict=True)
    ]


KIND = Kind(
    name="category_match",
    status="verified",
    holds=holds,
    rules={"evidence": holds, "attention": by_reference},
    sentences=sentences,
)
