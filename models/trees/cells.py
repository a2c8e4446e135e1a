"""What a forest's trees have left to fold: all of their splits, or those that one feature's values leave open."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from models.trees.columns import Columns
from models.trees.encode import CATEGORICAL, MISSING_NONE, RUN
from models.trees.model import Forest, Tree

_MAX_GROWTH: Final = 4
"""Splits to fold for a feature's cells, as a multiple of the forest's leaves, beyond which cells don't pay."""
_MAX_CELLS: Final = 1 << 16
SPLIT = np.dtype(
    [
        ("column", "i4"),  # of codes; goes left where code <= threshold
        ("threshold", "i4"),
        ("left", "i4"),  # row of the workspace: a leaf's, or a split's
        ("right", "i4"),
    ],
    align=True,
)

_Ints = npt.NDArray[np.int64]
_Doubles = npt.NDArray[np.float64]


class Cells(NamedTuple):
    """The cells that T trees divide one feature's values into, E in all.

    splits: what to fold, tree by tree, and bounds int64 [T + 1]. ends int64 [E]: the row of the workspace in which each
    cell's leaf is found, and offsets int64 [T + 1]. A value's *code* is the number of the thresholds float64 [P] below
    it (they are padded with infinities, to a power of two less one), or P + 1 for zero, or P + 2 for NaN; cell uint16
    [P + 3, T]: in which of the E cells a code is.
    """

    splits: npt.NDArray[Any]
    bounds: _Ints
    ends: _Ints
    offsets: _Ints
    thresholds: _Doubles
    cell: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, forest: Forest, columns: Columns, feature: int) -> Self | None:
        """Lay the cells of a feature out, or nothing where they are too many, or are made of categories."""
        codes = _codes(columns, feature)
        if codes is None:
            return None
        thresholds, bytes_of = codes
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
                answers[number] = bytes_of[column] <= threshold
            kinds, which = np.unique(answers, axis=1, return_inverse=True)
            cell[:, t] = len(ends) + which.reshape(-1)
            # Checked beforehand as well: to list the splits for each cell takes time, even if few are left.
            if kinds.shape[1] * len(tree.feature) > limit:
                return None
            given = [dict(zip(asking, kind[1:], strict=True)) for kind in kinds.T.tolist()]
            left, found = to_fold(tree, columns, max(leaves), given)
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
    """Give a feature's thresholds float64 [P], and for each of its columns the byte that is in it for each code.

    None for a feature of categories.
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
    bytes_of = {}
    for number in range(mine["columns"], mine["columns_end"]):
        column = kinds[number]
        if column["missing"] == CATEGORICAL:
            return None
        # As ``encode`` has it.
        missing = state >= (3 if column["missing"] == MISSING_NONE else column["missing"])
        bytes_of[number] = np.where(missing, column["code"], np.clip(rank - column["begin"], 0, RUN))
    return own, bytes_of


def to_fold(
    tree: Tree, columns: Columns, most: int, cells: list[dict[int, bool]]
) -> tuple[list[tuple[int, ...]], list[int]]:
    """List the splits of a tree that are left to fold, children first, and the row in which each cell ends.

    Each cell gives answers by split: goes left, or not. What has the same children in several cells is listed once.
    """
    order = _order(tree)
    rows: dict[tuple[int, int, int], int] = {}
    ends = []
    for answers in cells:
        met = {0}
        for split in order:
            if split in met:
                met.update(_children(tree, split, answers))
        row = {~leaf: leaf for leaf in range(len(tree.leaf_value))}
        for split in reversed(order):
            if split in met:
                left, *right = (row[child] for child in _children(tree, split, answers))
                row[split] = rows.setdefault((split, left, right[0]), most + len(rows)) if right else left
        ends.append(row[0 if order else ~0])
    return [(*columns.of(tree, split), left, right) for split, left, right in rows], ends


def _children(tree: Tree, split: int, answers: dict[int, bool]) -> tuple[int, ...]:
    """Both children of a split, or the one that its answer leads to."""
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
