"""The bin columns of a forest: the column that each split compares, and the code that it compares with."""

from __future__ import annotations

import math

import numpy as np

from models.trees.encode import CATEGORICAL, COLUMN, FEATURE, MISSING_NONE, RUN, Binning
from models.trees.model import Forest, Tree, UnsupportedModel

_MAX_COLUMNS = 1 << 16


class Columns:
    """The bin columns of a forest. Raises ``UnsupportedModel`` if there are more than 65,535."""

    def __init__(self, forest: Forest) -> None:
        self._thresholds: dict[int, list[float]] = {}
        keys: set[tuple[int, ...]] = set()
        seen: dict[int, set[float]] = {}
        for tree in forest.trees:
            for feature, threshold, decision in zip(tree.feature, tree.threshold, tree.decision, strict=True):
                numbers = seen.setdefault(feature, set())
                if not decision & 1:
                    numbers.add(threshold)
        self._thresholds = {feature: sorted(numbers) for feature, numbers in seen.items()}
        self._rank = {
            feature: {threshold: rank for rank, threshold in enumerate(numbers)}
            for feature, numbers in self._thresholds.items()
        }
        for tree in forest.trees:
            keys.update(self._key(tree, number) for number in range(len(tree.feature)))
        self._keys = sorted(keys)
        self._number = {key: number for number, key in enumerate(self._keys)}
        if len(self._keys) >= _MAX_COLUMNS:
            raise UnsupportedModel(
                f"expected at most {_MAX_COLUMNS - 1} bin columns, got {len(self._keys)} (each set of categories "
                "takes one); train with fewer categorical splits"
            )

    def _key(self, tree: Tree, number: int) -> tuple[int, ...]:
        """Return what identifies the column of a split.

        These are the feature and the treatment of missing values, followed by the default direction and the run of
        thresholds, or by the words of the set of categories.
        """
        feature, decision = tree.feature[number], tree.decision[number]
        if decision & 1:
            return (feature, CATEGORICAL, *tree.sets[int(tree.threshold[number])])
        missing = decision >> 2 & 3
        default_left = 0 if missing == MISSING_NONE else decision >> 1 & 1
        return (feature, missing, default_left, self._rank[feature][tree.threshold[number]] // RUN)

    def of(self, tree: Tree, number: int) -> tuple[int, int]:
        """Return the column of a split and the largest code with which a row goes left."""
        threshold = 0
        if not tree.decision[number] & 1:
            threshold = self._rank[tree.feature[number]][tree.threshold[number]] % RUN
        return self._number[self._key(tree, number)], threshold

    def binning(self) -> Binning:
        """Return the tables with which :func:`models.trees.encode.encode` computes the codes."""
        features: list[tuple[int, ...]] = []
        columns: list[tuple[int, ...]] = []
        thresholds: list[float] = []
        words: list[int] = []
        for feature, numbers in sorted(self._thresholds.items()):
            begin = len(columns)
            for _, missing, *rest in (key for key in self._keys if key[0] == feature):
                if missing == CATEGORICAL:
                    columns.append((missing, 0, len(words), len(words) + len(rest)))
                    words += rest
                else:
                    columns.append((missing, 0 if rest[0] else RUN + 1, rest[1] * RUN, 0))
            levels = len(numbers).bit_length()
            features.append((feature, len(thresholds), 1 << levels >> 1, begin, len(columns)))
            thresholds += numbers + [math.inf] * (2**levels - 1 - len(numbers))
        return Binning(
            np.array(features, dtype=FEATURE),
            np.array(columns, dtype=COLUMN),
            np.array(thresholds, dtype=np.float64),
            np.array(words, dtype=np.uint32),
        )
