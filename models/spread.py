"""The spread of a model's scores: the unit in which tolerances and margins are given.

A difference of 0.001 is rounding for one model and a whole slate for another. So scores are compared in units of the
spread that the same model's scores have. A bundle may state its spreads; others are measured here when the models are
opened, always on the same random inputs, and rounded, so that every machine finds the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel, left_pad
from models.trees.model import parse

_SESSIONS: Final = 32
_LONGEST: Final = 20
_ITEMS: Final = 1_000
_ROWS: Final = 500


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations of scores.

    session: of the session model's scores, over the items of the catalogue, for one session; reranker: of the
    re-ranker's raw scores, 1 without a re-ranker; margin: the unit of the bundle's citation margin.
    """

    session: float
    reranker: float
    margin: float

    @classmethod
    def of(cls, bundle: Bundle, model: SessionModel, reranker: Reranker | None) -> Self:
        """Return the spreads that the bundle states, and measure the others."""
        manifest = bundle.manifest
        session = manifest.session_score_spread or _session_spread(bundle, model)
        trees = manifest.reranker_score_spread or (1.0 if reranker is None else _reranker_spread(reranker))
        # Contract 1 gives the margin in logits.
        return cls(session, trees, session if manifest.contract > 1 else 1.0)


def _session_spread(bundle: Bundle, model: SessionModel) -> float:
    random = np.random.default_rng(0)
    lengths = random.integers(1, min(_LONGEST, model.max_length) + 1, _SESSIONS)
    sizes = len(bundle.catalog), len(bundle.engagements)
    items, engagements = ([random.integers(1, size + 1, length) for length in lengths] for size in sizes)
    width = int(lengths.max())
    vectors = model.run(left_pad(items, width), left_pad(engagements, width), without=False).vector
    shown = 1 + random.permutation(sizes[0])[:_ITEMS]
    return _rounded((vectors @ bundle.item_vectors[shown].T + bundle.item_bias[shown]).std(axis=1).mean())


def _reranker_spread(reranker: Reranker) -> float:
    """Measure raw scores of rows whose values lie on either side of the trees' own thresholds."""
    random = np.random.default_rng(0)
    thresholds: list[list[float]] = [[] for _ in range(reranker.width)]
    for tree in parse(reranker.booster.model_to_string()).trees:
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True):
            thresholds[feature].append(threshold)
    columns = [_around(np.unique(values), random) for values in thresholds]
    return _rounded(reranker.raw(np.stack(columns, axis=1)).std())


def _around(thresholds: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw values from the intervals between thresholds, float64 [_ROWS]; 0 for a feature that no tree reads."""
    if not len(thresholds):
        return np.zeros(_ROWS)
    edges = np.concatenate([[thresholds[0] - 1.0], thresholds, [thresholds[-1] + 1.0]])
    middles = (edges[1:] + edges[:-1]) / 2
    drawn: npt.NDArray[np.float64] = middles[random.integers(0, len(middles), _ROWS)]
    return drawn


def _rounded(spread: float) -> float:
    """Round to two digits, which float noise does not reach; 1 for scores that are all the same."""
    return float(f"{spread:.2g}") or 1.0
