"""Bin codes of feature values, with which every split of any kind is the comparison ``code <= threshold``.

A *column* holds one byte per row. A numerical column belongs to a feature, a treatment of missing values and a run of
at most 254 of the feature's thresholds. Its code is the number of these thresholds that lie below the value; a missing
value has the code 0 if it goes left and 255 if it goes right. A categorical column belongs to one set of categories.
Its code is 0 for a category of the set and 1 for any other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from models.compiled import empty, inlined
from models.trees.simd import choose
from models.unchecked import peek

MISSING_NONE, MISSING_ZERO, MISSING_NAN, CATEGORICAL = 0, 1, 2, 3
"""Treatments of missing values; the first three are LightGBM's own numbers (bits 2 and 3 of decision_type)."""

RUN = 254
"""Limit on the thresholds of one column; it leaves the code 255 for a missing value that goes right."""

ZERO = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold: a value whose absolute value is at most this is read as 0 before any comparison."""

FEATURE = np.dtype(
    [
        ("index", "i8"),  # column of X
        ("begin", "i8"),  # first of its thresholds, which are padded with infinities to 2 * step - 1
        ("step", "i8"),  # first step of the binary search
        ("columns", "i8"),  # first of its bin columns
        ("columns_end", "i8"),  # one past the last of its bin columns
    ],
    align=True,
)
COLUMN = np.dtype(
    [
        ("missing", "i8"),  # treatment of missing values, or CATEGORICAL
        ("code", "i8"),  # code of a missing value
        ("begin", "i8"),  # numerical: the thresholds before this run; categorical: first word of the set
        ("end", "i8"),  # categorical: one past the last word of the set
    ],
    align=True,
)


class Binning(NamedTuple):
    """The tables by which values are encoded.

    features: an array of FEATURE, one record per feature; columns: an array of COLUMN, one record per bin column;
    thresholds float64: the thresholds of one feature after the other; categories uint32: the words of all sets of
    categories, in which bit i of a set stands for category i.
    """

    features: Any
    columns: Any
    thresholds: Any
    categories: Any


class Codes(NamedTuple):
    """The codes of a block of rows, and the workspace of :func:`encode`.

    codes uint8 [columns * lanes]: the codes, column by column. ranks int32 [lanes]: for each row, the number of
    thresholds below the value of the current feature. states int32 [lanes]: 1 if that value is zero, 2 if it is NaN,
    else 0. :func:`encode` writes ranks and states before it reads them.
    """

    codes: Any
    ranks: Any
    states: Any


@inlined
def codes_of(binning: Binning, lanes: int) -> Codes:
    """Allocate the codes of a block of ``lanes`` rows."""
    # Kernels read the codes of all lanes. The lanes of a partial block that hold no row must contain valid codes, too.
    codes = np.zeros(len(binning.columns) * lanes, np.uint8)
    return Codes(codes, empty(lanes, np.int32), empty(lanes, np.int32))


@inlined
def encode(X: Any, lanes: int, binning: Binning, block: Codes) -> None:
    """Write the codes of the rows ``X`` float64 [n, F], n <= ``lanes``, to ``block.codes``."""
    codes, ranks, states = block
    rows = len(X)
    for f in range(len(binning.features)):
        feature = peek(binning.features, f)
        for row in range(rows):
            x = X[row, feature.index]
            zero = not abs(x) > ZERO  # true for NaN as well, which most splits read as 0
            states[row] = np.int32(zero) + np.int32(x != x)  # noqa: PLR0124 (tests for NaN without a function call)
            x = choose(zero, 0.0, x)
            rank = feature.begin
            step = feature.step
            while step > 0:
                rank = choose(peek(binning.thresholds, rank + step - 1) < x, rank + step, rank)
                step >>= 1
            ranks[row] = rank - feature.begin
        for c in range(feature.columns, feature.columns_end):
            column = peek(binning.columns, c)
            if column.missing == CATEGORICAL:
                words = binning.categories[column.begin : column.end]
                for row in range(rows):
                    codes[c * lanes + row] = _outside(X[row, feature.index], words)
            else:
                _cut(ranks[:rows], states[:rows], column, codes[c * lanes : c * lanes + rows])


@inlined
def _cut(ranks: Any, states: Any, column: Any, codes: Any) -> None:
    """Write the codes of one numerical column from the ranks and states of the rows."""
    begin, missing_code = np.int32(column.begin), np.uint8(column.code)
    missing_from = 3 - column.missing if column.missing == MISSING_NONE else column.missing
    for row in range(len(ranks)):
        code = np.uint8(min(max(ranks[row] - begin, 0), RUN))
        codes[row] = missing_code if states[row] >= missing_from else code


@inlined
def _outside(x: float, words: Any) -> int:
    """Return 0 if the integer part of ``x`` is in the bit set ``words``, else 1.

    As in LightGBM, NaN and negative values are in no set.
    """
    if not (x > -1.0 and x < 32.0 * len(words)):
        return 1
    category = np.int64(x)
    return 0 if (words[category >> 5] >> np.uint32(category & 31)) & np.uint32(1) else 1
