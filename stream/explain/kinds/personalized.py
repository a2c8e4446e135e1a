"""personalized: claims nothing specific, and so fits every item."""

from __future__ import annotations

import numpy as np

from stream.explain.columns import Bools
from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.wording import Wording


def holds(findings: Findings) -> Bools:
    """Every item."""
    return np.ones(len(findings.slates.item), dtype=np.bool_)


def sentence(findings: Findings, row: int, words: Wording) -> str:  # noqa: ARG001 - every kind is asked the same way
    """Say the one sentence that is always true."""
    return words.say("personalized")


KIND = Kind(
    name="personalized",
    status="generic",
    holds=holds,
    rules={"evidence": holds, "attention": holds},
    sentence=sentence,
)
