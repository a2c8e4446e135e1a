"""Synthetic impression events for any bundle: random sessions and features, scored by the bundle's own models.

Unlike :mod:`models.data.slates`, this module needs no histories of the bundle's catalogue. The events mean nothing.
They exercise every stage of an explanation, because the bundle reproduces their scores.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.manifest import Feature
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel, left_pad
from schemas.events import Impression, SlateItem

_NOW_MS = 1_760_000_000_000
_EVENT_EVERY_MS = 60_000


class SyntheticSlates:
    """A source of synthetic impression events for one bundle."""

    def __init__(self, bundle: Bundle, seed: int = 0) -> None:
        """Open the bundle's models; the same seed gives the same events.

        Raises:
            BundleError: a model does not run.

        """
        self._bundle = bundle
        self._session = SessionModel(bundle)
        self._reranker = Reranker.load(bundle)
        self._random = np.random.default_rng(seed)

    def slate(self, *, events: int, items: int) -> Impression:
        """Return a slate of ``items`` items for a session of ``events`` events, the best item first.

        The slate has fewer items where the catalogue has fewer.
        """
        bundle, random = self._bundle, self._random
        event = random.integers(1, len(bundle.catalog) + 1, size=events)
        engagement = random.integers(1, len(bundle.manifest.engagements) + 1, size=events)
        candidate = 1 + random.permutation(len(bundle.catalog))[:items]
        limit = bundle.manifest.max_length
        vector = self._session.run(left_pad([event], limit), left_pad([engagement], limit), without=False).vector[0]
        ranking = bundle.item_vectors[candidate] @ vector
        user = _features(bundle.owned("user"), 1, random)
        item = _features(bundle.owned("item"), len(candidate), random)
        rows = np.column_stack([np.repeat(user, len(candidate), axis=0), item, ranking]).astype(np.float64)
        reranking = self._reranker.score(rows).astype(np.float32)
        return {
            "request_id": str(uuid.UUID(bytes=random.bytes(16), version=4)),
            "timestamp_ms": _NOW_MS,
            "user_id_hash": f"{random.integers(2**63):016x}",
            "region": "GB",
            "locale": "en-GB",
            "feature_set": bundle.manifest.feature_set,
            "model_version": bundle.model_version,
            "session": [
                {
                    "item_id": bundle.catalog.item_ids[index - 1],
                    "engagement": bundle.manifest.engagements[code - 1],
                    "timestamp_ms": _NOW_MS - _EVENT_EVERY_MS * (events - place),
                }
                for place, (index, code) in enumerate(zip(event.tolist(), engagement.tolist(), strict=True))
            ],
            "user_features": user[0].tolist(),
            "items": [
                SlateItem(
                    item_id=bundle.catalog.item_ids[candidate[row] - 1],
                    position=position,
                    ranking_score=float(np.float32(ranking[row])),
                    reranking_score=float(reranking[row]),
                    item_features=item[row].tolist(),
                )
                for position, row in enumerate(np.argsort(-reranking, kind="stable").tolist(), start=1)
            ],
        }


def _features(features: Iterable[Feature], rows: int, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw feature values of plausible size: float32 [rows, features]."""
    largest = np.array([100.0 if feature.unit in {"%", "percentile"} else 2.0 for feature in features])
    values: npt.NDArray[np.float32] = (random.random((rows, len(largest))) * largest).astype(np.float32)
    return values
