"""The simulated world: what it promises about behaviour, and that it is the same for everybody."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from models.data import simulator
from models.data.sessions import COMPLETE, LIKE, SHARE, SKIP, VIEW, InvalidSessions, Sessions
from models.data.simulator import DAY_MS, lead_odds, simulate
from models.data.world import streamrec


@pytest.fixture(scope="module")
def crowd() -> Sessions:
    return simulate(6000, seed=5)


def test_a_seed_alone_fixes_every_bit(crowd: Sessions) -> None:
    again = simulate(6000, seed=5)

    for field in dataclasses.fields(Sessions):
        if field.name != "catalog":
            assert getattr(crowd, field.name).tobytes() == getattr(again, field.name).tobytes(), field.name


def test_other_seeds_are_other_people_in_the_same_world(crowd: Sessions) -> None:
    others = simulate(300, seed=6)

    assert not set(others.user_id_hash.tolist()) & set(crowd.user_id_hash.tolist())
    assert others.catalog is crowd.catalog


def test_the_catalogue_is_readable_and_every_title_is_its_own() -> None:
    catalog = streamrec().catalog

    assert len(catalog) == len(set(catalog.titles)) == len(set(catalog.item_ids)) == 5000
    assert {catalog.categories.count(name) for name in set(catalog.categories)} == {250}
    assert len(set(catalog.categories)) == 20
    assert all(re.fullmatch(r"[A-Z][\w&',.:?\- ]{3,70}", title) for title in catalog.titles)
    assert not [title for title in catalog.titles if re.search(r"\bA [AEIOU]", title)]
    popularity = catalog.popularity[1:]
    assert 0 < popularity.min() < 1
    assert 99 < popularity.max() < 100


def test_histories_look_like_histories(crowd: Sessions) -> None:
    assert crowd.lengths.min() == 5
    assert crowd.lengths.max() == 50
    pairs = np.stack([crowd.owner, crowd.item], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs), "nobody starts the same title twice"
    later = np.diff(crowd.timestamp_ms)[crowd.owner[1:] == crowd.owner[:-1]]
    assert later.min() > 0
    newest = crowd.timestamp_ms[crowd.offsets[1:] - 1]
    age = simulator.REFERENCE_NOW_MS - newest
    assert age.min() > 0
    assert age.max() <= 7 * DAY_MS + 1
    assert all(re.fullmatch(r"[0-9a-f]{16}", user) for user in crowd.user_id_hash.tolist())
    assert all(locale.endswith(region) for locale, region in zip(crowd.locale, crowd.region, strict=True))


def test_every_engagement_is_common_enough_to_learn_from(crowd: Sessions) -> None:
    share = np.bincount(crowd.engagement, minlength=6) / len(crowd.item)

    assert share[0] == 0
    assert all(0.08 < share[code] < 0.4 for code in (VIEW, LIKE, COMPLETE, SHARE, SKIP))


def test_a_cause_really_leads_on_to_its_effect(crowd: Sessions) -> None:
    caused = np.flatnonzero(crowd.cause >= 0)
    lead = crowd.item[crowd.offsets[crowd.owner[caused]] + crowd.cause[caused]]

    assert 0.6 < len(caused) / len(crowd.item) < 0.85
    assert (streamrec().followers[lead] == crowd.item[caused][:, None]).any(axis=1).all()
    distance = (crowd.position - crowd.cause)[caused]
    assert 0.3 < (distance == 1).mean() < 0.6, "the last event alone must not tell it all"
    assert (distance > 5).mean() > 0.05


def test_what_was_liked_leads_on_and_what_was_skipped_hardly_does(crowd: Sessions) -> None:
    caused = np.flatnonzero(crowd.cause >= 0)
    causes = crowd.offsets[crowd.owner[caused]] + crowd.cause[caused]
    effects = np.bincount(causes, minlength=len(crowd.item))
    rate = {code: effects[crowd.engagement == code].mean() for code in (VIEW, LIKE, COMPLETE, SHARE, SKIP)}

    assert rate[SKIP] < 0.3 * rate[VIEW]
    assert rate[VIEW] < rate[COMPLETE] < rate[LIKE] < rate[SHARE]


def test_popularity_alone_predicts_little_and_the_story_a_lot(crowd: Sessions) -> None:
    target = crowd.item[crowd.offsets[1:] - 1]
    history = crowd.without_last()
    plays = np.bincount(history.item, minlength=5001)
    by_popularity = np.isin(target, np.argsort(-plays)[:10]).mean()

    assert 0.01 <= by_popularity <= 0.04
    assert hits_of_the_story(history, target) > 0.45


def hits_of_the_story(history: Sessions, target: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> float:
    """Hit@10 of one who knows the rules of the world, though not the dice."""
    world, owner = streamrec(), history.owner
    age = history.lengths[owner] - 1 - history.position
    recency = simulator.RECENCY_FLOOR + (1 - simulator.RECENCY_FLOOR) * simulator.RECENCY_DECAY**age
    pull = simulator.ATTRACTION[history.engagement] * recency
    scores = np.zeros((len(history), 5001))
    for rung in range(world.followers.shape[1]):
        odds = pull * world.follower_odds[history.item, rung]
        np.add.at(scores, (owner, world.followers[history.item, rung]), odds)
    scores[owner, history.item] = -1
    better = (scores > scores[np.arange(len(history)), target][:, None]).sum(axis=1)
    return float(((better < 10) & (scores[np.arange(len(history)), target] > 0)).mean())


def test_regions_watch_different_things_at_the_same_time(crowd: Sessions) -> None:
    found = crowd.cause < 0
    plays = {
        region: np.bincount(crowd.item[found & (crowd.region[crowd.owner] == region)], minlength=5001)
        for region in ("US", "DE")
    }
    top = {region: set(np.argsort(-count)[:50].tolist()) for region, count in plays.items()}

    assert len(top["US"] & top["DE"]) < 40


def test_now_is_where_the_caller_says(crowd: Sessions) -> None:
    moved = simulate(6000, seed=5, now_ms=simulator.REFERENCE_NOW_MS + 3 * DAY_MS)

    assert (moved.timestamp_ms - crowd.timestamp_ms == 3 * DAY_MS).all()
    assert (moved.item == crowd.item).all()


def test_nobody_is_too_few() -> None:
    with pytest.raises(InvalidSessions, match="at least 1"):
        simulate(0, seed=1)
    assert len(simulate(1, seed=1)) == 1


def test_the_odds_of_a_lead_are_as_often_right_as_they_say() -> None:
    users = simulate(6_000, 3)
    newest = users.offsets[1:] - 1
    users = users.select(users.cause[newest] >= 0)
    odds = lead_odds(users)
    cause = users.cause[users.offsets[1:] - 1] + odds.shape[1] - users.lengths + 1
    np.testing.assert_allclose(odds.sum(axis=1), 1.0)
    assert (odds[np.arange(len(users)), cause] > 0).all()
    right = odds.argmax(axis=1) == cause
    for low, high in ((0.0, 0.6), (0.6, 0.95), (0.95, 1.01)):
        said = (odds.max(axis=1) >= low) & (odds.max(axis=1) < high)
        assert said.sum() > 200
        error = 4 * np.sqrt(0.25 / said.sum())
        assert right[said].mean() == pytest.approx(odds.max(axis=1)[said].mean(), abs=error)
