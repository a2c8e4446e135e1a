"""The plain assembly: the same parts as ours, put together the way one writes it first.

Per impression the session model, ``shap.TreeExplainer``, the attention rules, fastavro. It says less than we do: no
citation is checked. ``bench/pipeline.py`` measures it beside ours.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.data.sessions import ENGAGEMENT_NAMES
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel, left_pad
from schemas.events import Impression
from schemas.versions import schema


class PlainAssembly:
    """The same models, one thread, one impression or one slate after the other."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._session = SessionModel(bundle)
        self._booster = Reranker.load(bundle).booster
        import shap  # takes seconds, which most of what imports this module does without

        self._shap = shap.TreeExplainer(self._booster)  # which, for LightGBM, calls LightGBM's own contributions
        self._explanation = fastavro.parse_schema(schema("explanation"))

    def per_impression(self, slates: Sequence[Impression]) -> None:
        """Explain one item at a time."""
        for slate in slates:
            items = []
            for item in slate["items"]:
                vector, attention = self._look(slate)
                row = np.array([[*slate["user_features"], *item["item_features"], vector @ self._vector(item)]])
                items.append(self._say(slate, item, attention, self._shap.shap_values(row)[0], row[0]))
            self._write(slate, items)

    def per_slate(self, slates: Sequence[Impression]) -> None:
        """Explain the items of a slate together."""
        for slate in slates:
            vector, attention = self._look(slate)
            rows = np.array(
                [
                    [*slate["user_features"], *item["item_features"], vector @ self._vector(item)]
                    for item in slate["items"]
                ]
            )
            values = self._shap.shap_values(rows)
            items = [
                self._say(slate, item, attention, phi, row)
                for item, phi, row in zip(slate["items"], values, rows, strict=True)
            ]
            self._write(slate, items)

    def _look(self, slate: Impression) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        items = self._bundle.catalog.index([event["item_id"] for event in slate["session"]])
        kinds = np.array(
            [1 + ENGAGEMENT_NAMES.index(event["engagement"]) for event in slate["session"]], dtype=np.int64
        )
        length = self._session.max_length
        found = self._session.run(left_pad([items], length), left_pad([kinds], length), without=False)
        if found.attention is None:
            raise ValueError("expected a session model with attention, got one without: measure another bundle")
        return found.vector[0], found.attention[0].mean(axis=(0, 1))

    def _vector(self, item: Any) -> npt.NDArray[np.float32]:
        row: int = self._bundle.catalog.index([item["item_id"]])[0]
        vector: npt.NDArray[np.float32] = self._bundle.item_vectors[row]
        return vector

    def _say(
        self,
        slate: Impression,
        item: Any,
        attention: npt.NDArray[np.float32],
        phi: npt.NDArray[np.float64],
        row: npt.NDArray[np.float64],
    ) -> dict[str, Any]:
        """Apply the attention rules in their plainest form; what is said matters less here than what it costs."""
        newest_two = np.argsort(attention)[-2:][::-1]
        cites = float(attention[newest_two].sum()) > 0.5 and len(slate["session"]) > 1
        titles = [self._bundle.catalog.titles[int(i) % len(self._bundle.catalog.titles)] for i in newest_two]
        top = np.argsort(-np.abs(phi))[:5]
        features = self._bundle.features
        return {
            "item_id": item["item_id"],
            "position": item["position"],
            "type": "watch_history" if cites else "personalized",
            "status": "generic",
            "text": f"Because you watched {titles[0]} and {titles[1]}" if cites else "Chosen for you",
            "evidence": {
                "history": [],
                "features": [
                    {
                        "name": features[i].name,
                        "display_name": features[i].display_name,
                        "value": float(row[i]),
                        "contribution": float(phi[i]),
                    }
                    for i in top.tolist()
                ],
                "personal_share": None,
                "category_match": None,
                "residual": None,
            },
        }

    def _write(self, slate: Impression, items: list[dict[str, Any]]) -> None:
        fastavro.schemaless_writer(
            io.BytesIO(),
            self._explanation,
            {
                **{name: slate[name] for name in ("request_id", "timestamp_ms", "user_id_hash", "region", "locale")},
                "model_version": slate["model_version"],
                "policy": "plain",
                "produced_at_ms": int(time.time() * 1000),
                "items": items,
            },
        )
