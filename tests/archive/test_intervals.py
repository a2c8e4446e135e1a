"""Interval sets behave as the sets of numbers that they stand for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.archive.log.intervals import Intervals

numbers = st.sets(st.integers(0, 60))


def intervals_of(offsets: set[int]) -> Intervals:
    return Intervals.of_offsets(np.array(list(offsets), np.int64))


def members(intervals: Intervals) -> set[int]:
    return {offset for first, following in intervals.spans for offset in range(first, following)}


@given(numbers, numbers)
def test_they_are_sets(left: set[int], right: set[int]) -> None:
    a, b = intervals_of(left), intervals_of(right)
    assert members(a) == left
    assert len(a) == len(left)
    assert members(a | b) == left | right
    assert a.covers(b) == (left >= right)
    everything = np.arange(-2, 65)
    assert [int(offset) for offset in everything[a.contains(everything)]] == sorted(left)


@given(numbers)
def test_there_is_one_way_to_write_a_set(offsets: set[int]) -> None:
    found = intervals_of(offsets)
    assert found == Intervals.of((offset, offset + 1) for offset in offsets)
    assert all(a[1] < b[0] for a, b in zip(found.spans, found.spans[1:], strict=False))


@given(numbers.filter(bool), st.integers(1, 5))
def test_bounding_fills_the_lowest_holes_and_never_forgets(offsets: set[int], limit: int) -> None:
    found = intervals_of(offsets)
    bounded = found.at_most(limit)
    assert len(bounded.spans) == min(limit, len(found.spans))
    assert bounded.covers(found)
    added = members(bounded) - offsets
    kept_holes = set(range(max(offsets))) - members(bounded) - set(range(min(offsets)))
    assert not added or not kept_holes or max(added) < min(kept_holes)
