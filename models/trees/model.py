"""A parser for LightGBM's text format of models."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from schemas.errors import WhyrecError


class UnsupportedModel(WhyrecError):
    """A model for which no exact contributions exist, or which these kernels cannot score."""


@dataclass(frozen=True)
class Tree:
    """One tree. A child >= 0 is the number of a split; a child < 0 is the leaf ``~child``.

    The lists have one element per split or per leaf, under LightGBM's names: decision is decision_type, split_count is
    internal_count. sets holds the words of each set of categories.
    """

    feature: list[int]
    threshold: list[float]
    decision: list[int]
    left: list[int]
    right: list[int]
    split_count: list[int]
    leaf_value: list[float]
    leaf_count: list[int]
    sets: list[tuple[int, ...]]

    def cover(self, child: int) -> float:
        """Return the number of training rows under a child."""
        return self.split_count[child] if child >= 0 else self.leaf_count[~child]

    def expected_value(self) -> float:
        """Return the tree's mean value over the training rows; for a tree of one leaf, the value of that leaf."""
        if not self.feature:
            return self.leaf_value[0]
        return sum(v * n for v, n in zip(self.leaf_value, self.leaf_count, strict=True)) / self.split_count[0]


@dataclass(frozen=True)
class Forest:
    """All trees of a model; tree ``t`` belongs to class ``t % classes``."""

    features: int
    classes: int
    trees: list[Tree]


def parse(text: str) -> Forest:
    """Parse the result of ``Booster.model_to_string()``.

    Raises ``UnsupportedModel`` for linear trees and for leaves without training rows.
    """
    head, *blocks = re.split(r"^Tree=\d+\n", text.split("\nend of trees", maxsplit=1)[0], flags=re.MULTILINE)
    settings = _fields(head)
    return Forest(
        features=int(settings["max_feature_idx"]) + 1,
        classes=int(settings["num_tree_per_iteration"]),
        trees=[_tree(_fields(block), index) for index, block in enumerate(blocks)],
    )


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(fields: dict[str, str], index: int) -> Tree:
    if fields.get("is_linear", "0") != "0":
        raise UnsupportedModel(
            f"expected trees with constant leaves, got a linear tree (tree {index}); "
            "TreeSHAP is not defined for it: train with linear_tree=false"
        )
    if int(fields["num_leaves"]) == 1:
        return Tree([], [], [], [], [], [], [float(fields["leaf_value"])], [], [])
    tree = Tree(
        feature=_integers(fields["split_feature"]),
        threshold=[float(number) for number in fields["threshold"].split()],
        decision=_integers(fields["decision_type"]),
        left=_integers(fields["left_child"]),
        right=_integers(fields["right_child"]),
        split_count=_integers(fields["internal_count"]),
        leaf_value=[float(number) for number in fields["leaf_value"].split()],
        leaf_count=_integers(fields["leaf_count"]),
        sets=_sets(fields),
    )
    if min(tree.split_count) <= 0 or min(tree.leaf_count) <= 0:
        raise UnsupportedModel(
            f"expected training rows in every leaf, got a leaf or a split without any (tree {index}): its mean is not "
            "defined, and LightGBM's own contributions are NaN; train the model again"
        )
    return tree


def _integers(numbers: str) -> list[int]:
    return [int(number) for number in numbers.split()]


def _sets(fields: dict[str, str]) -> list[tuple[int, ...]]:
    """Read the sets of categories as words of 32 bits; a categorical split's threshold is the number of its set."""
    if int(fields["num_cat"]) == 0:
        return []
    bounds, words = _integers(fields["cat_boundaries"]), _integers(fields["cat_threshold"])
    return [tuple(words[a:b]) for a, b in pairwise(bounds)]
