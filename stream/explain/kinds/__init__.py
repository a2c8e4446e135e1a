"""One file per explanation type, and the order in which they take precedence."""

from __future__ import annotations

from typing import Final

from schemas.events import ExplanationType
from stream.explain.kinds import category_match, personalized, trending, watch_history
from stream.explain.kinds.kind import Kind

KINDS: Final[dict[ExplanationType, Kind]] = {
    kind.name: kind for kind in (watch_history.KIND, category_match.KIND, trending.KIND, personalized.KIND)
}
"""Every explanation type, the one that says most first; the last claims nothing and fits every item."""

POLICIES: Final = ("evidence", "attention")
"""evidence: only claims that hold are made. attention: the reference's rules, to be compared with."""
