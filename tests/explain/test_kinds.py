"""What every kind of explanation must keep, and when each is chosen."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from models.attribution.treeshap import TreeShap
from models.bundle import Bundle
from models.reranker.runtime import Reranker
from schemas.events import EXPLANATION_TYPES
from stream.explain.ablate import ablate
from stream.explain.attribute import attribute
from stream.explain.decode import decode_records
from stream.explain.findings import Findings
from stream.explain.kinds import KINDS, POLICIES
from stream.explain.models import Models
from stream.explain.pipeline import Explainer
from stream.explain.policy import Policy
from stream.explain.score import score
from stream.explain.select import select
from stream.explain.wording import LOCALES, wording_for
from tests.bundles import tiny_bundle, tiny_impression


def investigate(models: Models, impressions: list[Any], policy: str) -> Findings:
    slates = decode_records(impressions, models.bundle)
    scores = score(slates, models)
    citations = ablate(policy, slates, scores, models)
    return Findings(models.bundle, slates, scores, attribute(slates, scores, models), citations)


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> Models:
    return Models.open(bundle)


@pytest.fixture(scope="module")
def many(bundle: Bundle) -> list[Any]:
    return [tiny_impression(bundle, session=2 + seed % 9, items=10, seed=seed) for seed in range(20)]


@pytest.fixture(scope="module", params=POLICIES)
def findings(request: pytest.FixtureRequest, models: Models, many: list[Any]) -> Findings:
    return investigate(models, many, request.param)


@pytest.mark.parametrize("name", KINDS)
class TestEveryKind:
    def test_is_a_type_of_the_schema_with_a_rule_per_policy(self, name: Any) -> None:
        assert KINDS[name].name == name
        assert name in EXPLANATION_TYPES
        assert set(KINDS[name].rules) == set(POLICIES)

    def test_answers_for_every_item(self, name: Any, findings: Findings) -> None:
        for rule in (KINDS[name].holds, *KINDS[name].rules.values()):
            admitted = rule(findings)
            assert admitted.dtype == np.bool_
            assert admitted.shape == findings.slates.item.shape

    def test_is_claimed_by_the_evidence_policy_only_where_it_holds(self, name: Any, findings: Findings) -> None:
        claimed = KINDS[name].rules["evidence"](findings)
        assert not (claimed & ~KINDS[name].holds(findings)).any()

    @pytest.mark.parametrize("locale", LOCALES)
    def test_has_the_same_words_for_the_same_cause_in_every_language(
        self, name: Any, locale: str, findings: Findings
    ) -> None:
        rows = np.flatnonzero(KINDS[name].holds(findings) & findings.scores.matches)
        assert len(rows)
        words = [wording_for(locale)] * len(rows)
        texts = KINDS[name].sentences(findings, rows, words)
        assert texts == [KINDS[name].sentences(findings, rows[i : i + 1], words[:1])[0] for i in range(len(rows))]
        for text in texts:
            assert text.endswith((".", "。"))
            assert not set("{}") & set(text)


def test_every_type_of_the_schema_is_a_kind() -> None:
    assert tuple(KINDS) == EXPLANATION_TYPES, "a kind is written by its place"


def test_the_last_kind_fits_every_item(findings: Findings) -> None:
    last = list(KINDS.values())[-1]
    assert last.status == "generic"
    assert all(rule(findings).all() for rule in last.rules.values())


@pytest.mark.parametrize("policy", POLICIES)
def test_the_first_kind_whose_claim_is_made_is_chosen(policy: str, models: Models, many: list[Any]) -> None:
    findings = investigate(models, many, policy)
    chosen = select(findings, Policy(policy, policy)).kind
    assert len(set(chosen.tolist())) >= 3
    assert len(set(chosen.tolist())) >= 3
    for row, number in enumerate(chosen.tolist()):
        admitted = [kind for kind in KINDS if KINDS[kind].rules[policy](findings)[row]]
        assert EXPLANATION_TYPES[number] == admitted[0]


def test_evidence_claims_a_category_only_if_it_pushes_up_and_was_watched(models: Models, many: list[Any]) -> None:
    findings = investigate(models, many, "evidence")
    category = {feature.name for feature in models.bundle.features if feature.is_category}
    names = [feature.name for feature in models.bundle.features]
    claimed = KINDS["category_match"].holds(findings)
    assert claimed.any()
    for row in range(len(claimed)):
        largest = np.argsort(-np.abs(findings.signals.contribution[row]))[:3]
        up = any(names[k] in category and findings.signals.contribution[row, k] > 0 for k in largest)
        impression = many[findings.slates.slate[row]]
        code = models.bundle.catalog.category_codes
        own = code[findings.slates.item[row]]
        watched = [
            event
            for event in impression["session"]
            if code[models.bundle.catalog.index([event["item_id"]])[0]] == own and event["engagement"] != "skip"
        ]
        assert claimed[row] == (up and bool(watched))


def test_a_title_that_was_watched_twice_is_counted_once(models: Models, bundle: Bundle) -> None:
    impression = tiny_impression(bundle, session=6, items=10, seed=3)
    again = [event | {"engagement": "view"} for event in impression["session"] for _ in range(2)]
    findings = investigate(models, [impression | {"session": again}], "evidence")
    catalog = bundle.catalog
    codes = catalog.category_codes
    for row, item in enumerate(impression["items"]):
        own = codes[catalog.index([item["item_id"]])[0]]
        watched = {event["item_id"] for event in again if codes[catalog.index([event["item_id"]])[0]] == own}
        assert findings.signals.category_titles[row] == len(watched)
    assert findings.signals.category_titles.any()


def test_the_reference_claims_a_category_whichever_way_it_pushes(models: Models, many: list[Any]) -> None:
    findings = investigate(models, many, "attention")
    category = np.array([feature.is_category for feature in models.bundle.features])
    largest = np.argsort(-np.abs(findings.signals.contribution), axis=1)[:, :3]
    expected = category[largest].any(axis=1) & (findings.signals.category_match > 0.6)
    np.testing.assert_array_equal(KINDS["category_match"].rules["attention"](findings), expected)
    assert expected.any()


def test_the_reference_cites_the_two_of_most_attention_above_one_half(models: Models, many: list[Any]) -> None:
    findings = investigate(models, many, "attention")
    cited = 0
    for row, slate in enumerate(findings.slates.slate.tolist()):
        attention = findings.scores.reading.attention[slate]
        top = np.argsort(-attention)[: min(2, findings.slates.histories.length[slate])].tolist()
        named = [column for column in findings.citations.column[row].tolist() if column >= 0]
        assert named == (top if attention[top].sum() > 0.5 else [])
        cited += bool(named)
    assert 0 < cited < len(findings.slates.slate)


def test_trending_is_said_above_the_95th_percentile_of_trend_or_popularity(models: Models, many: list[Any]) -> None:
    findings = investigate(models, many, "evidence")
    trend = [feature.name for feature in models.bundle.owned("item")].index("trend_percentile")
    catalog = models.bundle.catalog
    items = [item for impression in many for item in impression["items"]]
    expected = [
        item["item_features"][trend] > 95 or catalog.popularity[catalog.index([item["item_id"]])[0]] > 95
        for item in items
    ]
    assert KINDS["trending"].holds(findings).tolist() == expected
    assert any(expected)


def test_contributions_that_do_not_add_up_are_not_spoken_of(
    models: Models, many: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Bundle.load(tiny_bundle(tmp_path_factory.mktemp("other"), seed=1))
    wrong = dataclasses.replace(models, treeshap=TreeShap(Reranker.load(other).booster))
    findings = investigate(wrong, many, "evidence")
    assert not findings.signals.sound.any()
    assert np.abs(findings.signals.residual).max() > 1e-3
    for name in POLICIES:
        assert EXPLANATION_TYPES.index("category_match") not in select(findings, Policy(name, name)).kind


def test_contributions_and_base_add_up_to_the_raw_score(models: Models, many: list[Any]) -> None:
    findings = investigate(models, many, "evidence")
    assert findings.signals.sound.all()
    assert np.abs(findings.signals.residual).max() < 1e-5


def test_a_probability_is_explained_like_a_raw_score(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tiny_bundle(tmp_path_factory.mktemp("probability"), output="probability")
    explainer = Explainer.load(directory)
    record = tiny_impression(explainer.bundle, session=10, items=12, seed=4)
    items = explainer.explain([record])[0]["items"]
    assert "model_mismatch" not in {item["status"] for item in items}
    assert max(abs(item["evidence"]["residual"]) for item in items) < 1e-5
