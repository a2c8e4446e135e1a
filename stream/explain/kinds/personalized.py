"""personalized: makes no specific claim, so that it holds for every item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.slates import Bools, Ints
from stream.explain.wording import Wording


def holds(findings: Findings) -> Bools:
    """Every item."""
    return np.ones(len(findings.slates.item), dtype=np.bool_)


def sentences(findings: Findings, rows: Ints, words: Sequence[Wording]) -> list[str]:  # noqa: ARG001 - the signature of Kind.sentences
    """Return the one sentence that holds for every item."""
    return [each.say("personalized") for each in words]


KIND = Kind(
    name="personalized",
    status="generic",
    holds=holds,
    rules={"evidence": holds, "attention": holds},
    sentences=sentences,
)
