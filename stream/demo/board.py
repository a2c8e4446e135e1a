"""The running figures: a table that is updated in place on a terminal, one line every five seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

_LINE_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of the board at one moment; latencies in milliseconds."""

    elapsed_s: float
    events_in: int
    items_in: int
    explanations: int
    items_explained: int
    archived: int
    dead_letters: int
    latency_ms: Mapping[str, float]
    types: Counter[str]

    @property
    def lag(self) -> int:
        """Events sent whose explanation has not arrived."""
        return max(0, self.events_in - self.explanations - self.dead_letters)


class Board:
    """Shows figures; use it in a with block."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
        self._next_line_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, figures: Figures, *, phase: str) -> None:
        """Show the current figures."""
        if self._live is not None:
            self._live.update(self._table(figures, phase))
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _LINE_EVERY_S
            self._console.print(_line(figures, phase), highlight=False, soft_wrap=True)

    def _table(self, figures: Figures, phase: str) -> Table:
        table = Table(title=f"{self._title} · {phase} · {figures.elapsed_s:.0f} s", title_justify="left", min_width=64)
        table.add_column("")
        table.add_column("slates", justify="right")
        table.add_column("items", justify="right")
        table.add_row("events in", f"{figures.events_in:,}", f"{figures.items_in:,}")
        table.add_row("explanations out", f"{figures.explanations:,}", f"{figures.items_explained:,}")
        table.add_row("archived", "", f"{figures.archived:,}")
        table.add_row("dead letters", f"{figures.dead_letters:,}", "")
        table.add_row("lag", f"{figures.lag:,}", "")
        table.add_section()
        table.add_row("latency p50 / p99", "", f"{figures.latency_ms['p50']:.0f} / {figures.latency_ms['p99']:.0f} ms")
        for kind, share in shares(figures.types):
            table.add_row(kind, "", f"{share:.1%}")
        return table


def shares(types: Counter[str]) -> list[tuple[str, float]]:
    """Return each explanation type with its share of the items, most frequent first."""
    total = max(1, types.total())
    return [(kind, count / total) for kind, count in types.most_common()]


def _line(figures: Figures, phase: str) -> str:
    return (
        f"{figures.elapsed_s:4.0f} s {phase}: {figures.events_in:,} events, {figures.explanations:,} explanations, "
        f"{figures.archived:,} rows, p50 {figures.latency_ms['p50']:.0f} ms, p99 {figures.latency_ms['p99']:.0f} ms"
    )
