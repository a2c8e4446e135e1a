"""How much work there is, and how much the machine can do: what stands beside measured times in a budget.

Work is counted, not timed: rows that the session model computes, and the floating-point operations of its matrix
products (two for each multiply-add; nothing else is counted, so that the limit is a lower one).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.session.runtime import SessionModel


@dataclass(frozen=True)
class Size:
    """What decides the work of a session transformer of ours; d_ff is four times d, as it is trained."""

    layers: int
    heads: int
    d: int


@dataclass
class Work:
    """Calls to ONNX Runtime, sessions in them, rows that they computed, and their operations."""

    calls: int = 0
    sessions: int = 0
    rows: int = 0
    flop: float = 0.0

    def add(self, size: Size, sessions: int, length: int, fresh: int, nearly: bool) -> None:
        """Count one call: `fresh` of `length` rows of each session, and nearly_without for as many."""
        self.calls += 1
        self.sessions += sessions
        self.rows += sessions * fresh
        self.flop += sessions * (forward_flop(size, length, fresh) + nearly * nearly_flop(size, length))


def forward_flop(size: Size, length: int, fresh: int) -> float:
    """Operations for the newest `fresh` rows of `length`, of which the last layer needs one."""
    d, row = size.d, _row_flop(size)
    inner = fresh * (row + 4.0 * length * d)
    last = row + 4.0 * length * d * size.heads  # its keys and values are never formed
    return (size.layers - 1) * inner + last + 2.0 * d * d


def nearly_flop(size: Size, length: int) -> float:
    """Operations for one row per event and layer, and for the last layer's keys and values."""
    d = size.d
    return length * (size.layers * (_row_flop(size) + 4.0 * length * d) + 4.0 * d * d + 2.0 * d * d)


def _row_flop(size: Size) -> float:
    return 8.0 * size.d**2 + 16.0 * size.d**2


def watch(model: SessionModel) -> tuple[Work, Work]:
    """Count from now on the work of a model: whole runs, and runs that take a session up again."""
    whole, again = Work(), Work()
    size = Size(model.layers, model.heads, model.dimension)
    call = model._call  # noqa: SLF001 - the one place where every run passes

    def counted(item_index: Any, engagement_index: Any, extras: Any, past: Any = None) -> Any:
        sessions, length = item_index.shape
        fresh = length - (0 if past is None else past.shape[1])
        (whole if past is None else again).add(size, sessions, length, fresh, "nearly_without" in extras)
        return call(item_index, engagement_index, extras, past)

    model._call = counted  # type: ignore[method-assign]  # noqa: SLF001
    return whole, again


def peak_flops() -> float:
    """Operations a second of one core in a float32 matrix product of 1024 x 512 x 512, the best of many."""
    a, b = np.ones((1024, 512), np.float32), np.ones((512, 512), np.float32)
    return 2.0 * 1024 * 512 * 512 / _least(lambda: a @ b)


def peak_bandwidth() -> float:
    """Bytes a second that one core reads and writes when it copies 64 MB, the best of many."""
    source = np.ones(8_000_000)
    target = np.empty_like(source)
    return 2.0 * source.nbytes / _least(lambda: np.copyto(target, source))


def _least(work: Callable[[], object], turns: int = 40) -> float:
    times = []
    for _ in range(turns):
        started = time.thread_time()
        work()
        times.append(time.thread_time() - started)
    return min(times)
