"""The evaluation as one self-contained HTML page."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from stream.evaluation.figures import KEYS

_COLOURS: Final = {"shown": "#2457a6", "random": "#c3c9d0", "last": "#8d98a3"}
_BARS: Final = ("true_deletion", "true_all_removals", "true_cause_first", "ig_top5", "confirmed_share")


def html_report(record: Mapping[str, Any]) -> str:
    """Render the record of an evaluation (:meth:`stream.evaluation.run.Evaluation.record`)."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    plots = [_svg(_bars(record))]
    if record["trade_off"]:
        plots.append(_svg(_trade_off(record["trade_off"])))
    return environment.get_template("report.html.j2").render(
        evaluation=record, keys=KEYS, plots=plots, percent=percent, count=count
    )


def percent(value: float | None) -> str:
    """Format a share as a percentage; the empty string for None."""
    return "" if value is None else f"{value:.1%}"


def count(found: Mapping[str, float]) -> str:
    """Format the numerator and denominator of a share; the empty string where nothing was counted."""
    if not found["denominator"]:
        return ""
    return f"{found['numerator']:,.0f} of {found['denominator']:,.0f}"


def _bars(record: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for column, (policy, found) in enumerate(record["policies"].items(), start=1):
        axes = figure.add_subplot(1, len(record["policies"]), column)
        for number, who in enumerate(_COLOURS):
            slice_of = found["long"] if who == "shown" else record["baselines"][policy][who]["long"]
            heights = [slice_of[key]["value"] or 0.0 for key in _BARS]
            axes.barh([row + 0.27 * (number - 1) for row in range(len(_BARS))], heights, 0.26, color=_COLOURS[who])
        axes.set_yticks(range(len(_BARS)), [KEYS[key].removeprefix("… ") for key in _BARS] if column == 1 else [])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_title(f"{policy}, sessions of 10 events and more", fontsize=10)
    figure.legend(["shown", "at random", "the newest"], loc="outside lower center", ncols=3, frameon=False)
    return figure


def _trade_off(points: list[dict[str, float]]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    share = [point["confirmed_share"] for point in points]
    for key, style in (("ig_top5", "-o"), ("ig_top5_long", "--o"), ("ig_centred_top5", ":o")):
        axes.plot(share, [point[key] for point in points], style, label=key.replace("_", " "), markersize=4)
    for point in points[::2]:
        axes.annotate(f"{point['margin']:g}", (point["confirmed_share"], point["ig_top5"]), fontsize=8)
    axes.set_xlabel("impressions with a confirmed citation, as the margin (next to each point) decreases")
    axes.set_ylabel("first citation in IG top-5")
    axes.legend(frameon=False)
    return figure


def _svg(figure: Figure) -> Markup:
    written = io.StringIO()
    # No date and no random ids: the same evaluation gives the same page.
    with rc_context({"svg.hashsalt": "whyrec", "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return Markup(written.getvalue()[written.getvalue().index("<svg") :])  # noqa: S704 - drawn here, from numbers
