"""trending: a fact about the item, whoever looks at it."""

from __future__ import annotations

from typing import Final

from stream.explain.columns import Bools
from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.wording import Wording

PERCENTILE: Final = 95.0
"""More than this share of the catalogue rises less, or is watched less."""


def holds(findings: Findings) -> Bools:
    """Items above the threshold, by the trend that was sent or by the catalogue's popularity."""
    return (findings.signals.trend > PERCENTILE) | (findings.signals.popularity > PERCENTILE)


def sentence(findings: Findings, row: int, words: Wording) -> str:
    """Say which of the two facts it is, and how far ahead the item is; a percentile is rounded down."""
    trend, popularity = findings.signals.trend[row], findings.signals.popularity[row]
    if trend > PERCENTILE:
        return words.say("trending.rising", percent=words.percent(min(99, int(trend))))
    return words.say("trending.popular", percent=words.percent(min(99, int(popularity))))


KIND = Kind(
    name="trending",
    status="factual",
    holds=holds,
    rules={"evidence": holds, "attention": holds},
    sentence=sentence,
)
