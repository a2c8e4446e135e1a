"""Sets of offsets as sorted, disjoint, half-open spans, such as the archived offsets of a source partition. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Intervals:
    """A set of offsets: spans ``[first, next)`` in ascending order, neither overlapping nor adjacent."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Self:
        """Return the union of spans, which may overlap and be in any order."""
        merged: list[tuple[int, int]] = []
        for first, following in sorted(spans):
            if following <= first:
                continue
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], following))
            else:
                merged.append((first, following))
        return cls(tuple(merged))

    @classmethod
    def of_offsets(cls, offsets: Int64s) -> Self:
        """Return the set of these offsets (int64 [n], in any order, with repeats)."""
        if not len(offsets):
            return cls()
        ordered = np.unique(offsets)
        starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 2) != 1)
        ends = np.append(starts[1:], len(ordered)) - 1
        firsts, lasts = ordered[starts].tolist(), ordered[ends].tolist()
        return cls(tuple((first, last + 1) for first, last in zip(firsts, lasts, strict=True)))

    def __or__(self, other: Intervals) -> Intervals:
        return Intervals.of((*self.spans, *other.spans))

    def __len__(self) -> int:
        return sum(following - first for first, following in self.spans)

    def contains(self, offsets: Int64s) -> npt.NDArray[np.bool_]:
        """Say for each offset (int64 [n]) whether it is in the set: bool [n]."""
        if not self.spans:
            return np.zeros(len(offsets), dtype=np.bool_)
        edges = np.array(self.spans, dtype=np.int64).ravel()
        # An offset is inside a span if the number of edges at or below it is odd.
        return np.asarray(np.searchsorted(edges, offsets, side="right") % 2 == 1)

    def covers(self, other: Intervals) -> bool:
        """Say whether every offset of ``other`` is in this set."""
        return len(self | other) == len(self)

    def at_most(self, limit: int) -> Intervals:
        """Return the set with its lowest holes filled, so that at most ``limit`` spans (>= 1) are left."""
        surplus = len(self.spans) - limit
        if surplus <= 0:
            return self
        return Intervals(((self.spans[0][0], self.spans[surplus][1]), *self.spans[surplus + 1 :]))
