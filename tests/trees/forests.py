"""LightGBM models for the tests: trained models of many kinds, and random trees that no training would produce."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]

TINY = float(np.float32(1e-35))
ODD = [np.nan, 0.0, -0.0, TINY, -TINY, 1.1 * TINY, 1e-36, np.inf, -np.inf, 1e300]
"""Values that LightGBM's comparisons treat in a special way, and their neighbours."""


def rows(rng: np.random.Generator, count: int, features: int) -> Float64s:
    """Draw rows with continuous, rounded and integer columns, with missing values, zeros and values of ODD."""
    X = rng.normal(scale=2, size=(count, features))
    X[:, 1::3] = np.round(X[:, 1::3])
    X[:, 2::3] = rng.integers(-1, 70, size=X[:, 2::3].shape)
    chance = rng.random(X.shape)
    X[chance < 0.1] = np.nan
    X[(chance >= 0.1) & (chance < 0.2)] = 0.0
    odd = chance > 0.97
    X[odd] = rng.choice(ODD, size=odd.sum())
    return X


def train(X: Float64s, settings: dict[str, Any], trees: int, categorical: list[int] | None = None) -> lightgbm.Booster:
    """Train a booster on a target with interactions; the settings decide whether it has classes."""
    Z = np.clip(np.nan_to_num(X), -5, 5)
    y = Z[:, 0] * Z[:, 1] + np.sin(Z[:, 2]) + Z[:, -1]
    classes = settings.get("num_class", 1)
    if settings.get("objective") == "binary":
        y = (y > np.median(y)).astype(np.float64)
    elif classes > 1:
        y = np.digitize(y, np.quantile(y, np.linspace(0, 1, classes + 1)[1:-1])).astype(np.float64)
    data = lightgbm.Dataset(X, y, categorical_feature=categorical or [], params={"verbose": -1})
    return lightgbm.train({"verbose": -1, "num_threads": 1, **settings}, data, trees)


@dataclass
class Written:
    """A random tree in LightGBM's text format, with any decision type at any node."""

    rng: np.random.Generator
    features: int
    leaves: int
    chain: bool

    def text(self) -> str:
        """Return the tree's block, without its heading."""
        leaves = [(-1, 0)]  # for each leaf so far: its parent split and its side
        children = {}
        for split in range(self.leaves - 1):
            children[leaves.pop(-1 if self.chain else int(self.rng.integers(len(leaves))))] = split
            leaves += [(split, 0), (split, 1)] if self.rng.random() < 0.5 else [(split, 1), (split, 0)]
        children.update({where: ~leaf for leaf, where in enumerate(leaves)})
        left = [children[split, 0] for split in range(self.leaves - 1)]
        right = [children[split, 1] for split in range(self.leaves - 1)]
        leaf_count = self.rng.integers(1, 50, size=self.leaves)
        split_count = np.zeros(self.leaves - 1, dtype=int)
        for split in reversed(range(self.leaves - 1)):
            split_count[split] = sum(
                split_count[child] if child >= 0 else leaf_count[~child] for child in (left[split], right[split])
            )
        features = self.rng.integers(self.features, size=self.leaves - 1)
        decisions = self.rng.choice([0, 2, 4, 6, 8, 10], size=self.leaves - 1)
        thresholds = np.where(
            self.rng.random(self.leaves - 1) < 0.2,
            self.rng.choice([0.0, TINY, -TINY, 1e-36, 1e300], size=self.leaves - 1),
            self.rng.normal(size=self.leaves - 1),
        )
        fields = {
            "num_leaves": self.leaves,
            "num_cat": 0,
            "split_feature": features,
            "split_gain": np.ones(self.leaves - 1),
            "threshold": thresholds,
            "decision_type": decisions,
            "left_child": left,
            "right_child": right,
            "leaf_value": self.rng.normal(size=self.leaves),
            "leaf_weight": leaf_count,
            "leaf_count": leaf_count,
            "internal_value": np.zeros(self.leaves - 1),
            "internal_weight": split_count,
            "internal_count": split_count,
            "is_linear": 0,
            "shrinkage": 1,
        }
        return "\n".join(f"{name}={_numbers(value)}" for name, value in fields.items())


def model_text(features: int, blocks: list[str]) -> str:
    """Return the text of a model made of these trees."""
    head = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={features - 1}",
        "objective=regression",
        "feature_names=" + " ".join(f"f{number}" for number in range(features)),
        "feature_infos=" + " ".join(["[-10:10]"] * features),
    ]
    trees = [f"Tree={number}\n{block}\n\n" for number, block in enumerate(blocks)]
    head.append("tree_sizes=" + " ".join(str(len(tree) + 1) for tree in trees))
    return "\n".join(head) + "\n\n" + "\n".join(trees) + "\nend of trees\n"


def _numbers(value: Any) -> str:
    values = np.atleast_1d(np.asarray(value))
    return " ".join(repr(each.item()) for each in values)
