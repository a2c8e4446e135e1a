"""One file per explanation type, and the order in which they take precedence."""

from __future__ import annotations

from typing import Final

from schemas.events import ExplanationType
from stream.explain.kinds import category_match, personalized, trending, watch_history
from stream.explain.kinds.kind import Kind

KINDS: Final[dict[ExplanationType, Kind]] = {
    kind.name: kind for kind in (watch_history.KIND, category_match.KIND, trending.KIND, personalized.KIND)
}
"""Every explanation type, the most specific claim first; the last type claims nothing and holds for every item."""

POLICIES: Final = ("evidence", "attention")
"""evidence makes only claims that hold; attention is the baseline to compare with, which cites by attention weight."""
