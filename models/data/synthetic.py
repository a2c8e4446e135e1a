"""Synthetic impression events for any bundle: random sessions and features, scored by the bundle's own models.

Unlike :mod:`models.data.slates`, this module needs no histories of the bundle's catalogue. The events mean nothing.
They exercise every stage of an explanation, because the bundle reproduces their scores. A worker warms up with such
events, and explains one of them, its reference slate, to find out whether the worker itself is healthy.
"""

from __future__ import annotations

import uuid
from typing import Final

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.feature import Owner
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel, left_pad
from schemas.events import Impression, SlateItem

_SENT: Final[tuple[Owner, ...]] = ("user", "context", "item")
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
        self._reranker = Reranker.load(bundle) if bundle.has_reranker else None
        self._random = np.random.default_rng(seed)

    def slate(self, *, events: int, items: int) -> Impression:
        """Return a slate of ``items`` items for a session of ``events`` events, the best item first.

        The slate has fewer items where the catalogue has fewer.
        """
        bundle, random = self._bundle, self._random
        event = random.integers(1, len(bundle.catalog) + 1, size=events)
        kinds = len(bundle.manifest.engagements)
        engagement = random.integers(1, kinds + 1, size=events) if kinds else np.zeros(events, dtype=np.int64)
        candidate = 1 + random.permutation(len(bundle.catalog))[:items]
        limit = bundle.manifest.max_length
        vector = self._session.run(left_pad([event], limit), left_pad([engagement], limit), without=False).vector[0]
        ranking = (bundle.item_vectors[candidate] @ vector + bundle.item_bias[candidate]).astype(np.float32)
        rows = self._features(len(candidate))
        if bundle.session_column is not None:
            rows[:, bundle.session_column] = ranking
        reranking = ranking if self._reranker is None else self._reranker.score(rows.astype(np.float64))
        reranking = reranking.astype(np.float32)
        owned = {owner: rows[:, [each.owner == owner for each in bundle.features]] for owner in _SENT}
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
                    "engagement": bundle.manifest.engagement_names[code - 1] if code else "",
                    "timestamp_ms": _NOW_MS - _EVENT_EVERY_MS * (events - place),
                }
                for place, (index, code) in enumerate(zip(event.tolist(), engagement.tolist(), strict=True))
            ],
            "user_features": owned["user"][0].tolist(),
            "context_features": owned["context"][0].tolist(),
            "items": [
                SlateItem(
                    item_id=bundle.catalog.item_ids[candidate[row] - 1],
                    position=position,
                    ranking_score=float(ranking[row]),
                    reranking_score=float(reranking[row]),
                    item_features=owned["item"][row].tolist(),
                )
                for position, row in enumerate(np.argsort(-reranking, kind="stable").tolist(), start=1)
            ],
        }

    def _features(self, items: int) -> npt.NDArray[np.float32]:
        """Draw feature values of plausible size, those that the slate's items share once: float32 [items, F]."""
        features = self._bundle.features
        largest = np.array([100.0 if feature.unit in {"%", "percentile"} else 2.0 for feature in features])
        values: npt.NDArray[np.float32] = (self._random.random((items, len(features))) * largest).astype(np.float32)
        shared = [feature.owner != "item" for feature in features]
        values[:, shared] = values[:1, shared]
        return values
