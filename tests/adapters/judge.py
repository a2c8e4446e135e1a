"""A judge that has only an original session model and LightGBM, and slates as such a recommender serves them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import lightgbm
import numpy as np

from tests.adapters.originals import Original, Scores

Record = dict[str, Any]

FEATURES = [
    {"name": "hour", "owner": "context", "display_name": "Hour of the day", "is_personal": False},
    {"name": "fit", "owner": "session", "display_name": "Fit"},
    {"name": "age_days", "owner": "item", "display_name": "Days since release"},
]


@dataclass
class Judge:
    """The original recommender: a session model that reads the newest ``width`` events, and LightGBM."""

    original: Original
    booster: lightgbm.Booster
    width: int
    empty: bool = True
    cache: dict[tuple[int, ...], Scores] = field(default_factory=dict)

    def scores(self, session: list[int], slate: list[int]) -> Scores:
        newest = tuple(session[-self.width :])
        if newest not in self.cache:
            self.cache[newest] = self.original.scores(newest)
        return self.cache[newest][slate]

    def reranked(self, scores: Scores, impression: Record) -> Scores:
        [hour] = impression["context_features"]
        rows = [[hour, score, *item["item_features"]] for score, item in zip(scores, impression["items"], strict=True)]
        return np.asarray(self.booster.predict(np.array(rows)))

    def ranks(self, session: list[int], slate: list[int], impression: Record) -> dict[str, int]:
        scores = self.reranked(self.scores(session, slate), impression).astype(np.float32)
        order = np.lexsort(([item["position"] for item in impression["items"]], -scores))
        return {impression["items"][place]["item_id"]: rank for rank, place in enumerate(order.tolist(), start=1)}


def reranker(spread: float) -> lightgbm.Booster:
    random = np.random.default_rng(7)
    rows = random.normal(size=(800, 3)) * [6, 2 * spread, 30] + [12, 0, 60]
    liked = rows[:, 1] / spread + random.normal(size=800) - rows[:, 2] / 100 > 0
    names = [each["name"] for each in FEATURES]
    data = lightgbm.Dataset(rows, liked.astype(float), feature_name=names, params={"verbosity": -1})  # type: ignore[arg-type]
    settings = {"objective": "binary", "num_leaves": 8, "verbosity": -1, "num_threads": 1, "seed": 1}
    return lightgbm.train(settings, data, 12)


def slate_of(judge: Judge, model_version: str, session: list[int], seed: int) -> Record:
    random = np.random.default_rng(seed)
    items = len(judge.original.scores([1])) - 1
    slate = (1 + random.permutation(items)[:10]).tolist()
    impression: Record = {
        "request_id": str(uuid.UUID(int=seed + 1)),
        "timestamp_ms": 1_760_000_000_000,
        "user_id_hash": "00ff00ff00ff00ff",
        "region": "GB",
        "locale": "en-GB",
        "feature_set": "evening",
        "model_version": model_version,
        "session": [{"item_id": f"f{item}", "engagement": "", "timestamp_ms": None} for item in session],
        "user_features": [],
        "context_features": [float(np.float32(random.random() * 24))],
        "items": [
            {"item_id": f"f{item}", "item_features": [float(np.float32(random.random() * 90))]} for item in slate
        ],
    }
    ranking = judge.scores(session, slate)
    reranked = judge.reranked(ranking, impression)
    for place, index in enumerate(np.argsort(-reranked, kind="stable").tolist(), start=1):
        scores = {"ranking_score": float(ranking[index]), "reranking_score": float(reranked[index])}
        impression["items"][index] |= scores | {"position": place}
    impression["items"].sort(key=lambda item: item["position"])
    return impression


NOISE = 1e-4


def false_citations(judge: Judge, told: Iterable[tuple[Record, Record]]) -> tuple[int, list[str]]:
    """Count the citations of slates with their explanations, and say which of them are false, and why."""
    count, false = 0, []
    for impression, explanation in told:
        session, slate = ([int(each["item_id"][1:]) for each in impression[part]] for part in ("session", "items"))
        spread = float(judge.scores(session, slate).std())
        for item in explanation["items"]:
            place = slate.index(int(item["item_id"][1:]))
            if item["status"] == "model_mismatch":
                false.append(f"{impression['request_id']} {item['item_id']}: the scores are not reproduced")
            for citation in item["evidence"]["history"]:
                count += 1
                event = citation["event"]
                left = session[:event] + session[event + 1 :]
                drops = judge.scores(session, slate) - judge.scores(left, slate)
                rank = judge.ranks(left, slate, impression)[item["item_id"]]
                wrong = {
                    "another event": citation["item_id"] != f"f{session[event]}",
                    "another drop": abs(citation["score_drop"] - drops[place]) > NOISE * spread,
                    "no drop": drops[place] <= 0,
                    "no drop relative to the slate": drops[place] <= drops.mean(),
                    "another rank": citation["rank"] != item["position"],
                    "another rank without": citation["rank_without"] != rank,
                }
                false += [
                    f"{impression['request_id']} {item['item_id']}: {why}" for why, is_so in wrong.items() if is_so
                ]
    return count, false
