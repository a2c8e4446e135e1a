"""A slate that a bundle's own models rank, made from nothing but the bundle: a worker's test of itself."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from models.bundle import Bundle
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel, left_pad

_EVENTS: Final = 8
_ITEMS: Final = 20
_NOW_MS: Final = 1_700_000_000_000
_MINUTE_MS: Final = 60_000


def reference_slate(bundle: Bundle) -> dict[str, Any]:
    """Return an impression with true scores and missing features, the same for the same bundle.

    The session holds the first items of the catalogue and the slate the items after them, best first.
    """
    manifest, item_ids = bundle.manifest, bundle.catalog.item_ids
    events = min(_EVENTS, manifest.max_length, len(item_ids))
    session = np.arange(1, events + 1)
    engagement = 1 + np.arange(events) % len(bundle.engagements)
    slate = 1 + (events + np.arange(min(_ITEMS, len(item_ids)))) % len(item_ids)
    inputs = (left_pad([each], manifest.max_length) for each in (session, engagement))
    vector = SessionModel(bundle).run(*inputs, without=False).vector[0]
    ranking = (bundle.item_vectors[slate] @ vector + bundle.item_bias[slate]).astype(np.float32)
    features = np.full((len(slate), len(bundle.features)), np.nan)
    if bundle.session_column is not None:
        features[:, bundle.session_column] = ranking
    reranking = Reranker.load(bundle).score(features) if bundle.has_reranker else ranking
    return {
        "request_id": "00000000-0000-4000-8000-000000000000",
        "timestamp_ms": _NOW_MS,
        "user_id_hash": "0" * 16,
        "region": "GB",
        "locale": "en-GB",
        "feature_set": manifest.feature_set,
        "model_version": bundle.model_version,
        "session": [
            {
                "item_id": item_ids[index - 1],
                "engagement": bundle.engagements[kind - 1].name,
                "timestamp_ms": _NOW_MS - _MINUTE_MS * (events - place),
            }
            for place, (index, kind) in enumerate(zip(session.tolist(), engagement.tolist(), strict=True))
        ],
        "user_features": [float("nan")] * len(bundle.owned("user")),
        "context_features": [float("nan")] * len(bundle.owned("context")),
        "items": [
            {
                "item_id": item_ids[slate[row] - 1],
                "position": position,
                "ranking_score": float(np.float32(ranking[row])),
                "reranking_score": float(np.float32(reranking[row])),
                "item_features": [float("nan")] * len(bundle.owned("item")),
            }
            for position, row in enumerate(np.argsort(-reranking, kind="stable").tolist(), start=1)
        ],
    }
