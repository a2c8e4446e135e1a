"""The splits of a tree, each with what the path to it says about features and training rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.trees.model import Tree


@dataclass(eq=False, slots=True)
class Split:
    """A split of a tree. If only one child is a split, it is called the left one, and ``flip`` says it was swapped.

    ``path`` maps each feature on the path to the share of training rows that meet its conditions there, and to the
    last of these conditions: a split and a side (0 left, 1 right). ``left_mean`` and ``right_mean`` are the children's
    mean values over the training rows, less the tree's own mean.
    """

    tree: Tree
    number: int
    label: int
    parent: Split | None
    depth: int
    path: dict[int, tuple[float, Split, int]]
    flip: int
    ratio: float  # share of its training rows that go left
    left_split: Split | None = None
    right_split: Split | None = None
    left_mean: float = 0.0
    right_mean: float = 0.0
    place: int = 0  # in the order of work

    @property
    def feature(self) -> int:
        """The feature that is split."""
        return self.tree.feature[self.number]

    @property
    def repeated(self) -> bool:
        """Whether the path splits the feature before."""
        return self.feature in self.path

    @property
    def z(self) -> float:
        """Share of training rows that meet all conditions on the feature, down to the left child."""
        return self.path[self.feature][0] * self.ratio if self.repeated else self.ratio

    @property
    def mean(self) -> float:
        """Mean value over the training rows, less the tree's."""
        return self.ratio * self.left_mean + (1 - self.ratio) * self.right_mean

    def reach(self) -> float:
        """Product of the shares of all features on the path but the split's own."""
        own = self.feature
        return math.prod(z for feature, (z, _, _) in self.path.items() if feature != own)


def walk(tree: Tree, label: int) -> list[Split]:
    """Return the splits of a tree, parents before children.

    Shifting all leaves of a tree by one number changes no contribution. Less the mean they are small, whatever the
    model's base score, and float32 holds them well.
    """
    if not tree.feature:
        return []
    shift = tree.expected_value()
    splits = [_split(tree, 0, label, None, {})]
    for split in splits:
        left, right = _children(split)
        for side, child in enumerate((left, right)):
            share = split.z if side == 0 else _right_share(split)
            if child >= 0:
                path = {**split.path, split.feature: (share, split, side)}
                new = _split(tree, child, label, split, path)
                splits.append(new)
                if side == 0:
                    split.left_split = new
                else:
                    split.right_split = new
            elif side == 0:
                split.left_mean = tree.leaf_value[~child] - shift
            else:
                split.right_mean = tree.leaf_value[~child] - shift
    for split in reversed(splits):
        if split.left_split:
            split.left_mean = split.left_split.mean
        if split.right_split:
            split.right_mean = split.right_split.mean
    return splits


def _split(
    tree: Tree, number: int, label: int, parent: Split | None, path: dict[int, tuple[float, Split, int]]
) -> Split:
    left, right = tree.left[number], tree.right[number]
    flip = left < 0 <= right
    ratio = tree.cover(right if flip else left) / tree.cover(number)
    return Split(tree, number, label, parent, parent.depth + 1 if parent else 0, path, int(flip), ratio)


def _children(split: Split) -> tuple[int, int]:
    left, right = split.tree.left[split.number], split.tree.right[split.number]
    return (right, left) if split.flip else (left, right)


def _right_share(split: Split) -> float:
    _, right = _children(split)
    earlier = split.path[split.feature][0] if split.repeated else 1.0
    return earlier * split.tree.cover(right) / split.tree.cover(split.number)
