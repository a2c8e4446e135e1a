"""How much work there is, and how much the machine can do: what stands beside measured times in a budget.

Work is counted, not timed: rows that the session model computes, and the floating-point operations of its matrix
products (two for each multiply-add; nothing else is counted). They are counted as the graph has them: what
``models/session/incremental`` shares between runs, or leaves out because it is zero, counts as work, so that figures
compare.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.reranker.runtime import Reranker, Rescorer
from models.session.histories import Histories, Reading
from models.session.incremental import IncrementalInference
from models.session.incremental.kernel import BEGIN, COMPUTED, END
from models.session.runtime import SessionModel
from stream.explain.models import Models

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


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


@dataclass(frozen=True, slots=True)
class CountingInference(IncrementalInference):
    """Incremental inference that counts its work: complete sessions, and those that edits compute in part."""

    work: Work
    size: Size

    @classmethod
    def of(cls, model: SessionModel) -> CountingInference:
        """Count the work of a session model that has incremental inference."""
        if (inference := model.incremental) is None:
            raise SystemExit("this bundle's graph has no incremental inference, whose work could be counted")
        size = Size(model.layers, model.heads, model.dimension)
        return cls(inference.heads, inference.dimension, inference.weights, Work(), size)

    def read(self, histories: Histories) -> Reading:
        """Run complete histories, and count them."""
        self.work.add(self.size, histories.length, histories.length)
        return IncrementalInference.read(self, histories)

    def vectors(self, cache: Any, item: Any, engagement: Any, runs: Ints) -> Any:
        """Run edited histories, and count the positions that are computed."""
        begin, computed, end = (runs[:, column] for column in (BEGIN, COMPUTED, END))
        self.work.add(self.size, end - begin, np.where(begin < end, end - computed, 0))
        return IncrementalInference.vectors(self, cache, item, engagement, runs)


@dataclass(slots=True)
class Scored:
    """Rows that a re-ranker's trees evaluated, and scores that were summed of their leaves."""

    rows: int = 0
    sums: int = 0


@dataclass(frozen=True)
class CountingReranker(Reranker):
    """A re-ranker that counts what it scores."""

    scored: Scored

    @classmethod
    def of(cls, reranker: Reranker) -> CountingReranker:
        """Count what a re-ranker scores from now on."""
        return cls(reranker.booster, reranker.trees, reranker.link, reranker.width, reranker.session_column, Scored())

    def rescorer(self, X: Doubles) -> Rescorer:
        """Prepare to score rows again, and count what is scored."""
        return _CountingRescorer(self, X)


class _CountingRescorer(Rescorer):
    def __init__(self, reranker: CountingReranker, X: Doubles) -> None:
        super().__init__(reranker, X)
        self._scored = reranker.scored
        self._met = np.zeros(len(X), np.bool_)

    def raw(self, row: Ints, session_score: Doubles) -> Doubles:
        self._scored.sums += len(row)
        self._scored.rows += len(np.unique(row[~self._met[row]]))
        self._met[row] = True
        return super().raw(row, session_score)


def counting(models: Models) -> tuple[Models, Work, Scored]:
    """Return models that count the work of the session model and of the re-ranker."""
    if models.reranker is None:
        raise ValueError("expected a bundle with a re-ranker, got one without: measure another bundle")
    inference, reranker = CountingInference.of(models.session), CountingReranker.of(models.reranker)
    session = models.session.with_incremental(inference)
    return dataclasses.replace(models, session=session, reranker=reranker), inference.work, reranker.scored


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
