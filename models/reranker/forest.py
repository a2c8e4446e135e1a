"""The trees of a re-ranker, laid out to score many rows at once, to the last bit as LightGBM scores them.

All thresholds of a feature are sorted once, so that a value becomes the number of thresholds below it, and every split
asks ``code <= threshold`` of a byte (``models/attribution/treeshap/encode.py``, which has LightGBM's rules for missing
values, zeros and categories). Rows come in blocks of 64, one byte each, so that a split is answered for the block by
one comparison of vectors. A tree is then folded from its leaves up: at each split a row keeps the number of its left or
of its right leaf. No branch, no pointer to follow; splits that a row never meets are answered too, which is cheaper.

Leaf values are added tree by tree in float64, in LightGBM's own order, so the sums are equal and not only close.

Numba's cache is keyed on this file. After a change in ``simd.py`` or ``encode.py`` change this file too.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from lightgbm import Booster
from numba import njit

from models.attribution.treeshap.columns import Columns
from models.attribution.treeshap.encode import encode
from models.attribution.treeshap.model import Tree, UnsupportedModel, parse
from models.attribution.treeshap.simd import below, blend, peek, poke

_ROWS = 64
_MAX_LEAVES = 1 << 16
_SPLIT = np.dtype(
    [
        ("column", "i4"),  # of codes; goes left where code <= threshold
        ("threshold", "i4"),
        ("left", "i4"),  # row of the workspace: a leaf's, or a split's
        ("right", "i4"),
    ],
    align=True,
)


class Trees:
    """Trees of one score, read from a booster. Calls are independent of each other and hold no GIL."""

    def __init__(self, booster: Booster) -> None:
        """Lay the trees out; raises UnsupportedModel for several classes, for linear trees and the like."""
        forest = parse(booster.model_to_string())
        if forest.classes != 1:
            raise UnsupportedModel(f"expected one score per row, got {forest.classes} classes; use Booster.predict")
        most = max(len(tree.leaf_value) for tree in forest.trees)
        if most > _MAX_LEAVES:
            raise UnsupportedModel(f"expected at most {_MAX_LEAVES} leaves, got a tree of {most}; use Booster.predict")
        columns = Columns(forest)
        splits: list[tuple[int, ...]] = []
        bounds = [0]
        for tree in forest.trees:
            splits += _folded(tree, columns, most)
            bounds.append(len(splits))
        self._arrays: tuple[npt.NDArray[Any], ...] = (
            *columns.arrays(),
            np.array(splits, dtype=_SPLIT),
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

    def raw(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum the trees for rows float64 [n, F]: float64 [n]."""
        out = np.zeros(len(X))
        _score(np.ascontiguousarray(X, dtype=np.float64), out, *self._arrays)
        return out


def _folded(tree: Tree, columns: Columns, most: int) -> list[tuple[int, ...]]:
    """List the splits of a tree, children first, the root last; their rows come after those of ``most`` leaves."""
    order: list[int] = []
    waiting = [0] if tree.feature else []
    while waiting:
        split = waiting.pop()
        order.append(split)
        waiting += [child for child in (tree.left[split], tree.right[split]) if child >= 0]
    order.reverse()
    place = {split: at for at, split in enumerate(order)}
    return [
        (
            *columns.of(tree, split),
            *(most + place[child] if child >= 0 else ~child for child in (tree.left[split], tree.right[split])),
        )
        for split in order
    ]


@njit(cache=True, nogil=True, error_model="numpy")
def _score(
    X: Any,
    out: Any,
    features: Any,
    columns: Any,
    thresholds: Any,
    categories: Any,
    splits: Any,
    bounds: Any,
    leaves: Any,
    values: Any,
) -> None:
    """Add the trees' values to ``out`` float64 [n] for rows ``X`` float64 [n, F]; the rest is laid out above."""
    codes = np.zeros(len(columns) * _ROWS, np.uint8)
    ranks = np.empty(_ROWS, np.int32)
    states = np.empty(_ROWS, np.int32)
    shape = np.empty(0, np.uint64)
    most: Any = 1
    for t in range(len(bounds) - 1):
        most = max(most, leaves[t + 1] - leaves[t])
    # First a row for each leaf, with its own number everywhere, then a row for each split.
    folded = np.empty(2 * most * _ROWS, np.uint16)
    for leaf in range(most):
        folded[leaf * _ROWS : (leaf + 1) * _ROWS] = leaf
    sums = np.empty(_ROWS, np.float64)
    for begin in range(0, len(X), _ROWS):
        count = min(_ROWS, len(X) - begin)
        encode(X[begin : begin + count], _ROWS, features, columns, thresholds, categories, ranks, states, codes)
        sums[:] = 0.0
        for t in range(len(bounds) - 1):
            target = most * _ROWS
            for i in range(bounds[t], bounds[t + 1]):
                split = peek(splits, i)
                left = below(codes, split.column * _ROWS, np.uint8(split.threshold), shape)
                blend(left, folded, split.left * _ROWS, split.right * _ROWS, target)
                target += _ROWS
            # A tree without splits ends at the row of its only leaf.
            last = target - _ROWS if bounds[t] < bounds[t + 1] else 0
            for row in range(_ROWS):
                number = np.int64(peek(folded, last + row))
                poke(sums, row, peek(sums, row) + peek(values, leaves[t] + number))
        for row in range(count):
            out[begin + row] = sums[row]
