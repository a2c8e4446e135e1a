"""What is said of sessions of any length is true when events are deleted from the whole session.

The judge below is another recommender with the same weights: it keeps whole sessions, and lets the model read the
newest events of what a deletion leaves.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.bundle import Bundle
from models.session.restore import restore
from stream.explain.pipeline import Explainer
from tests.bundles import TINY, random_weights, tiny_bundle, tiny_impression
from tests.graphs import mean_graph, reduced

Record = dict[str, Any]
Event = tuple[int, int]
"""An event of a session: the indices of its item and of its engagement."""

NOISE = 1e-4
SMALL = dataclasses.replace(TINY, items=20, max_length=5)
"""Few items, so that titles repeat within a session and beyond its newest events."""

SHIPPED = Path("models/bundles/streamrec")
LENGTHS: dict[str, Callable[[int], int]] = {
    "1": lambda _: 1,
    "2": lambda _: 2,
    "max_length - 1": lambda limit: limit - 1,
    "max_length": lambda limit: limit,
    "max_length + 1": lambda limit: limit + 1,
    "2 * max_length": lambda limit: 2 * limit,
}


@dataclass(frozen=True)
class Recommender:
    """Scores whole sessions: ``vector`` maps the newest events to a session vector."""

    bundle: Bundle
    vector: Callable[[list[Event]], npt.NDArray[np.float32]]
    booster: lightgbm.Booster

    def session(self, impression: Mapping[str, Any]) -> list[Event]:
        items = self.bundle.catalog.index([event["item_id"] for event in impression["session"]]).tolist()
        names = [each.name for each in self.bundle.engagements]
        return [(item, names.index(event["engagement"]) + 1)
                for item, event in zip(items, impression["session"], strict=True)]  # fmt: skip

    def session_vector(self, session: list[Event]) -> npt.NDArray[np.float32]:
        newest = session[-self.bundle.manifest.max_length :]
        return self.vector(newest) if newest else np.zeros(self.bundle.item_vectors.shape[1], dtype=np.float32)

    def scores(self, impression: Mapping[str, Any], session: list[Event]) -> npt.NDArray[np.float64]:
        slate = self.bundle.catalog.index([item["item_id"] for item in impression["items"]])
        return (self.bundle.item_vectors[slate] @ self.session_vector(session)).astype(np.float64)

    def ranks(self, impression: Mapping[str, Any], session: list[Event]) -> dict[str, int]:
        scores = self.scores(impression, session).tolist()
        rows = [[*impression["user_features"], *item["item_features"], score]
                for item, score in zip(impression["items"], scores, strict=True)]  # fmt: skip
        reranked = np.asarray(self.booster.predict(np.array(rows), raw_score=True), dtype=np.float32)
        order = np.lexsort(([item["position"] for item in impression["items"]], -reranked))
        return {impression["items"][place]["item_id"]: rank for rank, place in enumerate(order.tolist(), start=1)}

    def without(self, impression: Mapping[str, Any], *events: int) -> list[Event]:
        return [event for place, event in enumerate(self.session(impression)) if place not in events]

    def drops(self, impression: Mapping[str, Any], *events: int) -> tuple[dict[str, float], dict[str, float]]:
        """Score drop of each item without some events, and the drop minus the mean drop of the slate."""
        after = self.scores(impression, self.without(impression, *events))
        drop = self.scores(impression, self.session(impression)) - after
        names = [item["item_id"] for item in impression["items"]]
        return dict(zip(names, drop.tolist(), strict=True)), dict(
            zip(names, (drop - drop.mean()).tolist(), strict=True)
        )


def transformer(bundle: Bundle) -> Callable[[list[Event]], npt.NDArray[np.float32]]:
    net = restore(bundle)

    def vector(newest: list[Event]) -> npt.NDArray[np.float32]:
        items, engagements = torch.tensor(newest).T
        with torch.no_grad():
            return np.asarray(net(items[None], engagements[None])[0, -1].numpy())

    return vector


def recommender(name: str, folder: Path) -> Recommender:
    """Make a bundle, and a recommender with its weights."""
    weights = random_weights(SMALL)["item.weight"]
    constant = weights[1:4].mean(axis=0)
    if name == "shipped":
        bundle = Bundle.load(SHIPPED)
    elif name == "mean of embeddings":
        bundle = Bundle.load(tiny_bundle(folder, config=SMALL, session_onnx=mean_graph(weights, constant)))
    else:
        bundle = Bundle.load(tiny_bundle(folder, config=SMALL))
    vector = (
        (lambda newest: constant + weights[[item for item, _ in newest]].mean(axis=0))
        if name == "mean of embeddings"
        else transformer(bundle)
    )
    if name == "own export, by its graph":
        graph = reduced(bundle.session_onnx.read_bytes(), without=True, blank=True)
        bundle = Bundle.load(tiny_bundle(folder / "reduced", config=SMALL, session_onnx=graph))
    return Recommender(bundle, vector, lightgbm.Booster(model_str=bundle.reranker_text.read_text(encoding="utf-8")))


@pytest.fixture(scope="module", params=["shipped", "own export", "own export, by its graph", "mean of embeddings"])
def judge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return recommender(request.param, tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def told(judge: Recommender) -> dict[str, list[tuple[Record, Record]]]:
    """Slates with their explanations, by the length of the session; all explained in one batch."""
    limit = judge.bundle.manifest.max_length
    slates = [
        (name, tiny_impression(judge.bundle, session=length(limit), items=8, seed=seed) | {"detail": True})
        for name, length in LENGTHS.items()
        for seed in range(3 if limit > 10 else 8)
    ]
    explanations = Explainer(judge.bundle).explain([slate for _, slate in slates])
    found: dict[str, list[tuple[Record, Record]]] = {name: [] for name in LENGTHS}
    for (name, slate), explanation in zip(slates, explanations, strict=True):
        found[name].append((slate, explanation))
    return found


def citations(told: list[tuple[Record, Record]]) -> Iterator[tuple[Record, Record, Record]]:
    for impression, explanation in told:
        for item in explanation["items"]:
            for citation in item["evidence"]["history"]:
                yield impression, item, citation


@pytest.mark.parametrize("length", LENGTHS)
def test_a_citation_states_what_its_deletion_from_the_whole_session_does(
    length: str, judge: Recommender, told: dict[str, list[tuple[Record, Record]]]
) -> None:
    found = list(citations(told[length]))
    margin = judge.bundle.manifest.citation_margin
    for impression, item, citation in found:
        drop, centred = (each[item["item_id"]] for each in judge.drops(impression, citation["event"]))
        assert citation["score_drop"] == pytest.approx(drop, abs=NOISE)
        assert drop > margin - NOISE
        assert centred > margin / 4 - NOISE
        assert citation["rank"] == judge.ranks(impression, judge.session(impression))[item["item_id"]]
        left = judge.without(impression, citation["event"])
        assert citation["rank_without"] == judge.ranks(impression, left)[item["item_id"]]
    assert len(found) > 3 or length == "1"


@pytest.mark.parametrize("length", LENGTHS)
def test_without_a_title_means_without_the_only_event_of_that_title(
    length: str, judge: Recommender, told: dict[str, list[tuple[Record, Record]]]
) -> None:
    titles, ids = judge.bundle.catalog.titles, judge.bundle.catalog.item_ids
    for impression, explanation in told[length]:
        for item in explanation["items"]:
            if said := re.search(r"ithout “(.+?)”,? this would be (\d+)\w\w, not (\d+)\w\w", item["text"]):
                title, without, rank = said.groups()
                events = [place for place, event in enumerate(impression["session"])
                          if titles[ids.index(event["item_id"])] == title]  # fmt: skip
                assert len(events) == 1
                assert int(rank) == judge.ranks(impression, judge.session(impression))[item["item_id"]]
                assert int(without) == judge.ranks(impression, judge.without(impression, *events))[item["item_id"]]


def test_there_was_something_to_say_and_something_to_refuse(
    judge: Recommender, told: dict[str, list[tuple[Record, Record]]]
) -> None:
    said = repeated = 0
    for impression, item, citation in (each for slates in told.values() for each in citations(slates)):
        ids = [event["item_id"] for event in impression["session"]]
        newest = ids[-judge.bundle.manifest.max_length :]
        said += "ithout “" in item["text"]
        repeated += newest.count(citation["item_id"]) == 1 < ids.count(citation["item_id"])
    assert said or judge.bundle.path == SHIPPED
    assert repeated or judge.bundle.path == SHIPPED


def test_the_second_citation_still_holds_after_the_deletion_of_the_first(
    judge: Recommender, told: dict[str, list[tuple[Record, Record]]]
) -> None:
    margin, pairs = judge.bundle.manifest.citation_margin, 0
    for impression, explanation in (each for slates in told.values() for each in slates):
        for item in explanation["items"]:
            name = item["item_id"]
            events = [citation["event"] for citation in item["evidence"]["history"]]
            for first, second in pairwise(events):
                both, one = judge.drops(impression, first, second), judge.drops(impression, first)
                drop, centred = (two[name] - less[name] for two, less in zip(both, one, strict=True))
                assert min(drop, 4 * centred) > margin - NOISE
                pairs += 1
    assert pairs > 3


@pytest.mark.parametrize("length", LENGTHS)
def test_the_ledger_states_the_effect_of_every_event_on_the_whole_session(
    length: str, judge: Recommender, told: dict[str, list[tuple[Record, Record]]]
) -> None:
    limit = judge.bundle.manifest.max_length
    for impression, explanation in told[length]:
        for event in range(len(impression["session"])):
            drop, _ = judge.drops(impression, event)
            for item in explanation["items"]:
                effect = item["detail"]["events"][event]["effect"]
                assert effect == pytest.approx(drop[item["item_id"]], abs=NOISE)
                assert effect == 0 or event >= len(impression["session"]) - limit


@pytest.mark.parametrize("length", LENGTHS)
def test_recourse_deletes_every_event_of_its_titles(
    length: str, judge: Recommender, told: dict[str, list[tuple[Record, Record]]]
) -> None:
    catalog, vectors = judge.bundle.catalog, judge.bundle.item_vectors
    for impression, explanation in told[length]:
        slate = set(catalog.index([item["item_id"] for item in impression["items"]]).tolist())

        def places(session: list[Event], slate: set[int] = slate) -> dict[int, int]:
            """Place of each item of the slate among all items of the catalogue that are not in the session."""
            seen = {item for item, _ in session} - slate
            scores = vectors @ judge.session_vector(session)
            open_items = [item for item in range(1, len(vectors)) if item not in seen]
            return {item: 1 + int((scores[open_items] > scores[item]).sum()) for item in slate}

        depth = max(places(judge.session(impression)).values())
        for item in explanation["items"]:
            recourse = item["detail"]["recourse"]
            if recourse is None or recourse["kind"] != "history":
                continue
            events = [place for place, event in enumerate(impression["session"])
                      if event["item_id"] in recourse["item_ids"]]  # fmt: skip
            assert recourse["events"] == events
            left = judge.without(impression, *events)
            assert recourse["rank_without"] == judge.ranks(impression, left)[item["item_id"]]
            assert places(left)[int(catalog.index([item["item_id"]])[0])] > depth


@pytest.mark.parametrize("length", LENGTHS)
def test_an_own_moment_is_read_with_all_events_before_it(
    length: str, judge: Recommender, told: dict[str, list[tuple[Record, Record]]]
) -> None:
    for impression, explanation in told[length]:
        session = judge.session(impression)
        present = judge.session_vector(session)
        for moment in explanation["items"][0]["detail"]["similar_moments"]:
            if moment["whose"] == "own":
                then = judge.session_vector(session[: moment["event"] + 1])
                cosine = then @ present / np.linalg.norm(then) / np.linalg.norm(present)
                assert moment["similarity"] == pytest.approx(float(cosine), abs=1e-5)
                assert moment["next_item_id"] == impression["session"][moment["event"] + 1]["item_id"]


def test_an_event_that_the_bundle_does_not_know_leaves_no_room(judge: Recommender) -> None:
    limit = judge.bundle.manifest.max_length
    impression = tiny_impression(judge.bundle, session=2 * limit, items=8)
    unknown = {"item_id": "nowhere", "engagement": "view", "timestamp_ms": impression["session"][0]["timestamp_ms"]}
    places = range(0, 3 * limit, 3)
    session = list(impression["session"])
    for place in places:
        session.insert(place, unknown)
    explainer = Explainer(judge.bundle)
    [plain], [mixed] = (
        explainer.explain([impression | {"session": each}]) for each in (impression["session"], session)
    )
    for one, other in zip(plain["items"], mixed["items"], strict=True):
        assert one["text"] == other["text"]
        numbers = [[(each["item_id"], each["score_drop"], each["rank_without"]) for each in item["evidence"]["history"]]
                   for item in (one, other)]  # fmt: skip
        assert numbers[0] == numbers[1]


def test_an_older_event_moves_into_the_place_of_a_deleted_one(tmp_path: Path) -> None:
    """The smallest case: of the mean of the newest three, without the newest i1 the older i1 takes part again."""
    vectors = np.array(
        [[0, 0], [3, 0], [2.5, 0.3], [2, -0.4], [0, 3], [0.2, 2.5], [1, 1], [-1, 2], [2, 2]], dtype=np.float32
    )
    config = dataclasses.replace(TINY, items=8, max_length=3)
    graph = mean_graph(vectors, np.array([2, 0.5], dtype=np.float32))
    folder = tiny_bundle(tmp_path, config=config, session_onnx=graph, item_vectors=vectors)
    bundle = Bundle.load(folder)
    impression = tiny_impression(bundle, session=5, items=5) | {"detail": True}
    for event, item in zip(impression["session"], (4, 1, 5, 7, 1), strict=True):
        event |= {"item_id": f"s{item:03d}", "engagement": "view"}
    vector = np.array([2, 0.5], dtype=np.float32) + vectors[[5, 7, 1]].mean(axis=0)
    for item in impression["items"]:
        item["ranking_score"] = float(vectors[bundle.catalog.index([item["item_id"]])[0]] @ vector)
    booster = lightgbm.Booster(model_str=bundle.reranker_text.read_text(encoding="utf-8"))
    rows = [
        [*impression["user_features"], *item["item_features"], item["ranking_score"]] for item in impression["items"]
    ]
    for item, score in zip(impression["items"], np.asarray(booster.predict(np.array(rows))).tolist(), strict=True):
        item["reranking_score"] = float(np.float32(score))
    [explanation] = Explainer(bundle).explain([impression])
    for item in explanation["items"]:
        assert item["status"] != "model_mismatch"
        assert [event["effect"] for event in item["detail"]["events"]][-1] == 0
        assert "s001" not in [citation["item_id"] for citation in item["evidence"]["history"]]
