"""The shipped bundle gives true explanations to users that no model was trained on."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from stream.evaluation.cases import Case
from stream.evaluation.figures import BASELINES, KEYS, SLICES
from stream.evaluation.ground_truth import GroundTruth
from stream.evaluation.run import Evaluation
from stream.explain.ablate import EVENTS
from stream.explain.pipeline import Explainer
from tests.explain.judge import Judge as PlainJudge

pytestmark = pytest.mark.slow

PROMISED = ("true_deletion", "true_all_removals", "true_cause_first", "ig_top5", "drop_of_best", "confirmed_share")


@pytest.fixture(scope="module")
def record(found: Evaluation) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(json.dumps(found.record()))
    return written


@pytest.mark.parametrize("key", ["true_deletion", "true_all_removals", "category_top3_up"])
def test_nothing_false_is_shown_under_the_evidence_policy(record: dict[str, Any], key: str) -> None:
    figure = record["policies"]["evidence"]["all"][key]
    assert figure["denominator"] >= 30
    assert figure["numerator"] == figure["denominator"]


def test_most_impressions_have_a_citation_that_is_confirmed(record: dict[str, Any]) -> None:
    assert record["policies"]["evidence"]["all"]["confirmed_share"]["value"] > 0.55
    assert record["policies"]["evidence"]["all"]["drop_of_best"]["value"] > 0.9


def test_the_score_drop_of_every_first_citation_exceeds_the_margin(found: Evaluation) -> None:
    drops = [each.least_drop for each in found.tallies["evidence"].first_citations]
    assert min(drops) > found.margin - 1e-3


def test_the_evaluation_finds_false_citations(record: dict[str, Any]) -> None:
    attention = record["policies"]["attention"]["all"]
    for key in ("true_deletion", "true_all_removals"):
        for figures in (attention, *(record["baselines"]["evidence"][who]["all"] for who in BASELINES)):
            assert figures[key]["denominator"] > 0
            assert figures[key]["value"] < 0.8


def test_the_record_has_every_figure_with_its_counts(record: dict[str, Any], cases: list[Case]) -> None:
    assert record["slates"] == len(cases)
    assert record["impressions"] == sum(len(case.impression["items"]) for case in cases)
    for policy in ("evidence", "attention"):
        for name in SLICES:
            figures = record["policies"][policy][name]
            assert set(PROMISED) < set(KEYS) == set(figures)
            for figure in figures.values():
                if figure["denominator"]:
                    assert figure["value"] == pytest.approx(figure["numerator"] / figure["denominator"])
                else:
                    assert figure["value"] is None
    whole, long = (record["policies"]["evidence"][name]["confirmed_share"]["denominator"] for name in SLICES)
    assert 0 < long < whole == record["impressions"]


def test_a_larger_margin_shows_less(record: dict[str, Any]) -> None:
    share = [point["confirmed_share"] for point in record["trade_off"]]
    assert share == sorted(share, reverse=True)
    assert share[0] == record["policies"]["evidence"]["all"]["confirmed_share"]["value"]
    assert all(not math.isnan(point["ig_top5"]) for point in record["trade_off"])


def test_the_ground_truth_deletes_events_as_plain_lists_do(shipped: Bundle, cases: list[Case]) -> None:
    plain = PlainJudge(shipped)
    impressions = [case.impression for case in cases[:3]]
    for impression, effects in zip(impressions, GroundTruth(shipped).effects(impressions), strict=True):
        for event in range(len(impression["session"])):
            drop, centred = plain.drop(impression, event)
            expected = np.minimum(list(drop.values()), np.array(list(centred.values())) / 0.25)
            np.testing.assert_allclose(effects.least_drop[0, :, event], expected, atol=4e-3)
            np.testing.assert_allclose(effects.centred_drop[:, event], list(centred.values()), atol=1e-3)


def test_the_number_of_events_cited_in_a_slate_is_bounded(shipped: Bundle, cases: list[Case]) -> None:
    named = [
        {citation["event"] for item in explanation["items"] for citation in item["evidence"]["history"]}
        for explanation in Explainer(shipped).explain([case.impression for case in cases])
    ]
    assert 4 < max(map(len, named)) <= EVENTS
