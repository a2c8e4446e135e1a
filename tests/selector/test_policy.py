"""``policy = "learned"``: only claims that hold are made, and repeated explanations are the same."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle, attach
from models.data.simulator import simulate
from models.data.slates import impressions
from models.selector.features import TYPES
from models.selector.runtime import MAX_EXPLORATION, Selector
from models.selector.train import train
from schemas.columnar import from_records
from stream.archive.rows.slates import rows_of
from stream.errors import ConfigurationError
from stream.evaluation.feedback import simulated
from stream.explain.decode import decode_records
from stream.explain.pipeline import Explainer
from stream.explain.policy import draws
from stream.replay.archived import ArchivedSlate, Source
from stream.replay.compare import explainer_for, replay
from stream.settings import BUNDLED_MODEL

pytestmark = pytest.mark.slow

SLATES = 100


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Selector]:
    """The shipped bundle with a selector trained on 400 simulated users."""
    folder = tmp_path_factory.mktemp("learned") / "bundle"
    shutil.copytree(BUNDLED_MODEL, folder)
    selector, _ = train(simulated(Bundle.load(folder), 400, seed=3), exploration=MAX_EXPLORATION)
    return attach(folder, selector.files()), selector


@pytest.fixture(scope="module")
def slates(served: tuple[Bundle, Selector]) -> list[Any]:
    return list(impressions(served[0], simulate(SLATES, 17)))


@pytest.fixture(scope="module")
def learned(served: tuple[Bundle, Selector]) -> Explainer:
    return Explainer(served[0], "learned")


def test_only_claims_that_hold_are_made_and_all_types_are_used(learned: Explainer, slates: list[Any]) -> None:
    explained = [item for each in learned.explain(slates) for item in each["items"]]
    assert {item["type"] for item in explained} == {*TYPES, "personalized"}
    assert all(item["status"] in ("verified", "factual") for item in explained if item["type"] != "personalized")
    by_evidence = [item for each in Explainer(learned.bundle).explain(slates) for item in each["items"]]
    # Both policies use personalized for the same items; for other items some choices differ.
    for one, other in zip(explained, by_evidence, strict=True):
        assert (one["type"] == "personalized") == (other["type"] == "personalized")
    assert any(one["type"] != other["type"] for one, other in zip(explained, by_evidence, strict=True))


def test_a_slate_explained_alone_has_the_same_texts(learned: Explainer, slates: list[Any]) -> None:
    again = Explainer(learned.bundle, learned.policy)
    for explained, slate in zip(learned.explain(slates[:20]), slates[:20], strict=True):
        [alone] = again.explain([slate])
        assert [item["text"] for item in alone["items"]] == [item["text"] for item in explained["items"]]


def test_a_replay_finds_the_chosen_types(learned: Explainer, slates: list[Any]) -> None:
    explained = learned.run(from_records("impression", slates[:2]))
    for place, slate in enumerate(slates[:2]):
        rows = rows_of(explained.audits.slice(place, 1)).to_pylist()
        archived = ArchivedSlate(Source("", 0, 0), rows)
        assert replay(archived, slate, explainer_for(archived, learned.bundle, "evidence")).proven


def test_exploration_above_the_setting_is_rejected(learned: Explainer) -> None:
    with pytest.raises(ConfigurationError, match="WHYREC_MAX_EXPLORATION"):
        Explainer(learned.bundle, "learned", max_exploration=MAX_EXPLORATION / 2)


def test_the_share_of_explored_items_is_the_exploration_rate(
    learned: Explainer, served: tuple[Bundle, Selector]
) -> None:
    bundle, selector = served
    many = list(impressions(bundle, simulate(400, 18)))
    share = (draws(decode_records(many, bundle)) < selector.exploration).mean()
    assert share == pytest.approx(selector.exploration, abs=4 * np.sqrt(0.1 * 0.9 / (20 * len(many))))


def test_explanations_name_the_selector_version(learned: Explainer, slates: list[Any]) -> None:
    [explained] = learned.explain(slates[:1])
    assert explained["policy"].startswith("learned@")
    with pytest.raises(ConfigurationError, match="learned@"):
        Explainer(learned.bundle, "learned@00000000")


def test_a_bundle_without_a_selector_cannot_serve_the_policy() -> None:
    with pytest.raises(ConfigurationError, match="whyrec models selector"):
        Explainer(Bundle.load(BUNDLED_MODEL), "learned")


def test_an_unknown_policy_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="evidence, attention, learned"):
        Explainer(Bundle.load(BUNDLED_MODEL), "guesswork")
