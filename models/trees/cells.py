"""The splits that scoring has to fold: all splits of a tree, or those that remain once one feature's value is fixed.

``models/trees/forest.py`` explains what folding a tree means.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from models.trees.columns import Columns
from models.trees.encode import CATEGORICAL, MISSING_NONE, RUN
from models.trees.model import Forest, Tree

_MAX_GROWTH: Final = 4
"""Limit on the splits to fold for all cells of a feature, as a multiple of the forest's leaves.

Beyond this limit, scoring every changed row from the start is faster.
"""

_MAX_CELLS: Final = 1 << 16
"""Limit on the cells of a feature: ``Cells.cell`` holds their numbers as uint16."""

SPLIT = np.dtype(
    [
        ("column", "i4"),  # the bin column; a row goes left if its code <= threshold
        ("threshold", "i4"),
        ("left", "i4"),  # the workspace row that holds the left child, a leaf or a split
        ("right", "i4"),  # the workspace row that holds the right child
    ],
    align=True,
)
"""One split to fold."""

_Ints = npt.NDArray[np.int64]
_Doubles = npt.NDArray[np.float64]


class Cells(NamedTuple):
    """The E cells into which T trees divide the values of one feature.

    Values of one cell of a tree get the same answers from all of the tree's splits on the feature.

    splits: an array of SPLIT, the splits to fold of all trees; those of tree t are ``splits[bounds[t]:bounds[t + 1]]``.
    bounds int64 [T + 1].
    ends int64 [E]: for each cell, the workspace row that holds its leaf numbers after the tree is folded. The cells of
    tree t are ``offsets[t]`` to ``offsets[t + 1]``.
    offsets int64 [T + 1].
    thresholds float64 [P]: the feature's thresholds in increasing order, padded with infinities so that P + 1 is a
    power of two. The *code* of a value is the number of thresholds below it, P + 1 for zero, or P + 2 for NaN.
    cell uint16 [P + 3, T]: for each code and tree, the number of the cell.
    """

    splits: npt.NDArray[Any]
    bounds: _Ints
    ends: _Ints
    offsets: _Ints
    thresholds: _Doubles
    cell: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, forest: Forest, columns: Columns, feature: int) -> Self | None:
        """Compute the cells of a feature; None for a categorical feature, or if the cells exceed the limits above."""
        codes = _codes(columns, feature)
        if codes is None:
            return None
        thresholds, bin_codes = codes
        leaves = [len(tree.leaf_value) for tree in forest.trees]
        limit = _MAX_GROWTH * sum(leaves)
        splits: list[tuple[int, ...]] = []
        ends: list[int] = []
        bounds, offsets = [0], [0]
        cell = np.empty((len(thresholds) + 3, len(forest.trees)), dtype=np.int64)
        for t, tree in enumerate(forest.trees):
            asking = [split for split, asked in enumerate(tree.feature) if asked == feature]
            answers = np.ones((1 + len(asking), len(cell)), dtype=np.bool_)
            for number, split in enumerate(asking, start=1):
                column, threshold = columns.of(tree, split)
                answers[number] = bin_codes[column] <= threshold
            kinds, which = np.unique(answers, axis=1, return_inverse=True)
            cell[:, t] = len(ends) + which.reshape(-1)
            # An early check on an upper bound: listing the splits of every cell takes long, even if few splits remain.
            if kinds.shape[1] * len(tree.feature) > limit:
                return None
            given = [dict(zip(asking, kind[1:], strict=True)) for kind in kinds.T.tolist()]
            left, found = splits_to_fold(tree, columns, max(leaves), given)
            splits += left
            ends += found
            if len(splits) > limit or len(ends) > _MAX_CELLS:
                return None
            bounds.append(len(splits))
            offsets.append(len(ends))
        return cls(
            np.array(splits, dtype=SPLIT),
            np.array(bounds, dtype=np.int64),
            np.array(ends, dtype=np.int64),
            np.array(offsets, dtype=np.int64),
            thresholds,
            cell.astype(np.uint16),
        )


def _codes(columns: Columns, feature: int) -> tuple[_Doubles, dict[int, _Ints]] | None:
    """Return a feature's thresholds float64 [P], and for each of its bin columns the bin code of each value code.

    The bin codes are int64 [P + 3]; value codes are defined by :class:`Cells`. Returns None for a categorical feature.
    """
    features, kinds, thresholds, _ = columns.binning()
    place = np.flatnonzero(features["index"] == feature)
    if not len(place):
        return np.zeros(0), {}
    mine = features[place[0]]
    own = thresholds[mine["begin"] :][: max(0, 2 * mine["step"] - 1)]
    zero = np.searchsorted(own, 0.0)
    rank = np.array([*range(len(own) + 1), zero, zero])
    state = np.array([0] * (len(own) + 1) + [1, 2])
    bin_codes = {}
    for number in range(mine["columns"], mine["columns_end"]):
        column = kinds[number]
        if column["missing"] == CATEGORICAL:
            return None
        # The rules for missing values are those of ``encode``.
        missing = state >= (3 if column["missing"] == MISSING_NONE else column["missing"])
        bin_codes[number] = np.where(missing, column["code"], np.clip(rank - column["begin"], 0, RUN))
    return own, bin_codes


def splits_to_fold(
    tree: Tree, columns: Columns, leaves: int, cells: list[dict[int, bool]]
) -> tuple[list[tuple[int, ...]], list[int]]:
    """List the splits of a tree that have to be folded, children first, and the workspace row of each cell's result.

    Each element of cells maps the splits that the cell answers to the answer: True if the cell's rows go left. A split
    with the same children in several cells is listed once. Workspace rows from 0 to leaves - 1 hold the leaves.
    """
    order = _order(tree)
    rows: dict[tuple[int, int, int], int] = {}
    ends = []
    for answers in cells:
        reached = {0}
        for split in order:
            if split in reached:
                reached.update(_children(tree, split, answers))
        row = {~leaf: leaf for leaf in range(len(tree.leaf_value))}
        for split in reversed(order):
            if split in reached:
                left, *right = (row[child] for child in _children(tree, split, answers))
                row[split] = rows.setdefault((split, left, right[0]), leaves + len(rows)) if right else left
        ends.append(row[0 if order else ~0])
    return [(*columns.of(tree, split), left, right) for split, left, right in rows], ends


def _children(tree: Tree, split: int, answers: dict[int, bool]) -> tuple[int, ...]:
    """Return both children of a split, or the child to which a given answer leads."""
    left, right = tree.left[split], tree.right[split]
    return (left, right) if split not in answers else (left,) if answers[split] else (right,)


def _order(tree: Tree) -> list[int]:
    """List the splits of a tree, parents first."""
    order: list[int] = []
    waiting = [0] if tree.feature else []
    while waiting:
        split = waiting.pop()
        order.append(split)
        waiting += [child for child in (tree.left[split], tree.right[split]) if child >= 0]
    return order
