"""What is sent and what is archived, and that both tell the same story."""

from __future__ import annotations

import dataclasses
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from models.attribution.treeshap import TreeShap
from models.bundle import Bundle
from models.reranker.features import FEATURES
from models.reranker.runtime import Reranker
from schemas.errors import InvalidEvent
from stream.explain.pipeline import Explainer
from tests.bundles import tiny_bundle, tiny_impression
from tests.explain.conftest import Outcome, gist, run


@pytest.fixture(scope="module", params=["evidence", "attention"])
def used(request: pytest.FixtureRequest, explainer: Explainer, reference: Explainer) -> Explainer:
    return explainer if request.param == "evidence" else reference


@pytest.fixture(scope="module")
def outcomes(used: Explainer, slates: list[dict[str, Any]]) -> list[Outcome]:
    outcomes = run(used, slates)
    assert all(isinstance(outcome, Outcome) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Outcome)]


def test_a_slate_is_explained_alike_alone_and_in_any_batch(used: Explainer, slates: list[dict[str, Any]]) -> None:
    together = [gist(explanation) for explanation in used.explain(slates)]
    assert together == [gist(used.explain([slate])[0]) for slate in slates]
    assert together == [gist(explanation) for explanation in used.explain(slates[::-1])][::-1]


def test_an_explanation_carries_what_the_page_needs_to_place_it(
    used: Explainer, outcomes: list[Outcome], slates: list[dict[str, Any]]
) -> None:
    for slate, outcome in zip(slates, outcomes, strict=True):
        explanation = outcome.explanation
        for field in ("request_id", "timestamp_ms", "user_id_hash", "region", "locale"):
            assert explanation[field] == slate[field]
        assert (explanation["policy"], explanation["model_version"]) == (used.policy, used.bundle.model_version)


def test_the_audit_tells_what_the_explanation_told(outcomes: list[Outcome], slates: list[dict[str, Any]]) -> None:
    for slate, outcome in zip(slates, outcomes, strict=True):
        audit = outcome.audit
        assert audit["request_id"].hex() == slate["request_id"].replace("-", "")
        assert audit["user_id_hash"].hex() == slate["user_id_hash"]
        assert audit["history"] == [event["item_id"] for event in slate["session"]]
        assert audit["computation_time_ms"] > 0
        for entry, item, sent in zip(audit["entries"], outcome.explanation["items"], slate["items"], strict=True):
            assert entry["explanation_text_hash"] == sha256(item["text"].encode()).digest()[:8]
            assert (entry["explanation_type"], entry["status"]) == (item["type"], item["status"])
            assert (entry["ranking_score"], entry["reranking_score"]) == (
                sent["ranking_score"],
                sent["reranking_score"],
            )
            assert entry["cited"] == [citation["event"] for citation in item["evidence"]["history"]]
            assert [each["feature"] for each in entry["shap_top_3"]] == [
                each["name"] for each in item["evidence"]["features"][:3]
            ]
            weights = [each["weight"] for each in entry["attention_top_2"]]
            assert weights == sorted(weights, reverse=True)
            assert len(weights) == min(2, len(slate["session"]))


def test_the_five_largest_contributions_are_told_with_their_sign(
    bundle: Bundle, outcomes: list[Outcome], slates: list[dict[str, Any]]
) -> None:
    treeshap = TreeShap(Reranker.load(bundle).booster)
    display = {feature.name: feature.display_name for feature in bundle.features}
    for slate, outcome in zip(slates, outcomes, strict=True):
        rows = [[*slate["user_features"], *item["item_features"], item["ranking_score"]] for item in slate["items"]]
        for shap, item in zip(treeshap.contributions(np.array(rows)), outcome.explanation["items"], strict=True):
            told = item["evidence"]["features"]
            largest = sorted(shap[:-1], key=abs, reverse=True)[:5]
            assert [each["contribution"] for each in told] == pytest.approx(largest)
            assert all(each["display_name"] == display[each["name"]] for each in told)


def test_a_german_slate_is_explained_in_german(explainer: Explainer, bundle: Bundle) -> None:
    record = tiny_impression(bundle, session=20, items=10, seed=2, locale="de-AT")
    texts = [item["text"] for item in explainer.explain([record])[0]["items"]]
    assert any(text.startswith("Weil du „") for text in texts)
    assert not any("Because" in text for text in texts)


def test_where_the_slate_is_not_shown_by_score_the_words_say_so(
    explainer: Explainer, slates: list[dict[str, Any]]
) -> None:
    said = 0
    for slate in slates:
        last = len(slate["items"]) + 1
        turned = slate | {"items": [item | {"position": last - item["position"]} for item in slate["items"]]}
        for item in explainer.explain([turned])[0]["items"]:
            assert ("ithout “" in item["text"]) == ("by score" in item["text"])
            said += "by score" in item["text"]
    assert said


def test_the_stages_are_observed_in_order(bundle: Bundle, slates: list[dict[str, Any]]) -> None:
    seen: list[str] = []
    Explainer(bundle, observe=lambda name, _: seen.append(name), clock=lambda: 1.8e9).explain(slates[:1])
    assert seen == ["decode", "score", "attribute", "ablate", "select", "word", "detail", "encode"]


def test_the_time_is_that_of_the_clock(bundle: Bundle, slates: list[dict[str, Any]]) -> None:
    [explanation] = Explainer(bundle, clock=lambda: 1_800_000_000.5).explain(slates[:1])
    assert explanation["produced_at_ms"] == 1_800_000_000_500
    with pytest.raises(InvalidEvent, match="ahead of the clock"):
        Explainer(bundle, clock=lambda: 1e9).explain(slates[:1])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Explainer, set[str]]:
    """An explainer of a bundle in which every feature of the user is sensitive, and the names of these features."""
    features = [dataclasses.replace(feature, is_sensitive=feature.owner == "user") for feature in FEATURES]
    directory = tiny_bundle(tmp_path_factory.mktemp("guarded"), features=features)
    return Explainer.load(directory), {feature.name for feature in features if feature.is_sensitive}


def test_neither_page_nor_archive_names_a_sensitive_feature(
    guarded: tuple[Explainer, set[str]], explainer: Explainer, slates: list[dict[str, Any]]
) -> None:
    names = guarded[1]
    for outcome in run(guarded[0], slates):
        assert isinstance(outcome, Outcome)
        shown = {each["name"] for item in outcome.explanation["items"] for each in item["evidence"]["features"]}
        archived = {each["feature"] for entry in outcome.audit["entries"] for each in entry["shap_top_3"]}
        assert shown
        assert not (shown | archived) & names
    plain = [item for explanation in explainer.explain(slates) for item in explanation["items"]]
    assert any(each["name"] in names for item in plain for each in item["evidence"]["features"])


def test_what_a_sensitive_feature_contributes_is_none_of_the_own_habits(
    guarded: tuple[Explainer, set[str]], explainer: Explainer, slates: list[dict[str, Any]]
) -> None:
    shares = [
        [item["evidence"]["personal_share"] for explanation in used.explain(slates) for item in explanation["items"]]
        for used in (guarded[0], explainer)
    ]
    assert all(less <= more for less, more in zip(*shares, strict=True))
    assert any(less < more for less, more in zip(*shares, strict=True))
