"""Values to bin codes: a split then asks one thing of a row, ``code <= threshold``, whatever its kind.

A *column* holds one byte per row. A numerical column belongs to a feature, a way to treat missing values and a run of
at most 254 of the feature's thresholds; its code is the number of these thresholds that lie below the value, or 0 or
255 where the value is missing and goes left or right. A categorical column belongs to one set of categories; its code
is 0 in the set and 1 outside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from models.compiled import empty, inlined
from models.trees.simd import choose
from models.unchecked import peek

MISSING_NONE, MISSING_ZERO, MISSING_NAN, CATEGORICAL = 0, 1, 2, 3
"""How a column treats missing values; the first three are LightGBM's own numbers (bits 2 and 3 of decision_type)."""

RUN = 254
"""Thresholds in one column at most, so that 255 stays free for a missing value that goes right."""

ZERO = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold: a value at most this far from 0 is read as 0 before any comparison."""

FEATURE = np.dtype(
    [
        ("index", "i8"),  # column of X
        ("begin", "i8"),  # of its thresholds, padded with infinities to 2 * step - 1
        ("step", "i8"),  # of the search, at first
        ("columns", "i8"),  # first and one past the last of its columns
        ("columns_end", "i8"),
    ],
    align=True,
)
COLUMN = np.dtype(
    [
        ("missing", "i8"),
        ("code", "i8"),  # of a missing value
        ("begin", "i8"),  # thresholds of the feature before this run; or first word of the set of categories
        ("end", "i8"),  # one past the last word of the set of categories
    ],
    align=True,
)


class Binning(NamedTuple):
    """How values are encoded.

    features: an array of FEATURE; columns: of COLUMN; thresholds float64, all features one after the other; categories
    uint32, the words of all sets of categories.
    """

    features: Any
    columns: Any
    thresholds: Any
    categories: Any


class Codes(NamedTuple):
    """The codes of a block of rows, and what :func:`encode` works in, which is written before it is read.

    codes uint8 [columns * lanes]; ranks int32 [lanes], the thresholds below a value; states int32 [lanes]: 0, 1 for a
    value that is zero, 2 for NaN.
    """

    codes: Any
    ranks: Any
    states: Any


@inlined
def codes_of(binning: Binning, lanes: int) -> Codes:
    """Make room for the codes of blocks of ``lanes`` rows."""
    # Where a block is not full, the codes of the missing rows stay what they were, and must be codes.
    # Where a block is not full, the codes of the missing rows stay what they were, and must be codes.
    codes = np.zeros(len(binning.columns) * lanes, np.uint8)
    return Codes(codes, empty(lanes, np.int32), empty(lanes, np.int32))


@inlined
def encode(X: Any, lanes: int, binning: Binning, block: Codes) -> None:
    """Write the codes of the rows ``X`` float64 [at most ``lanes``, F]."""
    codes, ranks, states = block
    rows = len(X)
    for f in range(len(binning.features)):
        feature = peek(binning.features, f)
        for row in range(rows):
            x = X[row, feature.index]
            zero = not abs(x) > ZERO  # and NaN, which most splits read as 0
            states[row] = np.int32(zero) + np.int32(x != x)  # noqa: PLR0124 (NaN again, without a call)
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
    begin, missing_code = np.int32(column.begin), np.uint8(column.code)
    missing_from = 3 - column.missing if column.missing == MISSING_NONE else column.missing
    for row in range(len(ranks)):
        code = np.uint8(min(max(ranks[row] - begin, 0), RUN))
        codes[row] = missing_code if states[row] >= missing_from else code


@inlined
def _outside(x: float, words: Any) -> int:
    """0 if the integer part of ``x`` is in the set of bits, else 1, as LightGBM does it: NaN and negatives are not."""
    if not (x > -1.0 and x < 32.0 * len(words)):
        return 1
    category = np.int64(x)
    return 0 if (words[category >> 5] >> np.uint32(category & 31)) & np.uint32(1) else 1
