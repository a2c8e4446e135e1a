"""Why one item rather than another: differences that add up to the differences of the scores."""

from __future__ import annotations

import itertools

import pytest

from models.bundle import Bundle
from schemas.errors import InvalidEvent
from stream.explain.pipeline import Explainer
from tests.bundles import tiny_bundle, tiny_impression


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return Explainer(Bundle.load(tiny_bundle(tmp_path_factory.mktemp("bundle"), empty_session="zero")))


def test_the_differences_add_up_to_those_of_the_scores(explainer: Explainer) -> None:
    impression = tiny_impression(explainer.bundle, session=9, items=6, seed=3)
    [explanation] = explainer.explain([impression | {"detail": True}])
    ids = [item["item_id"] for item in explanation["items"]]
    for one, other in ((0, 5), (5, 0), (2, 3)):
        mine, theirs = (explanation["items"][row]["detail"] for row in (one, other))
        found = explainer.contrast(impression, ids[one], ids[other])
        assert found["item_id"] == ids[other]
        assert found["raw_score"] == pytest.approx(mine["raw_score"] - theirs["raw_score"])
        assert sum(each["difference"] for each in found["features"]) == pytest.approx(found["raw_score"], abs=1e-6)
        together = mine["events_together"] - theirs["events_together"]
        assert sum(each["difference"] for each in found["events"]) + together == pytest.approx(
            found["session_score"], abs=1e-6
        )
        sizes = [abs(each["difference"]) for each in found["features"]]
        assert sizes == sorted(sizes, reverse=True)


def test_each_item_is_set_apart_from_the_item_shown_next(explainer: Explainer) -> None:
    impression = tiny_impression(explainer.bundle, session=9, items=4, seed=4)
    impression["items"].reverse()
    [explanation] = explainer.explain([impression | {"detail": True}])
    shown = sorted(explanation["items"], key=lambda item: item["position"])
    for item, following in itertools.pairwise(shown):
        apart = item["detail"]["contrast"]
        assert apart["item_id"] == following["item_id"]
        assert apart["raw_score"] >= 0, "the slate is ordered by its scores"
        assert len(apart["features"]) <= 5
    assert shown[-1]["detail"]["contrast"] is None


def test_what_cannot_be_contrasted_is_said(explainer: Explainer) -> None:
    impression = tiny_impression(explainer.bundle, items=4)
    ids = [item["item_id"] for item in impression["items"]]
    with pytest.raises(InvalidEvent, match="expected items of the slate, got 'nobody'; name two of"):
        explainer.contrast(impression, ids[0], "nobody")
    with pytest.raises(InvalidEvent, match="other_model"):
        explainer.contrast(impression | {"model_version": "tiny@9"}, ids[0], ids[1])
