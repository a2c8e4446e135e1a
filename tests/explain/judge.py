"""An independent judge: deletes an event in plain lists, runs the models again, and ranks, the slow way."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel, left_pad


class Judge:
    """Scores an impression as the recommender of a bundle would."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.model = SessionModel(bundle)
        self.reranker = Reranker.load(bundle)

    def ranking(self, impression: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        items = self.bundle.catalog.index([event["item_id"] for event in impression["session"]])
        engagements = [
            self.bundle.manifest.engagement_names.index(each["engagement"]) + 1 for each in impression["session"]
        ]
        limit = self.bundle.manifest.max_length
        output = self.model.run(left_pad([items], limit), left_pad([engagements], limit), without=False)
        slate = self.bundle.catalog.index([item["item_id"] for item in impression["items"]])
        return np.asarray(self.bundle.item_vectors[slate] @ output.vector[0])

    def ranks(self, impression: Mapping[str, Any]) -> dict[str, int]:
        """Rank of each item by the re-ranking score that the bundle gives it."""
        rows = [
            [*impression["user_features"], *item["item_features"], score]
            for item, score in zip(impression["items"], self.ranking(impression).tolist(), strict=True)
        ]
        scores = self.reranker.score(np.array(rows)).astype(np.float32).tolist()
        shown = sorted(zip(scores, impression["items"], strict=True), key=lambda pair: (-pair[0], pair[1]["position"]))
        return {item["item_id"]: rank for rank, (_, item) in enumerate(shown, start=1)}

    def without(self, impression: Mapping[str, Any], event: int) -> dict[str, Any]:
        left = copy.deepcopy(dict(impression))
        del left["session"][event]
        return left

    def drop(self, impression: Mapping[str, Any], event: int) -> tuple[dict[str, float], dict[str, float]]:
        """Score drop of each item without an event, and the drop minus the mean drop of the slate."""
        drop = self.ranking(impression) - self.ranking(self.without(impression, event))
        ids = [item["item_id"] for item in impression["items"]]
        return dict(zip(ids, drop.tolist(), strict=True)), dict(zip(ids, (drop - drop.mean()).tolist(), strict=True))
