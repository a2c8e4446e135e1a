"""How much work there is, and how much the machine can do: what stands beside measured times in a budget.

Work is counted, not timed: rows that the session model computes, and the floating-point operations of its matrix
products (two for each multiply-add; nothing else is counted). They are counted as the graph has them: what
``models/session/incremental`` shares between runs, or leaves out because it is zero, counts as work, so that figures
compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from models.session.histories import Histories, Reading
from models.session.incremental import IncrementalInference
from models.session.incremental.kernel import BEGIN, COMPUTED, END
from models.session.runtime import SessionModel

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """What decides the work of a session transformer of ours; d_ff is four times d, as it is trained."""

    layers: int
    heads: int
    d: int


@dataclass
class Work:
    """Sessions that were run, whole or in part, the rows that were computed for them, and their operations."""

    sessions: int = 0
    rows: int = 0
    flop: float = 0.0

    def add(self, size: Size, length: Ints, fresh: Ints) -> None:
        """Count runs of so many events each, of which the newest `fresh` rows are computed; int64 [n] each."""
        self.sessions += len(fresh)
        self.rows += int(fresh.sum())
        self.flop += float(forward_flop(size, length, fresh).sum())

    def pour(self, into: Work) -> None:
        """Hand over what was counted, and begin anew."""
        into.sessions, into.rows, into.flop = (
            into.sessions + self.sessions,
            into.rows + self.rows,
            into.flop + self.flop,
        )
        self.sessions, self.rows, self.flop = 0, 0, 0.0


def forward_flop(size: Size, length: Ints, fresh: Ints) -> npt.NDArray[np.float64]:
    """Operations for the newest `fresh` rows of `length`, of which the last layer needs one; int64 [n] each."""
    d, row = size.d, 24.0 * size.d**2
    inner = fresh * (row + 4.0 * length * d)
    last = row + 4.0 * length * d * size.heads  # its keys and values are never formed
    return np.asarray((size.layers - 1) * inner + last + 2.0 * d * d)


def watch(model: SessionModel) -> Work:
    """Count from now on the work of a model: complete runs, and the runs of edited sessions."""
    work, size = Work(), Size(model.layers, model.heads, model.dimension)
    call, incremental = model._call, model.incremental  # noqa: SLF001 - the two places where every run passes

    def counted(item_index: Any, engagement_index: Any, extras: Any) -> Any:
        length = np.full(len(item_index), item_index.shape[1])
        work.add(size, length, length)
        return call(item_index, engagement_index, extras)

    model._call = counted  # type: ignore[method-assign]  # noqa: SLF001
    if incremental is not None:
        model.incremental = cast("IncrementalInference", _Counted(incremental, work, size))
    return work


@dataclass
class _Counted:
    incremental: IncrementalInference
    work: Work
    size: Size

    def read(self, histories: Histories) -> Reading:
        self.work.add(self.size, histories.length, histories.length)
        return self.incremental.read(histories)

    def vectors(self, cache: Any, item: Any, engagement: Any, runs: Ints) -> Any:
        begin, computed, end = (runs[:, column] for column in (BEGIN, COMPUTED, END))
        self.work.add(self.size, end - begin, np.where(begin < end, end - computed, 0))
        return self.incremental.vectors(cache, item, engagement, runs)


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
