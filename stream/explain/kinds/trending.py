"""trending: a fact about the item that does not depend on the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.slates import Bools, Ints
from stream.explain.wording import Wording

PERCENTILE: Final = 95.0
"""The percentile of growth or of popularity in the catalogue that an item must exceed."""


def holds(findings: Findings) -> Bools:
    """Items above the percentile, by the trend in the event or by the catalogue's popularity."""
    return (findings.signals.trend > PERCENTILE) | (findings.signals.popularity > PERCENTILE)


def sentences(findings: Findings, rows: Ints, words: Sequence[Wording]) -> list[str]:
    """State the trend if it exceeds the percentile, else the popularity; percentiles are rounded down to at most 99."""
    trend, popularity = findings.signals.trend[rows].tolist(), findings.signals.popularity[rows].tolist()
    return [
        each.say("trending.rising", percent=each.percent(min(99, int(rising))))
        if rising > PERCENTILE
        else each.say("trending.popular", percent=each.percent(min(99, int(popular))))
        for each, rising, popular in zip(words, trend, popularity, strict=True)
    ]


KIND = Kind(
    name="trending",
    status="factual",
    holds=holds,
    rules={"evidence": holds, "attention": holds},
    sentences=sentences,
)
