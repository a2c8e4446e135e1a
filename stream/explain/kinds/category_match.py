"""category_match: "you have been watching titles in …"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.slates import Bools, Ints
from stream.explain.wording import Wording

DECIDING: Final = 3
"""A feature decides if its contribution is among this many largest contributions (by absolute SHAP value)."""

MATCH_THRESHOLD: Final = 0.6
"""Under the attention policy, more than this share of the history must be in the item's category."""


def holds(findings: Findings) -> Bools:
    """Items of a watched category whose score a deciding category feature, and all of them together, increase."""
    signals = findings.signals
    increases = signals.contribution[:, _category(findings)].sum(axis=1) > 0
    held: Bools = _deciding(findings, positive=True) & increases & (signals.category_titles > 0)
    return held


def by_history_share(findings: Findings) -> Bools:
    """Items with a deciding category feature of either sign, in the category of most of the history."""
    signals = findings.signals
    return (
        _deciding(findings, positive=False) & (signals.category_match > MATCH_THRESHOLD) & (signals.category_titles > 0)
    )


def _category(findings: Findings) -> Bools:
    """Features that describe the item's category and may be named: bool [features]."""
    return np.array(
        [feature.is_category and not feature.is_sensitive for feature in findings.bundle.features], dtype=np.bool_
    )


def _deciding(findings: Findings, *, positive: bool) -> Bools:
    """Items with a category feature, of positive contribution if so required, among the DECIDING largest: bool [T]."""
    signals = findings.signals
    category = _category(findings)
    top = signals.top[:, :DECIDING]
    contribution = np.take_along_axis(signals.contribution, top, axis=1)
    decides = contribution > 0 if positive else contribution != 0
    return signals.sound & (category[top] & decides).any(axis=1)


def sentences(findings: Findings, rows: Ints, words: Sequence[Wording]) -> list[str]:
    """State how many titles of the item's category the user watched."""
    names = findings.bundle.catalog.category_names
    category, titles = findings.signals.category[rows].tolist(), findings.signals.category_titles[rows].tolist()
    return [
        each.count("category_match", number, category=each.quoted(names[code]))
        for each, code, number in zip(words, category, titles, strict=True)
    ]


KIND = Kind(
    name="category_match",
    status="verified",
    holds=holds,
    rules={"evidence": holds, "attention": by_history_share},
    sentences=sentences,
)
