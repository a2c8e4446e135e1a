"""Which scores of impressions a bundle's models do not reproduce, why, and what to do, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from stream.evaluation.diagnosis import Diagnosis

_SHOWN: Final = 5


def diagnosis_view(found: Diagnosis, unreadable: Mapping[int, str]) -> Iterator[RenderableType]:
    """Lay out a diagnosis; unreadable: why lines, rows or messages could not be read, by their place."""
    if not found.items:
        yield Text("No impression could be compared.", "bold red")
    else:
        share = found.reproduced / found.items
        yield Text(
            f"{found.reproduced:,} of {found.items:,} items ({share:.1%}) of {found.slates:,} slates have the scores "
            "of this bundle.",
            "bold green" if found.reproduced == found.items else "bold yellow",
        )
    if found.groups:
        yield _groups(found)
    reasons = [f"{place}: {reason}" for place, reason in sorted(unreadable.items())[:_SHOWN]]
    reasons += [f"{count:,} impressions: {reason}" for reason, count in list(found.rejected.items())[:_SHOWN]]
    if reasons:
        total = len(unreadable) + sum(found.rejected.values())
        yield Text(f"{total:,} impressions cannot be explained:", "bold red")
        yield Text("\n".join(reasons))


def _groups(found: Diagnosis) -> Table:
    table = Table("items", "mismatch", "largest, in tolerances", "what to do", title="Scores that differ")
    table.title_justify = "left"
    for group in found.ordered():
        size = f"{group.tolerances:,.0f}" if math.isfinite(group.tolerances) and group.tolerances > 0 else ""
        says = "\n".join([escape(group.remedy), *(f"[dim]{escape(each)}[/]" for each in group.examples)])
        table.add_row(f"{group.items:,}", group.cause, size, says)
    return table
