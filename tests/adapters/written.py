"""Bundles of adapted models, without a re-ranker, and the comparison of their scores with the original's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.adapters.adapted import Adapted
from models.adapters.export import export, require_parity
from models.bundle import Bundle, Catalog, write_bundle
from models.session.runtime import SessionModel, left_pad
from tests.adapters.originals import Original

Floats = npt.NDArray[np.float32]


def catalog(items: int) -> Catalog:
    popularity = np.zeros(items + 1, dtype=np.float32)
    popularity[1:] = 100 * (1 + np.random.default_rng(1).permutation(items)) / items
    names = tuple(f"i{number}" for number in range(1, items + 1))
    return Catalog(names, tuple(f"Title {name}" for name in names), ("Any",) * items, popularity)


def written(folder: Path, adapted: Adapted) -> SessionModel:
    """Write a bundle of the session model alone; the graph gives what the module gives."""
    graph, complaints = export(adapted)
    bundle: Bundle = write_bundle(
        folder,
        name="adapted",
        version="1",
        session_onnx=graph,
        item_vectors=adapted.item_vectors,
        item_bias=adapted.item_bias,
        catalog=catalog(len(adapted.item_vectors) - 1),
        reranker_text=None,
        features=(),
        card="# adapted\n",
        engagements=(),
        feature_set="none",
        max_length=adapted.max_length,
        fixed_length=adapted.fixed_length,
        empty_session=adapted.empty_session,
    )
    require_parity(adapted, bundle, complaints)
    return SessionModel(bundle)


def scores(model: SessionModel, sessions: Sequence[Sequence[int]], bundle: Adapted) -> Floats:
    """Score all items after each session, float32 [sessions, n + 1]."""
    items = left_pad(sessions, model.max_length)
    vectors = model.run(items, (items > 0).astype(np.int64), without=False).vector
    bias = 0 if bundle.item_bias is None else bundle.item_bias
    return np.asarray(vectors @ bundle.item_vectors.T + bias, dtype=np.float32)


def sessions_around(model: SessionModel, items: int, *, empty: bool = False) -> list[list[int]]:
    """Draw sessions of 1, 2, max_length - 1, max_length, max_length + 1 and 2 max_length events."""
    random = np.random.default_rng(3)
    width = model.max_length
    lengths = [*([0] if empty else []), 1, 2, 3, width - 1, width, width + 1, 2 * width]
    return [random.integers(1, items + 1, length).tolist() for length in lengths]


def largest_difference(model: SessionModel, adapted: Adapted, original: Original, *, empty: bool = False) -> float:
    """Compare all scores of sessions around the edges, in the spread of the original's scores."""
    sessions = sessions_around(model, len(adapted.item_vectors) - 1, empty=empty)
    expected = np.stack([original.scores(session) for session in sessions])
    spread = expected[:, 1:].std(axis=1).mean()
    return float(np.abs(scores(model, sessions, adapted) - expected).max() / spread)
