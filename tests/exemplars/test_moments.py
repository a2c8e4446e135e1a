"""Similar moments are those with the nearest session vectors, and name the item watched next."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.exemplars.index import write
from models.exemplars.moments import MAX_MOMENTS, MIN_SIMILARITY
from models.exemplars.prototypes import K_ANONYMOUS, MIN_EVENTS, Prototypes
from models.session.runtime import SessionModel, left_pad
from stream.explain.pipeline import Explainer
from tests.bundles import tiny_bundle, tiny_impression


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(tiny_bundle(tmp_path_factory.mktemp("plain")))


def moments(bundle: Bundle, impression: dict[str, Any]) -> list[dict[str, Any]]:
    [explained] = Explainer(bundle).explain([impression | {"detail": True}])
    found = [item["detail"]["similar_moments"] for item in explained["items"]]
    assert all(each == found[0] for each in found), "the moments are the same for all items of a slate"
    return list(found[0])


@cache
def model(bundle: Bundle) -> SessionModel:
    return SessionModel(bundle)


def vector(bundle: Bundle, session: list[dict[str, Any]]) -> np.ndarray:
    """Run the model on one session; a unit vector."""
    items = bundle.catalog.index([event["item_id"] for event in session])
    engagements = [bundle.manifest.engagement_names.index(event["engagement"]) + 1 for event in session]
    length = bundle.manifest.max_length
    found = model(bundle).run(left_pad([items], length), left_pad([engagements], length), without=False).vector[0]
    return np.asarray(found / np.linalg.norm(found))


@pytest.mark.parametrize("seed", range(4))
def test_own_moments_are_the_nearest_prefixes_before_a_watched_item(plain: Bundle, seed: int) -> None:
    impression = tiny_impression(plain, session=12 + 7 * seed, seed=seed)
    session = impression["session"]
    present = vector(plain, session)
    expected: dict[str, tuple[float, int]] = {}
    ends = [end for end in range(MIN_EVENTS, len(session)) if session[end]["engagement"] != "skip"]
    for end in sorted(ends, key=lambda end: -float(vector(plain, session[:end]) @ present)):
        similarity = float(vector(plain, session[:end]) @ present)
        if similarity >= MIN_SIMILARITY and len(expected) < MAX_MOMENTS:
            expected.setdefault(session[end]["item_id"], (similarity, end - 1))
    found = moments(plain, impression)
    assert [(each["next_item_id"], each["event"]) for each in found] == [(i, e) for i, (_, e) in expected.items()]
    assert all(each["whose"] == "own" for each in found)
    for each, (similarity, _) in zip(found, expected.values(), strict=True):
        assert each["similarity"] == pytest.approx(similarity, abs=1e-5)


def test_the_test_bundle_has_similar_moments(plain: Bundle) -> None:
    assert any(moments(plain, tiny_impression(plain, session=40, seed=seed)) for seed in range(3))


@pytest.mark.parametrize("session", [0, 1, MIN_EVENTS])
def test_a_short_session_has_no_own_moments(plain: Bundle, session: int) -> None:
    assert moments(plain, tiny_impression(plain, session=session)) == []


def test_an_unknown_item_does_not_shift_event_positions(plain: Bundle) -> None:
    impression = tiny_impression(plain, session=40, seed=1)
    before = moments(plain, impression)
    unknown = {"item_id": "nowhere", "engagement": "view", "timestamp_ms": impression["session"][0]["timestamp_ms"]}
    after = moments(plain, impression | {"session": [unknown, *impression["session"]]})
    assert before
    assert [each["event"] - 1 for each in after] == [each["event"] for each in before]


def test_own_and_shared_moments_are_ordered_by_similarity(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path)
    impression = tiny_impression(Bundle.load(folder), session=20)
    present = vector(Bundle.load(folder), impression["session"])
    across = np.random.default_rng(0).standard_normal(present.shape)
    across -= (across @ present) * present
    across /= np.linalg.norm(across)
    cosines = np.array([0.99, 0.9, 0.9, 0.6, MIN_SIMILARITY - 0.1])
    vectors = cosines[:, None] * present + np.sqrt(1 - cosines**2)[:, None] * across
    many = np.full(len(cosines), K_ANONYMOUS)
    bundle = write(folder, Prototypes(vectors.astype(np.float32), np.array([7, 8, 7, 9, 10]), many, many))
    found = moments(bundle, impression)
    others = [each for each in found if each["whose"] == "others"]
    assert [each["next_title"] for each in others] == [bundle.catalog.titles[index - 1] for index in (7, 8, 9)]
    assert [each["event"] for each in others] == [-1, -1, -1]
    assert [each["similarity"] for each in others] == pytest.approx([0.99, 0.9, 0.6], abs=2e-3)
    similarity = [each["similarity"] for each in found]
    assert similarity == sorted(similarity, reverse=True)


def test_without_detail_there_are_no_moments(plain: Bundle) -> None:
    [explained] = Explainer(plain).explain([tiny_impression(plain)])
    assert all(item["detail"] is None for item in explained["items"])
