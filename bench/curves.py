"""Curves of what something costs against how much of it there is: as tables, and as one drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

_COLOURS: Final = ("#2457a6", "#c2601c", "#8d98a3")
_ACROSS: Final = 3
_APART: Final = 0.09
"""Part of an axis that the label of a size takes."""


@dataclass(frozen=True, slots=True)
class Curve:
    """``unit`` as ``against`` grows. ``lines`` are points (size, value) by name, one with an empty name if alone.

    ``doubling``: whether sizes stand apart by their ratio, not by their difference.
    """

    against: str
    unit: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    doubling: bool = False


def show(curve: Curve) -> None:
    """Print a curve, a column per size."""
    sizes = [size for size, _ in next(iter(curve.lines.values()))]
    print(f"\n{curve.against:32}" + "".join(f"{size:>9g}" for size in sizes))
    for name, points in curve.lines.items():
        label = f"{curve.unit}: {name}" if name else curve.unit
        print(f"{label:32}" + "".join(f"{value:>9.1f}" for _, value in points), flush=True)


def draw(curves: Sequence[Curve], title: str) -> Figure:
    """Draw curves side by side, each with an axis of its own that begins at zero."""
    down = -(-len(curves) // _ACROSS)
    figure = Figure(figsize=(10, 0.6 + 2.5 * down), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11)
    for place, curve in enumerate(curves, start=1):
        axes = figure.add_subplot(down, _ACROSS, place)
        for colour, (name, points) in zip(_COLOURS, curve.lines.items(), strict=False):
            sizes, values = zip(*points, strict=True)
            axes.plot(sizes, values, "-o", color=colour, label=name, markersize=3.5, linewidth=1.5)
        if curve.doubling:
            axes.set_xscale("log", base=2)
            axes.minorticks_off()
        axes.set_xticks(sizes, _labels(sizes, doubling=curve.doubling))
        axes.set_ylim(0, 1.12 * max(value for points in curve.lines.values() for _, value in points))
        axes.set_xlabel(curve.against, fontsize=9)
        axes.set_ylabel(curve.unit, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if len(curve.lines) > 1:
            axes.legend(frameon=False, fontsize=8)
    return figure


def _labels(sizes: Sequence[float], *, doubling: bool) -> list[str]:
    """Name sizes from the largest down, and leave out those that would run into the next."""
    places = np.log2(sizes) if doubling else np.asarray(sizes, dtype=float)
    apart, last = _APART * float(np.ptp(places)), np.inf
    labels = []
    for size, place in zip(reversed(sizes), reversed(places), strict=True):
        shown = last - place >= apart
        last = place if shown else last
        labels.append(f"{size:g}" if shown else "")
    return labels[::-1]


def save(figure: Figure, to: Path) -> None:
    """Write a drawing as SVG: its text as text, no date, no random ids, so that the same figures give the same file."""
    with rc_context({"svg.hashsalt": "whyrec", "svg.fonttype": "none"}):
        figure.savefig(to, format="svg", metadata={"Date": None})
