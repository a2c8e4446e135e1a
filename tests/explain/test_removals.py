"""By which ablations a citation is confirmed, and what is said where an ablation cannot be made.

The recommender is a constant plus the mean of the vectors of all events, which a few lines of numpy compute again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from models.attribution.ablation import names
from models.bundle import Bundle, Catalog
from models.check import check
from models.errors import BundleError
from models.feature import Feature
from models.reranker.features import FEATURES
from models.session.runtime import SessionModel
from stream.errors import ConfigurationError
from stream.explain.pipeline import Explainer
from tests.bundles import TINY, random_weights, tiny_bundle, tiny_impression, tiny_reranker
from tests.graphs import mean_graph

SMALL = dataclasses.replace(TINY, items=20, max_length=5)
WEIGHTS = random_weights(SMALL)["item.weight"]
CONSTANT = WEIGHTS[1:4].mean(axis=0)
MARGIN = 0.05
NOISE = 1e-4


def mean_bundle(folder: Path, **changes: Any) -> Bundle:
    graph = mean_graph(WEIGHTS, CONSTANT)
    parts = {"config": SMALL, "session_onnx": graph, "citation_margin": MARGIN, "citation_ageing": 0.0}
    return Bundle.load(tiny_bundle(folder, **parts | changes))


def vector(items: Sequence[int]) -> npt.NDArray[np.float32]:
    return np.asarray(CONSTANT + (WEIGHTS[list(items)].mean(axis=0) if len(items) else 0), dtype=np.float32)


def explained(
    bundle: Bundle, sizes: Sequence[int], seeds: int = 8, policy: str = "evidence"
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    slates = [
        tiny_impression(bundle, session=size, items=8, seed=seed) | {"detail": True}
        for size in sizes
        for seed in range(seeds)
    ]
    return list(zip(slates, Explainer(bundle, policy).explain(slates), strict=True))


def cited(explanation: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(item["item_id"], each) for item in explanation["items"] for each in item["evidence"]["history"]]


@pytest.mark.parametrize("policy", ["evidence", "attention"])
def test_where_nobody_knows_what_an_empty_session_scores_its_only_event_is_not_cited(
    tmp_path: Path, policy: str
) -> None:
    for impression, explanation in explained(mean_bundle(tmp_path, empty_session="unknown"), [1], policy=policy):
        assert cited(explanation) == []
        for item in explanation["items"]:
            assert item["status"] != "model_mismatch", impression["request_id"]
            assert [event["effect"] for event in item["detail"]["events"]] == [None]
            assert item["detail"]["events_together"] is None
            assert item["detail"]["recourse"] is None or item["detail"]["recourse"]["kind"] == "feature"


def test_an_empty_session_of_unknown_score_is_not_reproduced(tmp_path: Path) -> None:
    slate = tiny_impression(mean_bundle(tmp_path / "zero", empty_session="zero"), session=0, items=8)
    [explanation] = Explainer(mean_bundle(tmp_path / "unknown", empty_session="unknown")).explain([slate])
    assert {item["status"] for item in explanation["items"]} == {"model_mismatch"}


@pytest.mark.parametrize(("convention", "empty"), [("run", CONSTANT), ("zero", np.zeros_like(CONSTANT))])
def test_the_only_event_is_judged_by_what_the_recommender_gives_an_empty_session(
    tmp_path: Path, convention: str, empty: npt.NDArray[np.float32]
) -> None:
    bundle, count = mean_bundle(tmp_path, empty_session=convention), 0
    for impression, explanation in explained(bundle, [1], seeds=20):
        only = int(bundle.catalog.index([impression["session"][0]["item_id"]])[0])
        for item_id, citation in cited(explanation):
            item = int(bundle.catalog.index([item_id])[0])
            drop = float((vector([only]) - empty) @ WEIGHTS[item])
            assert citation["score_drop"] == pytest.approx(drop, abs=NOISE)
            assert drop > MARGIN - NOISE
            count += 1
    assert count


def test_substitution_replaces_the_event_by_each_frequent_item_that_the_session_lacks(tmp_path: Path) -> None:
    substitutes = ("s001", "s007", "s013")
    settings = {"ablations": ("deletion", "substitution"), "substitutes": substitutes}
    bundle = mean_bundle(tmp_path / "both", **settings)
    by_deletion = mean_bundle(tmp_path / "one", ablations=("deletion",))
    assert names(SessionModel(bundle)) == ("deletion", "substitution")
    places, counts = bundle.catalog.index(substitutes).tolist(), [0, 0]
    for (impression, explanation), (_, weaker) in zip(
        explained(bundle, [3, 5]), explained(by_deletion, [3, 5]), strict=True
    ):
        assert explanation["ablations"] == ["deletion", "substitution"]
        session = bundle.catalog.index([event["item_id"] for event in impression["session"]]).tolist()
        slate = bundle.catalog.index([item["item_id"] for item in impression["items"]])
        for item_id, citation in cited(explanation):
            event = citation["event"]
            others = [[*session[:event], each, *session[event + 1 :]] for each in places if each not in session]
            without = np.mean([vector(each) for each in others], axis=0)
            drops = WEIGHTS[slate] @ (vector(session) - without)
            drop = float(WEIGHTS[int(bundle.catalog.index([item_id])[0])] @ (vector(session) - without))
            assert drop > MARGIN - NOISE
            assert drop - drops.mean() > MARGIN / 4 - NOISE
        counts[0] += len(cited(explanation))
        counts[1] += len(cited(weaker))
    assert 0 < counts[0] < counts[1], "substitution refuses some of what deletion alone confirms"


def test_a_recommender_whose_reranker_does_not_read_the_session_score_has_nothing_to_cite(tmp_path: Path) -> None:
    features = [each for each in FEATURES if each.owner != "session"]
    trees = tiny_reranker([*features, Feature("other", "context", "Something else")])
    bundle = mean_bundle(
        tmp_path, features=[*features, Feature("other", "context", "Something else")], reranker_text=trees
    )
    findings = {each.what: each.says for each in check(bundle.path)}
    assert "does not read the session score" in findings["ablations"]
    for policy, size in (("evidence", 4), ("attention", 2)):
        for _, explanation in explained(bundle, [size], seeds=4, policy=policy):
            assert cited(explanation) == []
            assert "model_mismatch" not in {item["status"] for item in explanation["items"]}


def test_nor_has_one_whose_trees_never_split_on_the_session_score(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((400, len(FEATURES)))
    values[:, [feature.owner == "session" for feature in FEATURES]] = 0
    data = lightgbm.Dataset(values, values[:, 0] + values[:, 1], feature_name=[feature.name for feature in FEATURES])
    trees = lightgbm.train({"verbosity": -1, "num_threads": 1, "num_leaves": 8}, data, num_boost_round=20)
    bundle = mean_bundle(tmp_path, reranker_text=trees.model_to_string())
    assert "no tree reads it" in {each.what: each.says for each in check(bundle.path)}["session score"]
    for _, explanation in explained(bundle, [4], seeds=8):
        assert cited(explanation) == []
        assert "model_mismatch" not in {item["status"] for item in explanation["items"]}


def test_the_policy_attention_is_refused_at_once_for_a_session_model_without(tmp_path: Path) -> None:
    graph = onnx.load_from_string(mean_graph(WEIGHTS, CONSTANT))
    del graph.graph.output[1]
    bundle = mean_bundle(tmp_path, session_onnx=graph.SerializeToString())
    with pytest.raises(ConfigurationError, match="choose the policy evidence"):
        Explainer(bundle, "attention")
    assert any(cited(explanation) for _, explanation in explained(bundle, [4], seeds=4))


def test_an_ablation_that_the_graph_does_not_allow_is_refused_with_a_remedy(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path, ablations=("deletion", "blanking"))
    with pytest.raises(BundleError, match="got blanking: take them out, or export the graph with the blank event"):
        Explainer(bundle)


def test_without_a_title_is_not_said_where_two_items_of_the_session_have_it(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "distinct")
    plain = bundle.catalog
    shared = Catalog(plain.item_ids, ("The Same",) * len(plain), plain.categories, plain.popularity)
    texts = {}
    for name, catalog in (("distinct", plain), ("shared", shared)):
        made = mean_bundle(tmp_path / name, catalog=catalog)
        texts[name] = [item["text"] for _, each in explained(made, [4]) for item in each["items"]]
    assert any("ithout “" in text for text in texts["distinct"])
    assert not any("ithout “" in text for text in texts["shared"])
    assert not any("“The Same” and “The Same”" in text for text in texts["shared"])
