"""Whatever arrives has one defined outcome, and spoils no other slate of its batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.bundle import Bundle
from models.reranker.features import FEATURES
from schemas.codec import Codec
from schemas.errors import InvalidEvent
from stream.errors import ConfigurationError
from stream.explain.pipeline import Explainer, Rejected
from tests import strategies
from tests.bundles import tiny_bundle, tiny_impression
from tests.explain.conftest import Outcome, gist, run

Record = dict[str, Any]
GENERIC = "Recommended for you."


def changed(impression: Record, change: Callable[[Record], Any]) -> Record:
    record = copy.deepcopy(impression)
    change(record)
    return record


def explained(explainer: Explainer, record: Record) -> Record:
    [outcome] = run(explainer, [record])
    assert isinstance(outcome, Outcome), outcome
    assert [entry["status"] for entry in outcome.audit["entries"]] == [
        item["status"] for item in outcome.explanation["items"]
    ]
    return outcome.explanation


REJECTED: dict[str, Callable[[Record], Any]] = {
    "one user feature too many": lambda r: r["user_features"].append(0.0),
    "no user features": lambda r: r["user_features"].clear(),
    "an item with a feature missing": lambda r: r["items"][1]["item_features"].pop(),
    "an infinite feature": lambda r: r["items"][0]["item_features"].__setitem__(3, math.inf),
    "a score that is no number": lambda r: r["items"][0].update(ranking_score=math.nan),
    "the same item twice": lambda r: r["items"].append(r["items"][0]),
    "a region that leaves its folder": lambda r: r.update(region="../EU"),
    "a locale that is none": lambda r: r.update(locale="de DE"),
    "seconds for milliseconds": lambda r: r.update(timestamp_ms=1_760_000_000),
    "a timestamp of the far future": lambda r: r.update(timestamp_ms=10**14),
    "a request_id that is no UUID": lambda r: r.update(request_id="42"),
    "501 items": lambda r: r.update(items=[r["items"][0] | {"item_id": f"x{k}"} for k in range(501)]),
    "no items at all": lambda r: r.pop("items"),
    "a session of something else": lambda r: r.update(session=[17]),
    "an event without its item": lambda r: r["session"][0].pop("item_id"),
    "a feature in words": lambda r: r["user_features"].__setitem__(0, "many"),
    "a score in words": lambda r: r["items"][0].update(reranking_score="high"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_bad_slate_is_rejected_alone(case: str, explainer: Explainer, slates: list[Record]) -> None:
    bad = changed(slates[0], REJECTED[case])
    first, rejected, last = run(explainer, [slates[0], bad, slates[1]])
    assert isinstance(rejected, Rejected)
    assert rejected.error
    assert isinstance(first, Outcome)
    assert isinstance(last, Outcome)
    assert gist(first.explanation) == gist(explained(explainer, slates[0]))
    assert gist(last.explanation) == gist(explained(explainer, slates[1]))


def test_a_wrong_count_of_features_is_named(explainer: Explainer, slates: list[Record]) -> None:
    [outcome] = run(explainer, [changed(slates[0], REJECTED["one user feature too many"])])
    assert outcome == Rejected(
        "validate",
        "expected 20 user_features of interactions-1, got 21; "
        "send them all in the bundle's order, NaN for a missing one",
    )


def test_explain_raises_for_what_run_rejects(explainer: Explainer, slates: list[Record]) -> None:
    with pytest.raises(InvalidEvent, match=r"impression 1 .*request_id"):
        explainer.explain([slates[0], changed(slates[0], REJECTED["a request_id that is no UUID"])])


def test_impressions_may_hold_tuples_and_numpy_values_and_come_one_by_one(
    explainer: Explainer, slates: list[Record]
) -> None:
    other = copy.deepcopy(slates[0])
    other["timestamp_ms"] = np.int64(other["timestamp_ms"])
    other["user_features"] = np.array(other["user_features"])
    other["items"] = tuple(
        item | {"item_features": tuple(item["item_features"]), "ranking_score": np.float64(item["ranking_score"])}
        for item in other["items"]
    )
    assert list(map(gist, explainer.explain(iter([other])))) == [gist(explained(explainer, slates[0]))]


def test_a_slate_without_items_is_explained_with_none(explainer: Explainer, slates: list[Record]) -> None:
    assert explained(explainer, slates[0] | {"items": []})["items"] == []
    assert [len(each["items"]) for each in explainer.explain([slates[0] | {"items": []}, slates[1]])] == [0, 6]


def test_a_batch_of_nothing_gives_nothing(explainer: Explainer) -> None:
    assert explainer.explain([]) == []


def test_500_items_are_explained(explainer: Explainer, slates: list[Record]) -> None:
    items = [slates[0]["items"][0] | {"item_id": f"x{k}", "position": k + 1} for k in range(500)]
    explanation = explained(explainer, slates[0] | {"items": items})
    assert {item["status"] for item in explanation["items"]} == {"model_mismatch"}
    assert len(explanation["items"]) == 500


def test_an_empty_session_gives_no_claim_about_history(
    explainer: Explainer, reference: Explainer, bundle: Bundle
) -> None:
    record = tiny_impression(bundle, session=0, items=8, seed=3)
    for used in (explainer, reference):
        for item in explained(used, record)["items"]:
            assert item["type"] in {"trending", "personalized"}
            assert item["status"] != "model_mismatch"
            assert item["evidence"]["history"] == []
            assert item["evidence"]["category_match"] is None


def test_missing_features_are_explained(explainer: Explainer, bundle: Bundle) -> None:
    record = tiny_impression(bundle, seed=9)
    assert any(math.isnan(value) for item in record["items"] for value in item["item_features"])
    assert {item["status"] for item in explained(explainer, record)["items"]} - {"model_mismatch"}


def test_an_unknown_item_is_a_mismatch_and_leaves_the_others_be(explainer: Explainer, slates: list[Record]) -> None:
    record = changed(slates[0], lambda r: r["items"][2].update(item_id="unknown"))
    items = explained(explainer, record)["items"]
    assert (items[2]["status"], items[2]["type"], items[2]["text"]) == ("model_mismatch", "personalized", GENERIC)
    assert items[2]["evidence"] == {
        "history": [], "features": [], "personal_share": None, "category_match": None, "residual": None, "basis": None
    }  # fmt: skip
    assert all(item["status"] != "model_mismatch" for place, item in enumerate(items) if place != 2)
    assert not any("Without" in item["text"] for item in items), "a rank needs every score of the slate"


@pytest.mark.parametrize("field", ["ranking_score", "reranking_score"])
def test_a_score_that_our_models_do_not_give_is_a_mismatch(
    field: str, explainer: Explainer, slates: list[Record]
) -> None:
    record = changed(slates[0], lambda r: r["items"][0].update({field: r["items"][0][field] + 0.01}))
    statuses = [item["status"] for item in explained(explainer, record)["items"]]
    assert statuses[0] == "model_mismatch"
    assert "model_mismatch" not in statuses[1:]


def test_a_score_within_the_tolerance_is_none(explainer: Explainer, slates: list[Record]) -> None:
    record = changed(slates[0], lambda r: r["items"][0].update(reranking_score=r["items"][0]["reranking_score"] + 5e-4))
    assert explained(explainer, record)["items"][0]["status"] != "model_mismatch"


@pytest.mark.parametrize("change", [{"model_version": "tiny@2"}, {"feature_set": "other", "user_features": [1.0]}])
def test_another_model_or_feature_set_is_never_explained_with_ours(
    change: Record, explainer: Explainer, slates: list[Record]
) -> None:
    foreign, ours = explainer.explain([slates[0] | change, slates[0]])
    for item in foreign["items"]:
        assert (item["status"], item["type"], item["text"]) == ("model_mismatch", "personalized", GENERIC)
        assert item["evidence"]["features"] == item["evidence"]["history"] == []
    assert foreign["model_version"] == "tiny@1"
    assert gist(ours) == gist(explained(explainer, slates[0]))


def test_events_of_unknown_items_are_left_out_and_the_others_keep_their_index(
    explainer: Explainer, slates: list[Record]
) -> None:
    unknown = {"item_id": "unknown", "engagement": "view", "timestamp_ms": slates[0]["timestamp_ms"]}
    before = explained(explainer, slates[0])["items"]
    after = explained(explainer, changed(slates[0], lambda r: r["session"].insert(2, unknown)))["items"]
    moved = [[(each["event"], each["title"]) for each in item["evidence"]["history"]] for item in after]
    assert any(moved)
    assert moved == [
        [(each["event"] + (each["event"] >= 2), each["title"]) for each in item["evidence"]["history"]]
        for item in before
    ]


def test_of_a_long_session_the_newest_events_are_read(explainer: Explainer, slates: list[Record]) -> None:
    [full] = [slate for slate in slates if len(slate["session"]) == 50]
    older = changed(full, lambda r: r.update(session=full["session"][:37] + full["session"]))
    before, after = explained(explainer, full)["items"], explained(explainer, older)["items"]
    assert [item["text"] for item in before] == [item["text"] for item in after]
    events = [each["event"] for item in after for each in item["evidence"]["history"]]
    assert events == [each["event"] + 37 for item in before for each in item["evidence"]["history"]]
    assert min(events) >= 37


def test_the_same_request_twice_is_explained_twice(explainer: Explainer, slates: list[Record]) -> None:
    one, two = explainer.explain([slates[0], slates[0]])
    assert gist(one) == gist(two)


def test_a_bundle_without_features_of_user_and_item_explains(tmp_path: Path) -> None:
    score_alone = [feature for feature in FEATURES if feature.owner == "session"]
    explainer = Explainer.load(tiny_bundle(tmp_path, features=score_alone))
    record = tiny_impression(explainer.bundle, seed=2)
    assert record["user_features"] == record["items"][0]["item_features"] == []
    assert {item["status"] for item in explained(explainer, record)["items"]} - {"model_mismatch"}


def test_an_unknown_policy_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigurationError, match="evidence, attention, learned, got 'guess'"):
        Explainer(bundle, "guess")


POOL = 40
LENT = st.sets(st.sampled_from(["session", "user_features", "items", "region", "model_version", "feature_set"]))
BATCHES = st.lists(st.tuples(st.none() | st.integers(0, POOL - 1), strategies.impressions, LENT), max_size=4)
"""Each slate: one of the pool's with some parts lent by another impression, or that other one as it is."""


@pytest.fixture(scope="module")
def pool(bundle: Bundle) -> list[Record]:
    locales = ["en-US", "de-CH", "fr", "zh-Hant-TW", "xx"]
    return [
        tiny_impression(bundle, session=seed % 13, items=seed % 7, seed=seed, locale=locales[seed % len(locales)])
        for seed in range(POOL)
    ]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=BATCHES)
def test_any_batch_has_one_outcome_each_and_what_is_explained_can_be_sent(
    drawn: list[tuple[int | None, Record, set[str]]], explainer: Explainer, reference: Explainer, pool: list[Record]
) -> None:
    batch = [
        lender if own is None else pool[own] | {field: lender[field] for field in lent} for own, lender, lent in drawn
    ]
    codec = Codec()
    for used in (explainer, reference):
        outcomes = run(used, batch)
        assert len(outcomes) == len(batch)
        for impression, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                assert outcome.stage in {"decode", "validate"}
                continue
            assert outcome.explanation["request_id"] == impression["request_id"]
            assert [(item["item_id"], item["position"]) for item in outcome.explanation["items"]] == [
                (item["item_id"], item["position"]) for item in impression["items"]
            ]
            assert all(item["text"] for item in outcome.explanation["items"])
            codec.encode("explanation", outcome.explanation, "explanations")
            codec.encode("audit", outcome.audit, "audit")


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(
    max_examples=150,
    deadline=None,
)
@given(part=st.sampled_from(["", "session", "items"]), field=st.integers(0, 20), value=JSONISH)
def test_nothing_that_a_caller_passes_makes_it_raise(
    part: str, field: int, value: Any, explainer: Explainer, slates: list[Record]
) -> None:
    record = copy.deepcopy(slates[1])
    target = record[part][0] if part else record
    target[sorted(target)[field % len(target)]] = value
    [outcome] = run(explainer, [record])
    assert isinstance(outcome, Outcome | Rejected)
