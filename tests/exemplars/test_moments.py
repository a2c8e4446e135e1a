"""Similar moments: the nearest ones by the model's own vectors, with what was watched next."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.exemplars.index import write
from models.exemplars.moments import LEAST, TOLD
from models.exemplars.prototypes import K_ANONYMOUS, SHORTEST, Prototypes
from models.session.runtime import SessionModel, left_pad
from stream.explain.pipeline import Explainer
from tests.bundles import tiny_bundle, tiny_impression


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(tiny_bundle(tmp_path_factory.mktemp("plain")))


def moments(bundle: Bundle, impression: dict[str, Any]) -> list[dict[str, Any]]:
    [explained] = Explainer(bundle).explain([impression | {"detail": True}])
    told = [item["detail"]["similar_moments"] for item in explained["items"]]
    assert all(each == told[0] for each in told)  # of the slate, not of the item
    return list(told[0])


@cache
def model(bundle: Bundle) -> SessionModel:
    return SessionModel(bundle)


def vector(bundle: Bundle, session: list[dict[str, Any]]) -> np.ndarray:
    """Run the model on a session by itself; of length 1."""
    items = bundle.catalog.index([event["item_id"] for event in session])
    engagements = [bundle.manifest.engagements.index(event["engagement"]) + 1 for event in session]
    most = bundle.manifest.max_length
    found = model(bundle).run(left_pad([items], most), left_pad([engagements], most), without=False).vector[0]
    return np.asarray(found / np.linalg.norm(found))


@pytest.mark.parametrize("seed", range(4))
def test_own_moments_are_the_nearest_that_something_watched_followed(plain: Bundle, seed: int) -> None:
    impression = tiny_impression(plain, session=12 + 7 * seed, seed=seed)
    session = impression["session"]
    present = vector(plain, session)
    expected: dict[str, tuple[float, int]] = {}
    ends = [end for end in range(SHORTEST, len(session)) if session[end]["engagement"] != "skip"]
    for end in sorted(ends, key=lambda end: -float(vector(plain, session[:end]) @ present)):
        near = float(vector(plain, session[:end]) @ present)
        if near >= LEAST and len(expected) < TOLD:
            expected.setdefault(session[end]["item_id"], (near, end - 1))
    told = moments(plain, impression)
    assert [(each["next_item_id"], each["event"]) for each in told] == [(i, e) for i, (_, e) in expected.items()]
    assert all(each["whose"] == "own" for each in told)
    for each, (near, _) in zip(told, expected.values(), strict=True):
        assert each["similarity"] == pytest.approx(near, abs=1e-5)


def test_the_tiny_model_has_similar_moments_at_all(plain: Bundle) -> None:
    assert any(moments(plain, tiny_impression(plain, session=40, seed=seed)) for seed in range(3))


@pytest.mark.parametrize("session", [0, 1, SHORTEST])
def test_a_short_session_has_no_moments_of_its_own(plain: Bundle, session: int) -> None:
    assert moments(plain, tiny_impression(plain, session=session)) == []


def test_an_item_that_the_catalogue_does_not_know_shifts_no_event(plain: Bundle) -> None:
    impression = tiny_impression(plain, session=40, seed=1)
    before = moments(plain, impression)
    unknown = {"item_id": "nowhere", "engagement": "view", "timestamp_ms": impression["session"][0]["timestamp_ms"]}
    after = moments(plain, impression | {"session": [unknown, *impression["session"]]})
    assert before
    assert [each["event"] - 1 for each in after] == [each["event"] for each in before]


def test_moments_of_others_stand_among_them_by_their_similarity(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path)
    impression = tiny_impression(Bundle.load(folder), session=20)
    present = vector(Bundle.load(folder), impression["session"])
    across = np.random.default_rng(0).standard_normal(present.shape)
    across -= (across @ present) * present
    across /= np.linalg.norm(across)
    cosines = np.array([0.99, 0.9, 0.9, 0.6, LEAST - 0.1])
    vectors = cosines[:, None] * present + np.sqrt(1 - cosines**2)[:, None] * across
    many = np.full(len(cosines), K_ANONYMOUS)
    bundle = write(folder, Prototypes(vectors.astype(np.float32), np.array([7, 8, 7, 9, 10]), many, many))
    told = moments(bundle, impression)
    others = [each for each in told if each["whose"] == "others"]
    assert [each["next_title"] for each in others] == [bundle.catalog.titles[index - 1] for index in (7, 8, 9)]
    assert [each["event"] for each in others] == [-1, -1, -1]
    assert [each["similarity"] for each in others] == pytest.approx([0.99, 0.9, 0.6], abs=2e-3)
    near = [each["similarity"] for each in told]
    assert near == sorted(near, reverse=True)


def test_without_detail_nothing_is_looked_up(plain: Bundle) -> None:
    [explained] = Explainer(plain).explain([tiny_impression(plain)])
    assert all(item["detail"] is None for item in explained["items"])
