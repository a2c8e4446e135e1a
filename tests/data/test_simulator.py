"""The simulator: its behaviour has the documented properties, and its world does not depend on the seed."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from models.data import simulator
from models.data.sessions import COMPLETE, LIKE, SHARE, SKIP, VIEW, InvalidSessions, Sessions
from models.data.simulator import DAY_MS, cause_probabilities, simulate
from models.data.world import streamrec


@pytest.fixture(scope="module")
def simulated() -> Sessions:
    return simulate(6000, seed=5)


def test_the_seed_determines_every_bit(simulated: Sessions) -> None:
    again = simulate(6000, seed=5)

    for field in dataclasses.fields(Sessions):
        if field.name not in ("catalog", "engagements"):
            assert getattr(simulated, field.name).tobytes() == getattr(again, field.name).tobytes(), field.name
    assert simulated.engagements == again.engagements


def test_other_seeds_give_other_users_of_the_same_catalogue(simulated: Sessions) -> None:
    others = simulate(300, seed=6)

    assert not set(others.user_id_hash.tolist()) & set(simulated.user_id_hash.tolist())
    assert others.catalog is simulated.catalog


def test_titles_are_readable_and_distinct() -> None:
    catalog = streamrec().catalog

    assert len(catalog) == len(set(catalog.titles)) == len(set(catalog.item_ids)) == 5000
    assert {catalog.categories.count(name) for name in set(catalog.categories)} == {250}
    assert len(set(catalog.categories)) == 20
    assert all(re.fullmatch(r"[A-Z][\w&',.:?\- ]{3,70}", title) for title in catalog.titles)
    assert not [title for title in catalog.titles if re.search(r"\bA [AEIOU]", title)]
    popularity = catalog.popularity[1:]
    assert 0 < popularity.min() < 1
    assert 99 < popularity.max() < 100


def test_histories_have_plausible_lengths_items_and_times(simulated: Sessions) -> None:
    assert simulated.lengths.min() == 5
    assert simulated.lengths.max() == 50
    pairs = np.stack([simulated.owner, simulated.item], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs), "no user has an item twice"
    later = np.diff(simulated.timestamp_ms)[simulated.owner[1:] == simulated.owner[:-1]]
    assert later.min() > 0
    newest = simulated.timestamp_ms[simulated.offsets[1:] - 1]
    age = simulator.REFERENCE_NOW_MS - newest
    assert age.min() > 0
    assert age.max() <= 7 * DAY_MS + 1
    assert all(re.fullmatch(r"[0-9a-f]{16}", user) for user in simulated.user_id_hash.tolist())
    assert all(locale.endswith(region) for locale, region in zip(simulated.locale, simulated.region, strict=True))


def test_every_engagement_is_common_enough_to_learn_from(simulated: Sessions) -> None:
    share = np.bincount(simulated.engagement, minlength=6) / len(simulated.item)

    assert share[0] == 0
    assert all(0.08 < share[code] < 0.4 for code in (VIEW, LIKE, COMPLETE, SHARE, SKIP))


def test_a_cause_leads_to_one_of_its_followers(simulated: Sessions) -> None:
    caused = np.flatnonzero(simulated.cause >= 0)
    lead = simulated.item[simulated.offsets[simulated.owner[caused]] + simulated.cause[caused]]

    assert 0.6 < len(caused) / len(simulated.item) < 0.85
    assert (streamrec().followers[lead] == simulated.item[caused][:, None]).any(axis=1).all()
    distance = (simulated.position - simulated.cause)[caused]
    assert 0.3 < (distance == 1).mean() < 0.6, "the previous event must not be the only cause"
    assert (distance > 5).mean() > 0.05


def test_liked_events_are_causes_more_often_than_skipped_ones(simulated: Sessions) -> None:
    caused = np.flatnonzero(simulated.cause >= 0)
    causes = simulated.offsets[simulated.owner[caused]] + simulated.cause[caused]
    effects = np.bincount(causes, minlength=len(simulated.item))
    rate = {code: effects[simulated.engagement == code].mean() for code in (VIEW, LIKE, COMPLETE, SHARE, SKIP)}

    assert rate[SKIP] < 0.3 * rate[VIEW]
    assert rate[VIEW] < rate[COMPLETE] < rate[LIKE] < rate[SHARE]


def test_popularity_predicts_little_and_the_true_model_much(simulated: Sessions) -> None:
    target = simulated.item[simulated.offsets[1:] - 1]
    history = simulated.without_last()
    plays = np.bincount(history.item, minlength=5001)
    by_popularity = np.isin(target, np.argsort(-plays)[:10]).mean()

    assert 0.01 <= by_popularity <= 0.04
    assert hits_of_the_true_model(history, target) > 0.45


def hits_of_the_true_model(history: Sessions, target: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> float:
    """Hit@10 of a ranking by the simulator's own probabilities."""
    world, owner = streamrec(), history.owner
    age = history.lengths[owner] - 1 - history.position
    recency = simulator.RECENCY_FLOOR + (1 - simulator.RECENCY_FLOOR) * simulator.RECENCY_DECAY**age
    weight = simulator.ATTRACTION[history.engagement] * recency
    scores = np.zeros((len(history), 5001))
    for column in range(world.followers.shape[1]):
        probability = weight * world.follower_probability[history.item, column]
        np.add.at(scores, (owner, world.followers[history.item, column]), probability)
    scores[owner, history.item] = -1
    better = (scores > scores[np.arange(len(history)), target][:, None]).sum(axis=1)
    return float(((better < 10) & (scores[np.arange(len(history)), target] > 0)).mean())


def test_regions_prefer_different_items(simulated: Sessions) -> None:
    discovered = simulated.cause < 0
    plays = {
        region: np.bincount(simulated.item[discovered & (simulated.region[simulated.owner] == region)], minlength=5001)
        for region in ("US", "DE")
    }
    top = {region: set(np.argsort(-count)[:50].tolist()) for region, count in plays.items()}

    assert len(top["US"] & top["DE"]) < 40


def test_now_ms_shifts_all_times(simulated: Sessions) -> None:
    moved = simulate(6000, seed=5, now_ms=simulator.REFERENCE_NOW_MS + 3 * DAY_MS)

    assert (moved.timestamp_ms - simulated.timestamp_ms == 3 * DAY_MS).all()
    assert (moved.item == simulated.item).all()


def test_fewer_than_one_user_is_rejected() -> None:
    with pytest.raises(InvalidSessions, match="at least 1"):
        simulate(0, seed=1)
    assert len(simulate(1, seed=1)) == 1


def test_cause_probabilities_are_calibrated() -> None:
    users = simulate(6_000, 3)
    newest = users.offsets[1:] - 1
    users = users.select(users.cause[newest] >= 0)
    probability = cause_probabilities(users)
    cause = users.cause[users.offsets[1:] - 1] + probability.shape[1] - users.lengths + 1
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)
    assert (probability[np.arange(len(users)), cause] > 0).all()
    right = probability.argmax(axis=1) == cause
    for low, high in ((0.0, 0.6), (0.6, 0.95), (0.95, 1.01)):
        rows = (probability.max(axis=1) >= low) & (probability.max(axis=1) < high)
        assert rows.sum() > 200
        error = 4 * np.sqrt(0.25 / rows.sum())
        assert right[rows].mean() == pytest.approx(probability.max(axis=1)[rows].mean(), abs=error)
