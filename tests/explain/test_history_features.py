"""A rank without an event is that of the whole recommender: features of the history change as well, or it is said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest

from models.bundle import HISTORY_FEATURES_FILE, Bundle
from models.errors import BundleError
from models.feature import Feature
from stream.explain.pipeline import Explainer
from tests.explain.test_removals import SMALL, WEIGHTS, mean_bundle, vector
from tests.graphs import counting_graph, mean_graph

FEATURES = (
    Feature("history_length", "user", "How much you watched", is_history_derived=True),
    Feature("times_watched", "item", "How often you watched it", is_personal=True, is_history_derived=True),
    Feature("price", "item", "What it costs"),
    Feature("fit", "session", "How well it fits"),
)


def trees() -> str:
    random = np.random.default_rng(0)
    X = np.column_stack(
        [random.integers(0, 12, 4_000), random.integers(0, 3, 4_000), random.random(4_000), random.normal(0, 3, 4_000)]
    )
    y = X[:, 3] * (1 + 0.2 * X[:, 0]) - 1.5 * X[:, 1] + X[:, 2]
    data = lightgbm.Dataset(X, y, feature_name=[each.name for each in FEATURES], params={"verbosity": -1})
    settings = {"verbosity": -1, "num_threads": 1, "num_leaves": 31, "deterministic": True, "force_row_wise": True}
    return str(lightgbm.train(settings, data, 60).model_to_string())


class Recommender:
    """The whole recommender in numpy and LightGBM, features of the history included."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.booster = lightgbm.Booster(model_str=bundle.reranker_text.read_text())

    def scores(self, session: Sequence[int], slate: Sequence[int], prices: Sequence[float]) -> npt.NDArray[np.float64]:
        fit = (WEIGHTS[list(slate)] @ vector(session[-SMALL.max_length :])).astype(np.float32)
        times = [list(session).count(item) for item in slate]
        rows = np.column_stack([np.full(len(slate), len(session)), times, prices, fit]).astype(np.float64)
        return np.asarray(self.booster.predict(rows)), fit  # type: ignore[return-value]

    def impression(self, session: Sequence[int], slate: Sequence[int], seed: int) -> dict[str, Any]:
        prices = np.random.default_rng(seed).random(len(slate)).astype(np.float32).tolist()
        score, fit = self.scores(session, slate, prices)
        order = np.argsort(-score.astype(np.float32), kind="stable").tolist()
        ids, now = self.bundle.catalog.item_ids, 1_760_000_000_000
        return {
            "request_id": f"00000000-0000-4000-8000-{seed:012d}", "timestamp_ms": now, "user_id_hash": "0" * 16,
            "region": "GB", "locale": "en-GB", "feature_set": self.bundle.manifest.feature_set,
            "model_version": self.bundle.model_version,
            "session": [{"item_id": ids[item - 1], "engagement": "view"} for item in session],
            "user_features": [float(len(session))],
            "items": [
                {
                    "item_id": ids[slate[row] - 1], "position": position, "ranking_score": float(fit[row]),
                    "reranking_score": float(np.float32(score[row])),
                    "item_features": [float(list(session).count(slate[row])), prices[row]],
                }
                for position, row in enumerate(order, start=1)
            ],
        }  # fmt: skip

    def ranks(self, impression: dict[str, Any], left: Sequence[int]) -> dict[str, int]:
        ids = [item["item_id"] for item in impression["items"]]
        slate = self.bundle.catalog.index(ids).tolist()
        score, _ = self.scores(left, slate, [item["item_features"][1] for item in impression["items"]])
        order = np.argsort(-score.astype(np.float32), kind="stable").tolist()
        return {ids[row]: rank for rank, row in enumerate(order, start=1)}


def recommender(folder: Path, **changes: Any) -> Recommender:
    return Recommender(
        mean_bundle(folder, features=FEATURES, reranker_text=trees(), ablations=("deletion",), **changes)
    )


def slates(made: Recommender) -> list[dict[str, Any]]:
    random = np.random.default_rng(5)
    return [
        made.impression(random.integers(1, 21, size).tolist(), (1 + random.permutation(20)[:8]).tolist(), seed)
        for seed, size in enumerate([2, 3, 4, 5, 6, 8, 10] * 4)
    ]


def test_ranks_without_an_event_are_those_of_the_whole_recommender(tmp_path: Path) -> None:
    made = recommender(tmp_path, files={HISTORY_FEATURES_FILE: counting_graph()})
    said = 0
    impressions = slates(made)
    for impression, explanation in zip(impressions, Explainer(made.bundle).explain(impressions), strict=True):
        session = made.bundle.catalog.index([event["item_id"] for event in impression["session"]]).tolist()
        for item in explanation["items"]:
            assert item["status"] != "model_mismatch"
            assert "All else being equal" not in item["text"]
            said += "Without" in item["text"]
            for citation in item["evidence"]["history"]:
                left = session[: citation["event"]] + session[citation["event"] + 1 :]
                assert citation["rank"] == made.ranks(impression, session)[item["item_id"]]
                assert citation["rank_without"] == made.ranks(impression, left)[item["item_id"]]
    assert said > 10


def test_where_such_features_stay_as_they_were_sent_the_sentence_says_so(tmp_path: Path) -> None:
    made = recommender(tmp_path)
    texts = [item["text"] for each in Explainer(made.bundle).explain(slates(made)) for item in each["items"]]
    assert any("All else being equal, without “" in text for text in texts)
    assert not any(re.search("[.] Without", text) for text in texts)


def test_features_that_are_not_those_of_the_history_are_another_model(tmp_path: Path) -> None:
    made = recommender(tmp_path, files={HISTORY_FEATURES_FILE: counting_graph()})
    impression = slates(made)[3]
    impression["user_features"] = [1.0]
    [explanation] = Explainer(made.bundle).explain([impression])
    assert {item["status"] for item in explanation["items"]} == {"model_mismatch"}


def test_a_graph_of_another_form_is_refused(tmp_path: Path) -> None:
    made = recommender(tmp_path, files={HISTORY_FEATURES_FILE: mean_graph(WEIGHTS, WEIGHTS[1])})
    with pytest.raises(BundleError, match=r"history_features\.onnx: expected the input item_index"):
        Explainer(made.bundle)
