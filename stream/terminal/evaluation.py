"""The terminal view of an evaluation: one table per group of sessions, and the trade-off of the citation margin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from stream.evaluation.figures import BASELINES, KEYS
from stream.evaluation.report import percent

_HEADINGS: Final = {"all": "All sessions", "long": "Sessions of 10 events and more"}


def evaluation_tables(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Lay out the record of an evaluation (:meth:`stream.evaluation.run.Evaluation.record`)."""
    ageing = record["citation_ageing"]
    older = f" (n to the power of {ageing:g} times that for the nth newest event)" if ageing else ""
    yield Text(
        f"{record['model_version']} on {record['data']}: {record['slates']:,} slates, {record['impressions']:,} "
        f"impressions, citation margin {record['citation_margin']:g}{older}. In grey, two baselines: citing the same "
        "number of events at random, and citing the newest events."
    )
    for name, heading in _HEADINGS.items():
        yield _table(record, name, heading)
    if record["trade_off"]:
        points = ", ".join(
            f"{point['margin']:g}: {point['confirmed_share']:.0%} cited, {point['ig_top5']:.0%} of them in IG top-5"
            for point in record["trade_off"]
        )
        yield Text(f"By margin, the share of impressions with a citation (first citations only): {points}.")


def _table(record: Mapping[str, Any], name: str, heading: str) -> Table:
    table = Table(title=heading, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    table.add_column("", min_width=32)
    table.add_column("published", justify="right")
    for policy in record["policies"]:
        table.add_column(policy, justify="right", style="bold")
        table.add_column("random", justify="right", style="dim")
        table.add_column("newest", justify="right", style="dim")
    for key, text in KEYS.items():
        row = [text, percent(record["reference"].get(key))]
        for policy, found in record["policies"].items():
            row.append(percent(found[name][key]["value"]))
            row += [percent(record["baselines"][policy][who][name][key]["value"]) for who in BASELINES]
        table.add_row(*row)
    return table
