"""The ledger adds up, and what it advises works: both checked again here, by other code."""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from models.bundle import Bundle
from models.reranker.features import FEATURES
from schemas.codec import Codec
from stream.explain import basis
from stream.explain.pipeline import Explainer
from stream.explain.wording import LOCALES, wording_for
from stream.explain.wording.lengths import TEXT_COLUMNS, columns
from stream.terminal.panel import panel
from tests.bundles import tiny_bundle, tiny_catalog, tiny_impression
from tests.explain.judge import Judge

Record = dict[str, Any]
NOISE = 1e-4


@pytest.fixture(scope="module")
def judge(bundle: Bundle) -> Judge:
    return Judge(bundle)


@pytest.fixture(scope="module")
def asking(slates: list[Record]) -> list[Record]:
    return [slate | {"detail": True} for slate in slates]


@pytest.fixture(scope="module")
def explained(explainer: Explainer, asking: list[Record]) -> list[Record]:
    return explainer.explain(asking)


def items(impressions: list[Record], explanations: list[Record]) -> Iterator[tuple[Record, Record, Record]]:
    """Each item's impression, what was sent of it, and what was said of it."""
    for impression, explanation in zip(impressions, explanations, strict=True):
        for sent, told in zip(impression["items"], explanation["items"], strict=True):
            yield impression, sent, told


def test_the_features_add_up_to_the_raw_score_and_the_events_to_the_session_score(
    judge: Judge, asking: list[Record], explained: list[Record]
) -> None:
    for impression, sent, told in items(asking, explained):
        detail = told["detail"]
        row = np.array([[*impression["user_features"], *sent["item_features"], sent["ranking_score"]]])
        assert detail["raw_score"] == pytest.approx(judge.reranker.raw(row)[0])
        told_of = detail["base_value"] + sum(each["contribution"] for each in detail["features"])
        assert told_of - detail["raw_score"] == pytest.approx(detail["residual"], abs=1e-12)
        assert abs(detail["residual"]) < 1e-5
        np.testing.assert_array_equal([each["value"] for each in detail["features"]], row[0])
        effects = sum(each["effect"] for each in detail["events"])
        assert effects + detail["events_together"] == pytest.approx(detail["session_score"], abs=1e-12)
        assert detail["features"][-1]["name"] == "session_score"
        assert detail["session_score"] == pytest.approx(detail["features"][-1]["value"], abs=1e-3)


def test_the_effect_of_an_event_is_what_deleting_it_does(
    judge: Judge, asking: list[Record], explained: list[Record]
) -> None:
    for impression, explanation in zip(asking[:4], explained, strict=False):
        for event in range(len(impression["session"])):
            drop, _ = judge.drop(impression, event)
            for told in explanation["items"]:
                assert told["detail"]["events"][event]["effect"] == pytest.approx(drop[told["item_id"]], abs=NOISE)


def test_the_effect_of_a_cited_event_is_its_score_drop(asking: list[Record], explained: list[Record]) -> None:
    cited = 0
    for _, _, told in items(asking, explained):
        for citation in told["evidence"]["history"]:
            assert told["detail"]["events"][citation["event"]]["effect"] == citation["score_drop"]
            cited += 1
    assert cited > 20


def test_a_title_taken_out_alone_leaves_the_rank_that_its_citation_states(
    asking: list[Record], explained: list[Record]
) -> None:
    both = 0
    for _, told, recourse in advised(asking, explained):
        for citation in told["evidence"]["history"]:
            if recourse["events"] == [citation["event"]]:
                assert recourse["rank_without"] == citation["rank_without"]
                both += 1
    assert both


def test_the_events_are_those_of_the_session_with_their_age_and_likeness(
    bundle: Bundle, asking: list[Record], explained: list[Record]
) -> None:
    for impression, sent, told in items(asking, explained):
        target = bundle.item_vectors[bundle.catalog.index([sent["item_id"]])[0]]
        assert len(told["detail"]["events"]) == len(impression["session"])
        for number, (event, line) in enumerate(zip(impression["session"], told["detail"]["events"], strict=True)):
            vector = bundle.item_vectors[bundle.catalog.index([event["item_id"]])[0]]
            cosine = vector @ target / np.linalg.norm(vector) / np.linalg.norm(target)
            assert (line["event"], line["item_id"]) == (number, event["item_id"])
            assert line["engagement"] == event["engagement"]
            assert line["age_s"] == (impression["timestamp_ms"] - event["timestamp_ms"]) // 1000
            assert line["similarity"] == pytest.approx(float(cosine), abs=1e-6)


def test_an_event_that_the_model_does_not_know_is_told_without_an_effect(
    explainer: Explainer, asking: list[Record]
) -> None:
    record = copy.deepcopy(asking[0])
    record["session"].insert(0, {"item_id": "elsewhere", "engagement": "view", "timestamp_ms": 1})
    [explanation] = explainer.explain([record])
    first = explanation["items"][0]["detail"]["events"][0]
    assert (first["title"], first["similarity"], first["attention"], first["effect"]) == ("elsewhere", None, 0.0, 0.0)


def test_detail_is_for_slates_that_ask_and_items_that_match(
    explainer: Explainer, slates: list[Record], asking: list[Record]
) -> None:
    other = copy.deepcopy(asking[2])
    other["items"][1]["ranking_score"] += 1
    plain, asked = explainer.explain([slates[1], other])
    assert all(told["detail"] is None for told in plain["items"])
    assert [told["detail"] is None for told in asked["items"]] == [place == 1 for place in range(len(asked["items"]))]


def test_detail_changes_nothing_else(explainer: Explainer, slates: list[Record], explained: list[Record]) -> None:
    for plain, asked in zip(explainer.explain(slates), explained, strict=True):
        for one, other in zip(plain["items"], asked["items"], strict=True):
            assert [one[name] for name in ("text", "type", "status", "basis_text")] == [
                other[name] for name in ("text", "type", "status", "basis_text")
            ]


def test_detail_travels(explained: list[Record]) -> None:
    codec = Codec()
    encoded = codec.encode("explanation", explained[0], "explanations")
    told = codec.decode("explanation", encoded.value, encoded.headers)["items"][0]["detail"]
    sent = explained[0]["items"][0]["detail"]
    assert told["recourse"] == sent["recourse"]
    assert told["events"] == sent["events"]


class Shop:
    """The first stage again, in plain lists: what is best by session score of all that is not in the history."""

    def __init__(self, judge: Judge, impression: Record) -> None:
        self.judge, self.impression = judge, impression
        self.shown = [item["item_id"] for item in impression["items"]]
        self.depth = max(self.places(()).values())

    def left(self, titles: tuple[str, ...]) -> Record:
        kept = [event for event in self.impression["session"] if event["item_id"] not in titles]
        return self.impression | {"session": kept}

    def places(self, titles: tuple[str, ...]) -> dict[str, int]:
        left, bundle = self.left(titles), self.judge.bundle
        seen = {event["item_id"] for event in left["session"]} - set(self.shown)
        open_ids = [item_id for item_id in bundle.catalog.item_ids if item_id not in seen]
        everything = left | {"items": [{"item_id": item_id} for item_id in open_ids]}
        score = dict(zip(open_ids, self.judge.ranking(everything).tolist(), strict=True))
        return {item_id: 1 + sum(other > score[item_id] for other in score.values()) for item_id in self.shown}

    def titles(self) -> list[str]:
        watched = [event["item_id"] for event in self.impression["session"] if event["engagement"] != "skip"]
        return list(dict.fromkeys(watched))


def advised(impressions: list[Record], explanations: list[Record]) -> Iterator[tuple[Record, Record, Record]]:
    for impression, _, told in items(impressions, explanations):
        if told["detail"]["recourse"] is not None:
            yield impression, told, told["detail"]["recourse"]


def test_without_the_titles_named_the_item_is_off_the_slate(
    judge: Judge, asking: list[Record], explained: list[Record]
) -> None:
    sizes = set()
    for impression, told, recourse in advised(asking, explained):
        if recourse["kind"] == "history":
            shop, titles = Shop(judge, impression), tuple(recourse["item_ids"])
            assert shop.places(titles)[told["item_id"]] > shop.depth
            events = [place for place, each in enumerate(impression["session"]) if each["item_id"] in titles]
            assert recourse["events"] == events
            assert recourse["rank"] == judge.ranks(impression)[told["item_id"]]
            assert recourse["rank_without"] == judge.ranks(shop.left(titles))[told["item_id"]]
            assert recourse["rank_without"] >= recourse["rank"]
            assert recourse["off_slate"]
            sizes.add(len(titles))
    assert sizes
    assert sizes <= {1, 2, 3}


def test_in_a_short_history_no_smaller_set_does_it(judge: Judge, explainer: Explainer, bundle: Bundle) -> None:
    found = 0
    short = [tiny_impression(bundle, session=6, items=12, seed=seed) | {"detail": True} for seed in range(30, 34)]
    for impression, explanation in zip(short, explainer.explain(short), strict=True):
        shop = Shop(judge, impression)
        for told in explanation["items"]:
            recourse, name = told["detail"]["recourse"], told["item_id"]
            size = len(recourse["item_ids"]) if recourse and recourse["kind"] == "history" else 4
            smaller = [titles for count in range(1, size) for titles in combinations(shop.titles(), count)]
            rank = judge.ranks(impression)[name]
            for titles in smaller:
                lifted = judge.ranks(shop.left(titles))[name] < rank
                assert shop.places(titles)[name] <= shop.depth or lifted
            found += size < 4
    assert found


def test_without_a_history_a_habit_is_named_that_lowers_the_rank(
    judge: Judge, explainer: Explainer, bundle: Bundle
) -> None:
    able = [place for place, feature in enumerate(bundle.features) if feature.is_actionable]
    users = len(bundle.owned("user"))
    empty = [tiny_impression(bundle, session=0, items=10, seed=seed) | {"detail": True} for seed in range(12)]
    found = 0
    for impression, told, recourse in advised(empty, explainer.explain(empty)):
        assert (recourse["kind"], recourse["events"], recourse["off_slate"]) == ("feature", [], False)
        assert recourse["feature"] in {bundle.features[place].name for place in able}
        other = copy.deepcopy(impression)
        features = next(each for each in other["items"] if each["item_id"] == told["item_id"])["item_features"]
        for place in able:
            features[place - users] = 0.0
        assert recourse["rank"] == judge.ranks(impression)[told["item_id"]]
        assert recourse["rank_without"] == judge.ranks(other)[told["item_id"]] > recourse["rank"]
        assert recourse["text"].startswith("To see less like this, watch less in “")
        found += 1
    assert found


def test_a_habit_that_is_not_one_of_categories_gets_no_advice(tmp_path: Path) -> None:
    at_night = [dataclasses.replace(each, is_category=False) for each in FEATURES]
    explainer = Explainer.load(tiny_bundle(tmp_path, features=at_night))
    empty = [tiny_impression(explainer.bundle, session=0, items=10, seed=seed) | {"detail": True} for seed in range(12)]
    assert not list(advised(empty, explainer.explain(empty)))


def test_a_sensitive_feature_is_named_in_no_sentence_and_on_no_terminal(
    tmp_path: Path, bundle: Bundle, slates: list[Record]
) -> None:
    hidden = [dataclasses.replace(each, is_sensitive=each.is_category) for each in FEATURES]
    explainer = Explainer.load(tiny_bundle(tmp_path, features=hidden))
    empty = [tiny_impression(bundle, session=0, items=10, seed=seed) for seed in range(3)]
    explanations = explainer.explain([slate | {"detail": True} for slate in [*slates, *empty]])
    names = [each.display_name for each in hidden if each.is_sensitive]
    console = Console(width=300, file=io.StringIO(), record=True)
    for told in (told for explanation in explanations for told in explanation["items"]):
        assert told["type"] != "category_match"
        recourse = told["detail"]["recourse"]
        assert recourse is None or recourse["kind"] == "history"
        flags = {each["name"]: each["sensitive"] for each in told["detail"]["features"]}
        assert flags == {each.name: each.is_sensitive for each in hidden}
    for explanation in explanations:
        console.print(panel(explanation, explainer.bundle))  # type: ignore[arg-type]
    printed = console.export_text()
    assert "What the score is made of" in printed
    assert not [name for name in names if name in printed]


@pytest.mark.parametrize(
    ("share", "step"),
    [(1.0, "personal"), (0.8, "personal"), (0.79, "mixed"), (0.67, "mixed"), (0.66, "popular"), (0.0, "popular"),
     (float("nan"), None)],
)  # fmt: skip
def test_the_share_has_three_steps(share: float, step: Any) -> None:
    assert basis.steps(np.array([share], dtype=np.float32)) == [step]
    for locale in LOCALES:
        assert bool(basis.sentence(step, wording_for(locale))) == (step is not None)


def test_the_basis_is_that_of_the_share_and_is_silent_where_scores_do_not_match(
    explainer: Explainer, slates: list[Record]
) -> None:
    other = copy.deepcopy(slates[0])
    other["items"][0]["reranking_score"] += 1
    for _, _, told in items([*slates, other], explainer.explain([*slates, other])):
        share = told["evidence"]["personal_share"]
        assert told["evidence"]["basis"] == (None if share is None else basis.steps(np.array([share], np.float32))[0])
        assert bool(told["basis_text"]) == (share is not None)


@given(order=st.randoms(use_true_random=False), seed=st.integers(0, 7))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_cause_has_the_same_words_in_whatever_order_a_slate_is_sent(
    explainer: Explainer, slates: list[Record], order: Any, seed: int
) -> None:
    slate = slates[seed]
    turned = slate | {"items": order.sample(slate["items"], len(slate["items"]))}
    one, other = explainer.explain([slate, turned])
    said = {told["item_id"]: (told["text"], told["basis_text"]) for told in one["items"]}
    assert said == {told["item_id"]: (told["text"], told["basis_text"]) for told in other["items"]}


@pytest.mark.parametrize("locale", LOCALES)
def test_no_text_is_longer_than_the_page_allows_for_whatever_the_titles(
    tmp_path_factory: pytest.TempPathFactory, locale: str
) -> None:
    catalog = tiny_catalog()
    wide = dataclasses.replace(
        catalog,
        titles=tuple(f"{title} {'千と千尋の' * 20}" for title in catalog.titles),
        categories=tuple(f"{name} {'and more ' * 20}" for name in catalog.categories),
    )
    explainer = Explainer.load(tiny_bundle(tmp_path_factory.mktemp(locale), catalog=wide))
    records = [
        tiny_impression(explainer.bundle, session=session, items=10, seed=seed, locale=locale) | {"detail": True}
        for seed, session in enumerate((0, 6, 12))
    ]
    texts = []
    for explanation in explainer.explain(records):
        for told in explanation["items"]:
            recourse = told["detail"]["recourse"]
            texts += [told["text"], told["basis_text"], recourse["text"] if recourse else ""]
    assert 100 < max(map(columns, texts)) <= TEXT_COLUMNS
