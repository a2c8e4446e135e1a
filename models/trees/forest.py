"""Scores of a LightGBM model for many rows at once, bit for bit equal to LightGBM's own.

**Folding.** Feature values become bin codes, so that every split is the comparison ``code <= threshold`` of one byte
(``encode.py``, which implements LightGBM's rules for missing values, zeros and categories). Rows are scored in blocks
of 64, so that one vector comparison evaluates a split for a whole block. A tree is then *folded* from its leaves to its
root: each split selects, for each row, the leaf number that its left or its right child has selected. Folding needs no
branches and follows no pointers. It also evaluates splits that a row would never reach; this costs less than branching.

**Cells.** :class:`CachedRows` scores the same rows many times, each time with another value of one feature. A tree
divides the values of that feature into *cells*: in one cell, all of the tree's splits on the feature have the same
answers. Most trees have one cell, others three or four. Each tree is folded once per cell, with these answers fixed;
splits that several cells share are folded once. The leaf of each row, tree and cell is cached. A score for a new value
then needs one lookup per tree: 167 lookups for the shipped bundle's trees, which have 5,001 splits.

**Sums.** Leaf values are added in float64, tree by tree in LightGBM's order, so that the sums are equal and not only
close. Caching the sum of the trees that do not use the feature would save a third of the additions, but round
differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from models.compiled import compiled, empty, inlined
from models.trees.cells import SPLIT, Cells, splits_to_fold
from models.trees.columns import Columns
from models.trees.encode import ZERO, Binning, codes_of, encode
from models.trees.model import UnsupportedModel, parse
from models.trees.simd import below, blend, choose
from models.unchecked import peek, poke

if TYPE_CHECKING:
    from lightgbm import Booster

_Ints = npt.NDArray[np.int64]
_Doubles = npt.NDArray[np.float64]

ROWS: Final = 64
"""Rows of a block."""

_MAX_LEAVES: Final = 1 << 16
_MAX_CACHE_BYTES: Final = 1 << 28
"""Limit on the leaf numbers that :class:`CachedRows` caches."""


class Layout(NamedTuple):
    """T trees in the form that the kernels read.

    splits: an array of SPLIT; those of tree t are ``splits[bounds[t]:bounds[t + 1]]``. bounds int64 [T + 1].
    values float64: the leaf values of all trees; those of tree t are ``values[leaves[t]:leaves[t + 1]]``. leaves int64
    [T + 1].
    """

    binning: Binning
    splits: Any
    bounds: Any
    leaves: Any
    values: Any


class Trees:
    """The trees of a booster with one score per row. Threads may share an instance; the kernels release the GIL."""

    def __init__(self, booster: Booster) -> None:
        """Compile the trees.

        Raises UnsupportedModel for several classes, for linear trees, and for models beyond the limits of the format.
        """
        self._forest = forest = parse(booster.model_to_string())
        if forest.classes != 1:
            raise UnsupportedModel(f"expected one score per row, got {forest.classes} classes; use Booster.predict")
        max_leaves = max(len(tree.leaf_value) for tree in forest.trees)
        if max_leaves > _MAX_LEAVES:
            raise UnsupportedModel(
                f"expected at most {_MAX_LEAVES} leaves, got a tree of {max_leaves}; use Booster.predict"
            )
        self._columns = columns = Columns(forest)
        self._cells: dict[int, Cells | None] = {}
        splits: list[tuple[int, ...]] = []
        bounds = [0]
        for tree in forest.trees:
            splits += splits_to_fold(tree, columns, max_leaves, [{}])[0]
            bounds.append(len(splits))
        self._layout = Layout(
            columns.binning(),
            np.array(splits, dtype=SPLIT),
            np.array(bounds, dtype=np.int64),
            np.concatenate([[0], np.cumsum([len(tree.leaf_value) for tree in forest.trees])]).astype(np.int64),
            np.array([value for tree in forest.trees for value in tree.leaf_value]),
        )

    @classmethod
    def of(cls, booster: Booster) -> Self | None:
        """Compile the trees of a booster; None if only LightGBM can score them."""
        try:
            return cls(booster)
        except UnsupportedModel:
            return None

    def raw(self, X: _Doubles) -> _Doubles:
        """Return the sum of the trees for rows ``X`` float64 [n, F]: float64 [n]."""
        out = np.zeros(len(X))
        _score(np.ascontiguousarray(X, dtype=np.float64), out, self._layout)
        return out

    def cache_rows(self, X: _Doubles, feature: int) -> CachedRows | None:
        """Prepare to score rows ``X`` float64 [n, F] many times, each time with another value of one feature.

        Returns None where scoring every changed row with :meth:`raw` is the better way: for a categorical feature, and
        for so many cells or rows that their leaves would not fit into the cache.
        """
        if feature not in self._cells:
            self._cells[feature] = Cells.of(self._forest, self._columns, feature)
        cells = self._cells[feature]
        if cells is None or len(X) * len(cells.ends) * 2 > _MAX_CACHE_BYTES:
            return None
        return CachedRows(np.ascontiguousarray(X, dtype=np.float64), cells, self._layout)


class CachedRows:
    """Rows that are scored with changing values of one feature.

    The leaves of a block of rows are computed when one of its rows is first scored, and cached. A score depends only on
    the row and the value. Threads must not share an instance.
    """

    def __init__(self, X: _Doubles, cells: Cells, layout: Layout) -> None:
        """Keep a reference to rows ``X`` float64 [n, F], which the caller must not change."""
        self._X, self._cells, self._layout = X, cells, layout
        blocks = -(-len(X) // ROWS)
        # Leaf numbers by block, cell and row, the order in which they are computed. A byte halves the memory traffic.
        number = np.uint8 if np.diff(layout.leaves).max() <= 256 else np.uint16
        # The kernel _fold writes a block completely before _add reads any of it.
        self._leaf = empty((blocks, len(cells.ends), ROWS), number)
        self._is_folded = np.zeros(blocks, dtype=np.bool_)

    def raw(self, row: _Ints, value: _Doubles) -> _Doubles:
        """Return the sum of the trees for rows int64 [m] with values float64 [m] of the feature: float64 [m].

        Rows may come in any order and more than once.
        """
        new = (np.bincount(row // ROWS, minlength=len(self._is_folded)) > 0) & ~self._is_folded
        if new.any():
            _fold(self._X, np.flatnonzero(new), self._leaf, self._layout, self._cells)
            self._is_folded |= new
        out = empty(len(row), np.float64)
        value = np.ascontiguousarray(value, dtype=np.float64)
        _add(np.ascontiguousarray(row), value, out, self._leaf, self._layout, self._cells)
        return out


@inlined
def _longest(bounds: Any) -> Any:
    """Return the length of the longest part of an array that is divided at ``bounds``; at least 1."""
    longest: Any = 1
    for t in range(len(bounds) - 1):
        longest = max(longest, bounds[t + 1] - bounds[t])
    return longest


@inlined
def _workspace(leaves: Any, splits: Any, dtype: Any) -> Any:
    """Allocate a workspace row of 64 lanes for each leaf, and after them one for each split: [rows * 64].

    Every lane of a leaf's row holds the number of the leaf. :func:`_fold_tree` writes the row of a split before it
    reads that row, since children come first.
    """
    folded = empty((leaves + splits) * ROWS, dtype)
    for leaf in range(leaves):
        folded[leaf * ROWS : (leaf + 1) * ROWS] = leaf
    return folded


@inlined
def _fold_tree(codes: Any, splits: Any, begin: Any, end: Any, folded: Any, target: Any) -> Any:
    """Fold the splits from ``begin`` to ``end`` into workspace rows from ``target`` on; return the end of the rows."""
    shape = empty(0, np.uint64)
    for i in range(begin, end):
        split = peek(splits, i)
        left = below(codes, split.column * ROWS, np.uint8(split.threshold), shape)
        blend(left, folded, split.left * ROWS, split.right * ROWS, target)
        target += ROWS
    return target


@compiled
def _score(X: Any, out: Any, layout: Layout) -> None:
    """Add the trees' values to ``out`` float64 [n] for rows ``X`` float64 [n, F]."""
    bounds, leaves = layout.bounds, layout.leaves
    block = codes_of(layout.binning, ROWS)
    max_leaves = _longest(leaves)
    folded = _workspace(max_leaves, _longest(bounds), np.uint16)
    sums = np.zeros(ROWS, np.float64)
    for begin in range(0, len(X), ROWS):
        count = min(ROWS, len(X) - begin)
        encode(X[begin : begin + count], ROWS, layout.binning, block)
        sums[:] = 0.0
        for t in range(len(bounds) - 1):
            target = _fold_tree(block.codes, layout.splits, bounds[t], bounds[t + 1], folded, max_leaves * ROWS)
            # The result of a tree without splits is the row of its only leaf.
            last = target - ROWS if bounds[t] < bounds[t + 1] else 0
            for row in range(ROWS):
                number = np.int64(peek(folded, last + row))
                poke(sums, row, peek(sums, row) + peek(layout.values, leaves[t] + number))
        for row in range(count):
            out[begin + row] = sums[row]


@compiled
def _fold(X: Any, blocks: Any, leaf: Any, layout: Layout, cells: Cells) -> None:
    """Write the leaf numbers of all cells to ``leaf`` [blocks, E, 64], for the blocks int64 [b] of the rows ``X``."""
    bounds, ends, offsets = cells.bounds, cells.ends, cells.offsets
    block = codes_of(layout.binning, ROWS)
    max_leaves = _longest(layout.leaves)
    flat = leaf.reshape(-1)
    folded = _workspace(max_leaves, _longest(bounds), leaf.dtype)
    for number in blocks:
        encode(X[number * ROWS : min((number + 1) * ROWS, len(X))], ROWS, layout.binning, block)
        to = number * len(ends) * ROWS
        for t in range(len(bounds) - 1):
            _fold_tree(block.codes, cells.splits, bounds[t], bounds[t + 1], folded, max_leaves * ROWS)
            for end in range(offsets[t], offsets[t + 1]):
                source = ends[end] * ROWS
                for row in range(ROWS):
                    poke(flat, to + row, peek(folded, source + row))
                to += ROWS


@compiled
def _add(row: Any, value: Any, out: Any, leaf: Any, layout: Layout, cells: Cells) -> None:
    """Write sums to ``out`` float64 [m] for rows int64 [m] and values float64 [m] of the feature that changes.

    Four sums are computed side by side, because an addition to a sum must wait for the previous addition to it.
    """
    thresholds, leaves, values, trees = cells.thresholds, layout.leaves, layout.values, cells.cell.shape[1]
    numbers, cell = leaf.reshape(-1), cells.cell.reshape(-1)
    starts, codes = np.zeros(4, np.int64), np.zeros(4, np.int64)
    for begin in range(0, len(row), 4):
        count = min(4, len(row) - begin)
        for i in range(4):
            place = begin + min(i, count - 1)  # a group of fewer than four rows repeats its last row
            x = value[place]
            code: Any = 0
            step = (len(thresholds) + 1) >> 1
            while step > 0:
                code = choose(peek(thresholds, code + step - 1) < x, code + step, code)
                step >>= 1
            if not abs(x) > ZERO:
                code = len(thresholds) + 1 + np.int64(x != x)  # noqa: PLR0124 (tests for NaN without a function call)
            codes[i] = code * trees
            starts[i] = row[place] // ROWS * leaf.shape[1] * ROWS + row[place] % ROWS
        a, b, c, d = starts
        e, f, g, h = codes
        p = q = r = s = 0.0
        for t in range(trees):
            base = peek(leaves, t)
            p += peek(values, base + np.int64(peek(numbers, a + np.int64(peek(cell, e + t)) * ROWS)))
            q += peek(values, base + np.int64(peek(numbers, b + np.int64(peek(cell, f + t)) * ROWS)))
            r += peek(values, base + np.int64(peek(numbers, c + np.int64(peek(cell, g + t)) * ROWS)))
            s += peek(values, base + np.int64(peek(numbers, d + np.int64(peek(cell, h + t)) * ROWS)))
        for i in range(count):
            out[begin + i] = (p, q, r, s)[i]
