"""personalized: claims nothing specific, and so fits every item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream.explain.columns import Bools, Ints
from stream.explain.findings import Findings
from stream.explain.kinds.kind import Kind
from stream.explain.wording import Wording


def holds(findings: Findings) -> Bools:
    """Every item."""
    return np.ones(len(findings.slates.item), dtype=np.bool_)


def sentences(findings: Findings, rows: Ints, words: Sequence[Wording]) -> list[str]:  # noqa: ARG001 - all are asked so
    """Say the one sentence that is always true."""
    return [each.say("personalized") for each in words]


KIND = Kind(
    name="personalized",
    status="generic",
    holds=holds,
    rules={"evidence": holds, "attention": holds},
    sentences=sentences,
)
