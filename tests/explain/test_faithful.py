"""Every cited event is deleted again here, by independent code, and the citation must hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from models.bundle import Bundle
from stream.explain.pipeline import Explainer
from tests.bundles import tiny_bundle
from tests.explain.judge import Judge
from tests.graphs import reduced

NOISE = 1e-4
RELATIVE = 0.25  # share of the margin that the centred score drop must exceed
SECOND = 0.5  # share of the first citation's drop that the second must have after the first is deleted


@pytest.fixture(scope="module")
def judge(bundle: Bundle) -> Judge:
    return Judge(bundle)


@pytest.fixture(scope="module")
def by_deletion_only(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    """The same weights by another exporter: no masking, no blank event, no KV cache."""
    graph = reduced(bundle.session_onnx.read_bytes())
    return Explainer.load(tiny_bundle(tmp_path_factory.mktemp("plain"), session_onnx=graph))


def margin_of(explainer: Explainer, impression: dict[str, Any], event: int) -> float:
    """Return the score drop that a cited event must exceed, which is larger for older events."""
    manifest, nth_newest = explainer.bundle.manifest, len(impression["session"]) - event
    assert manifest.citation_ageing > 0
    return float(manifest.citation_margin * nth_newest**manifest.citation_ageing)


def citations(
    impressions: list[dict[str, Any]], explanations: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    for impression, explanation in zip(impressions, explanations, strict=True):
        for item in explanation["items"]:
            for citation in item["evidence"]["history"]:
                yield impression, item, citation


@pytest.mark.parametrize("complete", [True, False])
def test_deleting_a_cited_event_lowers_the_item_in_itself_and_in_the_slate(
    complete: bool,
    judge: Judge,
    explainer: Explainer,
    by_deletion_only: Explainer,
    slates: list[dict[str, Any]],
) -> None:
    used = explainer if complete else by_deletion_only
    cited = list(citations(slates, used.explain(slates)))
    assert len(cited) > 20
    for impression, item, citation in cited:
        drop, centred = judge.drop(impression, citation["event"])
        margin = margin_of(used, impression, citation["event"])
        assert drop[item["item_id"]] > margin - NOISE
        assert centred[item["item_id"]] > margin * RELATIVE - NOISE
        assert citation["score_drop"] == pytest.approx(drop[item["item_id"]], abs=NOISE)


def test_what_was_skipped_is_never_a_reason(judge: Judge, explainer: Explainer, slates: list[dict[str, Any]]) -> None:
    tempting = 0
    for impression in slates:
        for event, each in enumerate(impression["session"]):
            if each["engagement"] == "skip":
                drop, centred = judge.drop(impression, event)
                margin = margin_of(explainer, impression, event) + NOISE
                tempting += sum(drop[item] > margin and centred[item] > margin * RELATIVE for item in drop)
    assert tempting > 0
    for impression, _, citation in citations(slates, explainer.explain(slates)):
        assert impression["session"][citation["event"]]["engagement"] != "skip"


def test_an_item_never_stands_higher_without_what_is_cited(
    explainer: Explainer, reference: Explainer, slates: list[dict[str, Any]]
) -> None:
    for _, _, citation in citations(slates, explainer.explain(slates)):
        assert citation["rank_without"] >= citation["rank"]
    # The rule that only looks at attention does name such events, so there was something to refuse.
    assert any(cited["rank_without"] < cited["rank"] for _, _, cited in citations(slates, reference.explain(slates)))


def test_ranks_are_those_of_the_recommender_with_and_without_the_event(
    judge: Judge, explainer: Explainer, slates: list[dict[str, Any]]
) -> None:
    changed = 0
    for impression, item, citation in citations(slates, explainer.explain(slates)):
        assert citation["rank"] == judge.ranks(impression)[item["item_id"]]
        left = judge.without(impression, citation["event"])
        assert citation["rank_without"] == judge.ranks(left)[item["item_id"]]
        changed += citation["rank"] != citation["rank_without"]
    assert changed


def test_the_second_citation_still_does_half_of_what_the_first_did_once_that_is_gone(
    judge: Judge, explainer: Explainer, slates: list[dict[str, Any]]
) -> None:
    margin, pairs = explainer.bundle.manifest.citation_margin, 0

    def least_drop(impression: dict[str, Any], event: int, newer_deleted: int) -> float:
        """Drop by deletion, to be compared with the margin of the newest event."""
        drop, centred = judge.drop(impression, event)
        return min(drop[item["item_id"]], centred[item["item_id"]] / RELATIVE) / (
            margin_of(explainer, impression, event - newer_deleted) / margin
        )

    for impression, explanation in zip(slates, explainer.explain(slates), strict=True):
        for item in explanation["items"]:
            if len(item["evidence"]["history"]) < 2:
                continue
            first, second = (citation["event"] for citation in item["evidence"]["history"])
            left = judge.without(impression, first)
            again = least_drop(left, second - (second > first), newer_deleted=int(second < first))
            assert again > max(margin, SECOND * least_drop(impression, first, newer_deleted=0)) - NOISE
            pairs += 1
    assert pairs


def test_the_sentence_says_that_the_rank_falls_only_where_it_does(
    explainer: Explainer, slates: list[dict[str, Any]]
) -> None:
    said = 0
    for explanation in explainer.explain(slates):
        for item in explanation["items"]:
            falls = any(each["rank_without"] > each["rank"] for each in item["evidence"]["history"])
            if "ithout “" in item["text"]:
                assert falls
                said += 1
    assert said


def test_a_title_is_cited_as_the_event_it_came_from(explainer: Explainer, slates: list[dict[str, Any]]) -> None:
    for impression, item, citation in citations(slates, explainer.explain(slates)):
        assert impression["session"][citation["event"]]["item_id"] == citation["item_id"]
        assert f"“{citation['title']}”" in item["text"]


def test_no_two_citations_name_the_same_title(explainer: Explainer, slates: list[dict[str, Any]]) -> None:
    for explanation in explainer.explain(slates):
        for item in explanation["items"]:
            named = [citation["item_id"] for citation in item["evidence"]["history"]]
            assert len(named) == len(set(named)) <= 2


def test_every_claim_of_the_evidence_policy_carries_its_proof(
    explainer: Explainer, slates: list[dict[str, Any]]
) -> None:
    expected = {"watch_history": "verified", "category_match": "verified", "trending": "factual"}
    seen = set()
    for explanation in explainer.explain(slates):
        for item in explanation["items"]:
            assert item["status"] == expected.get(item["type"], "generic")
            assert (item["type"] == "watch_history") == bool(item["evidence"]["history"])
            seen.add(item["type"])
    assert "watch_history" in seen


def test_the_reference_s_citations_are_measured_too_and_called_verified_only_where_they_hold(
    judge: Judge, reference: Explainer, slates: list[dict[str, Any]]
) -> None:
    statuses = set()
    for impression, explanation in zip(slates, reference.explain(slates), strict=True):
        for item in explanation["items"]:
            holds = []
            for citation in item["evidence"]["history"]:
                drop, centred = judge.drop(impression, citation["event"])
                assert citation["score_drop"] == pytest.approx(drop[item["item_id"]], abs=NOISE)
                lifted = citation["rank_without"] < citation["rank"]
                least = min(drop[item["item_id"]], centred[item["item_id"]] / RELATIVE)
                holds.append(least > margin_of(reference, impression, citation["event"]) and not lifted)
            if item["type"] == "watch_history":
                # By deletion it may hold, and fail all the same by one of the other removals (see tests/evaluation).
                assert item["status"] == "generic" or (item["status"] == "verified" and all(holds))
                statuses.add(item["status"])
    assert "generic" in statuses


def test_a_slate_of_one_has_nothing_to_be_relative_to(explainer: Explainer, slates: list[dict[str, Any]]) -> None:
    alone = slates[0] | {"items": slates[0]["items"][:1]}
    [explanation] = explainer.explain([alone])
    assert explanation["items"][0]["evidence"]["history"] == []
