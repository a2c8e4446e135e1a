"""Simulated impressions are valid events whose scores the bundle reproduces."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle
from models.data.sessions import ENGAGEMENT_NAMES, Sessions
from models.data.simulator import simulate
from models.data.slates import UnfitBundle, impressions, moved_to
from models.data.world import streamrec
from models.reranker.features import USER_FEATURES
from models.reranker.runtime import Reranker
from models.session.config import SessionConfig
from models.session.runtime import SessionModel, left_pad
from schemas.codec import Codec
from schemas.columnar import from_records
from schemas.events import Impression
from schemas.validation import faults
from tests.bundles import tiny_bundle
from tests.strategies import same

SIZE = SessionConfig(items=5000, d=16, heads=2, d_ff=32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    return Bundle.load(tiny_bundle(folder, config=SIZE, catalog=streamrec().catalog))


@pytest.fixture(scope="module")
def users() -> Sessions:
    return simulate(150, seed=8)


@pytest.fixture(scope="module")
def slates(bundle: Bundle, users: Sessions) -> list[Impression]:
    return list(impressions(bundle, users, seed=4))


def test_every_user_gets_a_valid_slate(slates: list[Impression], users: Sessions) -> None:
    assert [slate["user_id_hash"] for slate in slates] == users.user_id_hash.tolist()
    assert len({slate["request_id"] for slate in slates}) == len(slates)
    assert faults(from_records("impression", slates), int(time.time() * 1000)) == {}
    for slate in slates:
        assert [item["position"] for item in slate["items"]] == list(range(1, 21))


def test_a_slate_survives_encoding_and_decoding(slates: list[Impression]) -> None:
    codec = Codec()
    for slate in slates[:20]:
        encoded = codec.encode("impression", slate, "impressions")
        assert same(
            codec.decode("impression", encoded.value, encoded.headers),
            {**slate, "context_features": [], "detail": False},
        )


def test_the_bundle_reproduces_the_scores_from_the_event(bundle: Bundle, slates: list[Impression]) -> None:
    model, reranker = SessionModel(bundle), Reranker.load(bundle)
    for slate in slates[:40]:
        index = bundle.catalog.index([event["item_id"] for event in slate["session"]])
        codes = [ENGAGEMENT_NAMES.index(event["engagement"]) + 1 for event in slate["session"]]
        vector = model.run(left_pad([index], 50), left_pad([codes], 50), without=False).vector[0]
        items = bundle.catalog.index([item["item_id"] for item in slate["items"]])
        ranking = [item["ranking_score"] for item in slate["items"]]
        np.testing.assert_allclose(bundle.item_vectors[items] @ vector, ranking, rtol=0, atol=1e-5)

        rows = np.array(
            [[*slate["user_features"], *item["item_features"], item["ranking_score"]] for item in slate["items"]]
        )
        reranking = [item["reranking_score"] for item in slate["items"]]
        assert reranker.score(rows).astype(np.float32).tolist() == reranking, "identical bits"
        assert reranking == sorted(reranking, reverse=True)


def test_held_out_events_are_hidden_from_the_recommender(bundle: Bundle, users: Sessions) -> None:
    for held_out in (1, 3):
        for slate, low, high in zip(
            impressions(bundle, users, held_out=held_out), users.offsets[:-1], users.offsets[1:], strict=True
        ):
            history = [users.catalog.item_ids[index - 1] for index in users.item[low : high - held_out]]
            assert [event["item_id"] for event in slate["session"]] == history
            assert slate["timestamp_ms"] == users.timestamp_ms[high - held_out]
            assert not {item["item_id"] for item in slate["items"]} & set(history), "already seen"


def test_the_slate_has_the_best_unseen_items(bundle: Bundle, slates: list[Impression]) -> None:
    model = SessionModel(bundle)
    for slate in slates[:10]:
        index = bundle.catalog.index([event["item_id"] for event in slate["session"]])
        codes = [ENGAGEMENT_NAMES.index(event["engagement"]) + 1 for event in slate["session"]]
        vector = model.run(left_pad([index], 50), left_pad([codes], 50), without=False).vector[0]
        scores = bundle.item_vectors @ vector
        scores[[0, *index.tolist()]] = -np.inf
        best = {bundle.catalog.item_ids[index - 1] for index in np.argsort(-scores)[:20]}
        assert {item["item_id"] for item in slate["items"]} == best


def test_the_seed_changes_request_ids_only(bundle: Bundle, users: Sessions, slates: list[Impression]) -> None:
    again = list(impressions(bundle, users, seed=4))
    other = list(impressions(bundle, users, seed=5))

    assert all(same(dict(left), dict(right)) for left, right in zip(slates, again, strict=True))
    for left, right in zip(slates, other, strict=True):
        assert left["request_id"] != right["request_id"]
        assert same({**left, "request_id": ""}, {**right, "request_id": ""})


def test_the_slate_has_the_requested_number_of_items(bundle: Bundle, users: Sessions) -> None:
    for items in (1, 7, 300):
        slate = next(impressions(bundle, users, items=items))
        assert len(slate["items"]) == items


def test_a_slate_can_be_moved_to_another_time(slates: list[Impression]) -> None:
    for slate in slates[:5]:
        moved = moved_to(slate, 1_800_000_000_000)
        shift = 1_800_000_000_000 - slate["timestamp_ms"]

        assert moved["timestamp_ms"] == 1_800_000_000_000
        assert [event["timestamp_ms"] - shift for event in moved["session"]] == [
            event["timestamp_ms"] for event in slate["session"]
        ]
        assert same(moved["items"], slate["items"])
        assert slate["timestamp_ms"] != moved["timestamp_ms"], "the original is not changed"


def test_a_bundle_with_another_catalogue_is_rejected(tmp_path: Path, users: Sessions) -> None:
    other = Bundle.load(tiny_bundle(tmp_path))

    with pytest.raises(UnfitBundle, match="60 items of tiny@1"):
        impressions(other, users)


def test_fewer_than_one_item_or_held_out_event_is_rejected(bundle: Bundle, users: Sessions) -> None:
    with pytest.raises(UnfitBundle, match="at least 1"):
        impressions(bundle, users, items=0)
    with pytest.raises(UnfitBundle, match="at least 1"):
        impressions(bundle, users, held_out=0)


def test_users_of_a_region_missing_in_the_log_get_slates(bundle: Bundle, users: Sessions) -> None:
    elsewhere = users.select(users.region != "US")
    slates = list(impressions(bundle, users, log=elsewhere))

    popularity = len(USER_FEATURES)
    assert popularity == 20
    assert len(slates) == len(users)
    americans = [slate for slate in slates if slate["region"] == "US"]
    assert all(np.isfinite(item["item_features"][0]) for slate in americans for item in slate["items"])


def test_slates_are_made_lazily(bundle: Bundle) -> None:
    few = list(itertools.islice(impressions(bundle, simulate(2000, seed=3), batch=8), 3))

    assert len(few) == 3
