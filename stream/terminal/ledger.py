"""The terminal view of an item's full ledger: two tables, each with the parts of a sum and, last, the total."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from babel.dates import format_timedelta
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from schemas.events import Detail, EventLedger, FeatureLedger, SimilarMoment

_BAR: Final = 10
"""Length of the longest bar, in characters."""

_NAMED_SHARE: Final = 0.95
"""Features are named until they cover this share of the absolute contributions; one row sums up the other features."""


def ledger(detail: Detail, *, sensitive: bool = False) -> Iterator[RenderableType]:
    """Lay out the features and the session events that make up an item's score, and the recourse.

    By default the small and the sensitive features are summed up in one row without names. With ``sensitive``, every
    feature is named: only for investigations and for a data subject's own request.
    """
    yield _features(detail, every_feature=sensitive)
    if detail["events"]:
        yield _events(detail)
    if detail["recourse"]:
        yield Text.assemble(("⤷ ", "bold"), detail["recourse"]["text"])
    yield from (Text(_moment(moment), style="dim") for moment in detail["similar_moments"])


def _features(detail: Detail, *, every_feature: bool) -> Table:
    named, others = (_by_size(detail["features"]), []) if every_feature else _named(detail["features"])
    table = _table("What the score is made of", "value", "counts")
    largest = max((abs(each["contribution"]) for each in named), default=0.0)
    table.add_row("Where every item starts", "", f"{detail['base_value']:.3f}", "")
    for each in named:
        cells = (each["display_name"], _value(each), f"{each['contribution']:+.3f}")
        table.add_row(*cells, _bar(each["contribution"], largest))
    if others:
        rest = sum(each["contribution"] for each in others)
        table.add_row(f"{len(others)} others", "", f"{rest:+.3f}", _bar(rest, largest), style="dim")
    table.add_section()
    table.add_row(Text("Score", style="bold"), "", Text(f"{detail['raw_score']:.3f}", style="bold"), "")
    return table


def _named(features: list[FeatureLedger]) -> tuple[list[FeatureLedger], list[FeatureLedger]]:
    """Split the features into those that get a row, largest first, and the others. Sensitive features get no row."""
    enough = _NAMED_SHARE * sum(abs(each["contribution"]) for each in features)
    named: list[FeatureLedger] = []
    others: list[FeatureLedger] = []
    covered = 0.0
    for each in _by_size(features):
        (others if each["sensitive"] or covered >= enough else named).append(each)
        covered += abs(each["contribution"])
    return named, others


def _by_size(features: list[FeatureLedger]) -> list[FeatureLedger]:
    return sorted(features, key=lambda each: -abs(each["contribution"]))


def _events(detail: Detail) -> Table:
    table = _table("What each event does to the fit", "ago", "alike", "effect")
    largest = max(abs(each["effect"] or 0.0) for each in detail["events"])
    for each in reversed(detail["events"]):
        alike = "" if each["similarity"] is None else f"{each['similarity']:.2f}"
        cells = (_event(each), _ago(each["age_s"]), alike, _effect(each["effect"]))
        table.add_row(*cells, _bar(each["effect"], largest))
    together = detail["events_together"]
    table.add_row("Only together", "", "", _effect(together), _bar(together, largest), style="dim")
    table.add_section()
    total = Text(f"{detail['session_score']:.3f}", style="bold")
    table.add_row(Text("How well it fits what you watched last", style="bold"), "", "", total, "")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=_BAR)
    return table


def _event(event: EventLedger) -> str:
    return f"{event['event']} {event['engagement']} “{event['title']}”"


def _value(feature: FeatureLedger) -> str:
    if math.isnan(feature["value"]):
        return "unknown"
    sign = feature["unit"] if feature["unit"] == "%" else ""
    return f"{feature['value']:.4g}{sign}"


def _effect(effect: float | None) -> str:
    return "unknown" if effect is None else f"{effect:+.3f}"


def _ago(seconds: int | None) -> str:
    return "" if seconds is None else format_timedelta(seconds, format="narrow", locale="en")


def _bar(value: float | None, largest: float) -> Text:
    if value is None:
        return Text("")
    length = math.ceil(_BAR * min(1.0, abs(value) / largest)) if largest else 0
    return Text("█" * length, style="green" if value > 0 else "red")


def _moment(moment: SimilarMoment) -> str:
    when = f"after event {moment['event']}" if moment["whose"] == "own" else "for many others"
    return f"a moment much like this ({moment['similarity']:.2f}), {when}: “{moment['next_title']}” was watched next"
