"""A forest, laid out for the kernel: bin columns, splits in the order of work, tables, quadrature rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.attribution.treeshap.kernel import Tables
from models.attribution.treeshap.path import Split, walk
from models.attribution.treeshap.quadrature import radau
from models.trees.columns import Columns
from models.trees.model import Forest
from models.trees.simd import ROW_LANES

SPLIT = np.dtype(
    [
        ("column", "u2"),  # goes left where code <= threshold, or the opposite if flip
        ("threshold", "u1"),
        ("flip", "u1"),
        ("on", "i4"),  # mask: rows that satisfy the conditions of the path on this split's feature
        ("source", "i4"),  # the parent's place in the workspace; 0 for a root
        ("edge", "i4"),  # mask of the edge from the parent: the same for the parent's feature, this edge included
        ("edge_hi", "f4"),  # o - z of that edge, for o = 1 and o = 0
        ("edge_lo", "f4"),
        ("hi", "f4"),  # o - z of the edge to the left child
        ("lo", "f4"),
        ("table", "i4"),  # -1, or where the tables of a repeated feature begin
        ("left", "i4"),  # always a split, if any child is
        ("right", "i4"),  # a split, or 0 for a leaf
        ("player", "i4"),
        ("value", "f4"),  # of the right leaf
        ("difference", "f4"),  # left leaf - right leaf
        ("start", "f4"),  # what the node t = 0 adds
        ("padding", "i4"),  # one cache line per split
    ],
    align=True,
)
TREE = np.dtype(
    [
        ("begin", "i8"),  # first split
        ("upper", "i8"),  # end of the splits above other splits, parents before children
        ("fresh", "i8"),  # end of the splits between two leaves whose feature is new on their path
        ("size", "i8"),  # end of all
        ("K", "i8"),
        ("quad", "i8"),
        ("flush", "i8"),  # whether the float32 sums go to float64 after this tree
    ],
    align=True,
)
_FLUSH = 1024  # splits: few enough that float32 partial sums lose nothing, enough that flushing costs nothing


@dataclass(frozen=True)
class Program:
    """A forest as it is explained: the kernel's tables, expected value per class, splits of the largest tree."""

    tables: Tables
    base: npt.NDArray[np.float64]
    largest: int

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(array.nbytes for array in (*self.tables.binning, *self.tables[1:]))


def compile_forest(forest: Forest) -> Program:
    """Lay a forest out. Raises ``UnsupportedModel`` if it has more than 65,535 bin columns."""
    columns = Columns(forest)
    base = np.zeros(forest.classes)
    work: list[tuple[int, list[Split]]] = []
    for index, tree in enumerate(forest.trees):
        base[index % forest.classes] += tree.expected_value()
        if walked := walk(tree, index % forest.classes):
            # An integrand's degree is one less than the features on the longest path; a rule of K is exact to 2 K.
            longest = max(len(split.path) + (not split.repeated) for split in walked)
            work.append((max(longest // 2, 1), walked))
    work.sort(key=lambda each: each[0])  # loops of one length after another are easy to predict

    rules, quad = _rules({K for K, _ in work})
    players: dict[tuple[int, int], int] = {}
    splits: list[tuple[float, ...]] = []
    tables: list[npt.NDArray[np.float64]] = []
    trees: list[tuple[int, ...]] = []
    table_size, flushed = 0, 0
    for place, (K, walked) in enumerate(work):
        begin = len(splits)
        order, upper, fresh = _in_order(walked)
        zero_weight, nodes, _ = radau(K)
        for split in order:
            player = players.setdefault((split.label, split.feature), len(players))
            table = _table(split, nodes, zero_weight)
            record = _record(split, zero_weight, table_size if len(table) else -1, player)
            splits.append((*columns.of(split.tree, split.number), *record))
            tables.append(table)
            table_size += len(table)
        flush = len(splits) - flushed >= _FLUSH or place == len(work) - 1
        flushed = len(splits) if flush else flushed
        trees.append((begin, upper, fresh, len(order), K, rules[K], flush))
    return Program(
        tables=Tables(
            columns.binning(),
            np.array(splits, dtype=SPLIT),
            np.array(trees, dtype=TREE),
            np.concatenate([*tables, np.zeros(ROW_LANES)]).astype(np.float32),
            quad,
            np.array([label * (forest.features + 1) + feature for label, feature in players], dtype=np.int64),
        ),
        base=base,
        largest=max((len(walked) for _, walked in work), default=0),
    )


def _in_order(every: list[Split]) -> tuple[list[Split], int, int]:
    """Give each split its place: upper splits, parents first; between two leaves, new feature; the same, repeated."""
    upper = sorted((split for split in every if split.left_split), key=_kind)
    last = sorted((split for split in every if not split.left_split), key=lambda split: split.repeated)
    order = upper + last
    for place, split in enumerate(order, start=1):
        split.place = place
    return order, len(upper), len(order) - sum(split.repeated for split in last)


def _kind(split: Split) -> tuple[int, bool, bool]:
    """Sort parents before children, then by what the kernel branches on, so that it seldom guesses wrong."""
    return split.depth, split.repeated, split.right_split is not None


def _mask(split: Split, side: int) -> int:
    """Where the kernel keeps which rows go to one side of a split; mask 0 is all rows."""
    return 2 * split.place - 1 + side


def _record(split: Split, zero_weight: float, table: int, player: int) -> tuple[float, ...]:
    """Return the fields of ``SPLIT`` from ``flip``."""
    on, edge, edge_z, source = 0, 0, 1.0, 0
    if split.repeated:
        _, last, side = split.path[split.feature]
        on = _mask(last, side)
    if split.parent:
        edge_z, last, side = split.path[split.parent.feature]
        edge, source = _mask(last, side), split.parent.place
    return (
        split.flip,
        on,
        source,
        edge,
        1 - edge_z,
        -edge_z,
        1 - split.z,
        -split.z,
        table,
        split.left_split.place if split.left_split else 0,
        split.right_split.place if split.right_split else 0,
        player,
        split.right_mean,
        split.left_mean - split.right_mean,
        _zero_term(split, zero_weight),
        0,
    )


def _table(split: Split, nodes: npt.NDArray[np.float64], zero_weight: float) -> npt.NDArray[np.float64]:
    """For a feature met before on the path: 1 / its factor (on and off), z - o of the path, and the node t = 0."""
    if not split.repeated:
        return np.empty(0)
    z = split.path[split.feature][0]
    start = _zero_term(split, zero_weight)
    return np.concatenate(
        [
            _padded(1 / (z + (1 - z) * nodes)),
            _padded(1 / (z * (1 - nodes))),
            [z - 1, z, start * (1 - split.ratio), -start * split.ratio],
        ]
    )


def _zero_term(split: Split, zero_weight: float) -> float:
    """Return what the node t = 0 adds per unit of o - z; between two leaves, also per unit of their gap."""
    return zero_weight * split.reach() * (split.left_mean - split.right_mean if split.left_split else 1.0)


def _rules(sizes: set[int]) -> tuple[dict[int, int], npt.NDArray[np.float32]]:
    """Nodes and weights of each quadrature rule, padded with zeros, and where each begins."""
    starts: dict[int, int] = {}
    parts = [np.zeros(ROW_LANES)]
    for K in sorted(sizes):
        starts[K] = sum(map(len, parts))
        _, nodes, weights = radau(K)
        parts += [_padded(nodes), _padded(weights)]
    return starts, np.concatenate(parts).astype(np.float32)


def _padded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([values, np.zeros(-len(values) % ROW_LANES)])
