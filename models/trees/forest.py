"""The trees of a re-ranker, laid out to score many rows at once, to the last bit as LightGBM scores them.

All thresholds of a feature are sorted once, so that a value becomes the number of thresholds below it, and every split
asks ``code <= threshold`` of a byte (``encode.py``, which has LightGBM's rules for missing
values, zeros and categories). Rows come in blocks of 64, one byte each, so that a split is answered for the block by
one comparison of vectors. A tree is then folded from its leaves up: at each split a row keeps the number of its left or
of its right leaf. No branch, no pointer to follow; splits that a row never meets are answered too, which is cheaper.

Rows that are scored again and again with other values of one feature (:class:`Again`) answer their splits once. A tree
tells few values of that feature apart: they fall into *cells*, mostly one, else three or four, and in a cell all of the
tree's splits on the feature have the same answers. The tree is folded for each cell with these answers given, and what
cells have in common is folded once. So a row keeps a leaf for each cell of each tree, and for a new value one leaf of
each tree is looked up: of the trees that are shipped 167 leaves, in place of 5,001 splits.

Leaf values are added tree by tree in float64, in LightGBM's own order, so the sums are equal and not only close. To add
the trees that don't read the feature up beforehand would spare a third of the additions, and round otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from models.compiled import compiled, empty, inlined
from models.trees.cells import SPLIT, Cells, to_fold
from models.trees.columns import Columns
from models.trees.encode import ZERO, Binning, codes_of, encode
from models.trees.model import UnsupportedModel, parse
from models.trees.simd import below, blend, choose
from models.unchecked import peek, poke

if TYPE_CHECKING:
    from lightgbm import Booster

_Ints = npt.NDArray[np.int64]
_Doubles = npt.NDArray[np.float64]

ROWS = 64
_MAX_LEAVES = 1 << 16
_MAX_KEPT: Final = 1 << 28
"""Bytes of leaves that rows may keep."""


class Layout(NamedTuple):
    """T trees in the form that the kernels read.

    splits: an array of SPLIT, tree by tree, and bounds int64 [T + 1]; values float64, the leaves of all trees, and
    leaves int64 [T + 1], where each tree's begin.
    """

    binning: Binning
    splits: Any
    bounds: Any
    leaves: Any
    values: Any


class Trees:
    """Trees of one score, read from a booster. Calls are independent of each other and hold no GIL."""

    def __init__(self, booster: Booster) -> None:
        """Lay the trees out; raises UnsupportedModel for several classes, for linear trees and the like."""
        self._forest = forest = parse(booster.model_to_string())
        if forest.classes != 1:
            raise UnsupportedModel(f"expected one score per row, got {forest.classes} classes; use Booster.predict")
        most = max(len(tree.leaf_value) for tree in forest.trees)
        if most > _MAX_LEAVES:
            raise UnsupportedModel(f"expected at most {_MAX_LEAVES} leaves, got a tree of {most}; use Booster.predict")
        self._columns = columns = Columns(forest)
        self._cells: dict[int, Cells | None] = {}
        splits: list[tuple[int, ...]] = []
        bounds = [0]
        for tree in forest.trees:
            splits += to_fold(tree, columns, most, [{}])[0]
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
        """Lay the trees of a booster out, or nothing if they are of a kind that only LightGBM can score."""
        try:
            return cls(booster)
        except UnsupportedModel:
            return None

    def raw(self, X: _Doubles) -> _Doubles:
        """Sum the trees for rows float64 [n, F]: float64 [n]."""
        out = np.zeros(len(X))
        _score(np.ascontiguousarray(X, dtype=np.float64), out, self._layout)
        return out

    def again(self, X: _Doubles, feature: int) -> Again | None:
        """Prepare to score rows float64 [n, F] with other values of one feature.

        None where each score had better be a new one: for a feature of categories, and for very many cells or rows.
        """
        if feature not in self._cells:
            self._cells[feature] = Cells.of(self._forest, self._columns, feature)
        cells = self._cells[feature]
        if cells is None or len(X) * len(cells.ends) * 2 > _MAX_KEPT:
            return None
        return Again(np.ascontiguousarray(X, dtype=np.float64), cells, self._layout)


class Again:
    """Rows of which one feature changes. What a row needs once is done when it is first asked for, and kept.

    A score depends on its row and its value alone. Not for several threads at once.
    """

    def __init__(self, X: _Doubles, cells: Cells, layout: Layout) -> None:
        """Take rows float64 [n, F], which must stay as they are, and their trees' layout."""
        self._X, self._cells, self._layout = X, cells, layout
        blocks = -(-len(X) // ROWS)
        # By block, cell and row, as they are folded; a byte each, if it can be, is half as much to move.
        number = np.uint8 if np.diff(layout.leaves).max() <= 256 else np.uint16
        # A block is written whole by _fold before _add reads any of it.
        self._found = empty((blocks, len(cells.ends), ROWS), number)
        self._known = np.zeros(blocks, dtype=np.bool_)

    def raw(self, row: _Ints, value: _Doubles) -> _Doubles:
        """Sum the trees for rows int64 [m], as often and in what order one likes, with values float64 [m]: [m]."""
        new = (np.bincount(row // ROWS, minlength=len(self._known)) > 0) & ~self._known
        if new.any():
            _fold(self._X, np.flatnonzero(new), self._found, self._layout, self._cells)
            self._known |= new
        out = empty(len(row), np.float64)
        value = np.ascontiguousarray(value, dtype=np.float64)
        _add(np.ascontiguousarray(row), value, out, self._found, self._layout, self._cells)
        return out


@inlined
def _longest(bounds: Any) -> Any:
    """Length of the longest part, 1 at least."""
    most: Any = 1
    for t in range(len(bounds) - 1):
        most = max(most, bounds[t + 1] - bounds[t])
    return most


@inlined
def _workspace(leaves: Any, splits: Any, dtype: Any) -> Any:
    """Make a row for each leaf, with its own number everywhere, and then a row for each split: [rows * 64].

    Rows of splits are written by :func:`_fold_tree` before they are read, since children come first.
    """
    folded = empty((leaves + splits) * ROWS, dtype)
    for leaf in range(leaves):
        folded[leaf * ROWS : (leaf + 1) * ROWS] = leaf
    return folded


@inlined
def _fold_tree(codes: Any, splits: Any, begin: Any, end: Any, folded: Any, target: Any) -> Any:
    """Fold a tree's splits into the rows from ``target``, and return where they end."""
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
    most = _longest(leaves)
    folded = _workspace(most, _longest(bounds), np.uint16)
    sums = np.zeros(ROWS, np.float64)
    for begin in range(0, len(X), ROWS):
        count = min(ROWS, len(X) - begin)
        encode(X[begin : begin + count], ROWS, layout.binning, block)
        sums[:] = 0.0
        for t in range(len(bounds) - 1):
            target = _fold_tree(block.codes, layout.splits, bounds[t], bounds[t + 1], folded, most * ROWS)
            # A tree without splits ends at the row of its only leaf.
            last = target - ROWS if bounds[t] < bounds[t + 1] else 0
            for row in range(ROWS):
                number = np.int64(peek(folded, last + row))
                poke(sums, row, peek(sums, row) + peek(layout.values, leaves[t] + number))
        for row in range(count):
            out[begin + row] = sums[row]


@compiled
def _fold(X: Any, blocks: Any, found: Any, layout: Layout, cells: Cells) -> None:
    """Write the number of each cell's leaf to ``found`` [blocks, E, 64], for some blocks of rows ``X``."""
    bounds, ends, offsets = cells.bounds, cells.ends, cells.offsets
    block = codes_of(layout.binning, ROWS)
    most = _longest(layout.leaves)
    flat = found.reshape(-1)
    folded = _workspace(most, _longest(bounds), found.dtype)
    for number in blocks:
        encode(X[number * ROWS : min((number + 1) * ROWS, len(X))], ROWS, layout.binning, block)
        to = number * len(ends) * ROWS
        for t in range(len(bounds) - 1):
            _fold_tree(block.codes, cells.splits, bounds[t], bounds[t + 1], folded, most * ROWS)
            for end in range(offsets[t], offsets[t + 1]):
                source = ends[end] * ROWS
                for row in range(ROWS):
                    poke(flat, to + row, peek(folded, source + row))
                to += ROWS


@compiled
def _add(row: Any, value: Any, out: Any, found: Any, layout: Layout, cells: Cells) -> None:
    """Write sums to ``out`` float64 [m] for rows int64 [m] and values float64 [m] of the feature that changes.

    Four sums take turns: each waits for its last addition to end before it can do the next.
    """
    thresholds, leaves, values, trees = cells.thresholds, layout.leaves, layout.values, cells.cell.shape[1]
    numbers, cell = found.reshape(-1), cells.cell.reshape(-1)
    starts, codes = np.zeros(4, np.int64), np.zeros(4, np.int64)
    for begin in range(0, len(row), 4):
        count = min(4, len(row) - begin)
        for i in range(4):
            place = begin + min(i, count - 1)  # a group that is not full repeats its last row
            x = value[place]
            code: Any = 0
            step = (len(thresholds) + 1) >> 1
            while step > 0:
                code = choose(peek(thresholds, code + step - 1) < x, code + step, code)
                step >>= 1
            if not abs(x) > ZERO:
                code = len(thresholds) + 1 + np.int64(x != x)  # noqa: PLR0124 (NaN, without a call)
            codes[i] = code * trees
            starts[i] = row[place] // ROWS * found.shape[1] * ROWS + row[place] % ROWS
        a, b, c, d = starts
        e, f, g, h = codes
        p = q = r = s = 0.0
        for t in range(trees):
            leaf = peek(leaves, t)
            p += peek(values, leaf + np.int64(peek(numbers, a + np.int64(peek(cell, e + t)) * ROWS)))
            q += peek(values, leaf + np.int64(peek(numbers, b + np.int64(peek(cell, f + t)) * ROWS)))
            r += peek(values, leaf + np.int64(peek(numbers, c + np.int64(peek(cell, g + t)) * ROWS)))
            s += peek(values, leaf + np.int64(peek(numbers, d + np.int64(peek(cell, h + t)) * ROWS)))
        for i in range(count):
            out[begin + i] = (p, q, r, s)[i]
