"""Training of the re-ranker: it beats the session score alone, is monotone where required, and deterministic."""

from __future__ import annotations

from itertools import product

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.data import simulator
from models.data.sessions import Sessions
from models.data.simulator import simulate
from models.data.world import streamrec
from models.reranker.candidates import top_unseen
from models.reranker.features import FEATURE_SET, FEATURES
from models.reranker.itemlog import ItemLog
from models.reranker.train import LABEL_EVENTS, MONOTONE, TooFewInteractions, Trained, auc, ndcg, sample_slates, train

pytestmark = pytest.mark.slow

# Random item vectors: with them, encode() is a session model that knows the simulator's own probabilities.
VECTORS = np.random.default_rng(0).normal(scale=1 / 16, size=(5001, 256)).astype(np.float32)
VECTORS[0] = 0


def encode(items: np.ndarray, engagements: np.ndarray) -> np.ndarray:
    world = streamrec()
    leads = np.einsum("nkd,nk->nd", VECTORS[world.followers], world.follower_probability).astype(np.float32)
    weight = simulator.ATTRACTION[engagements] * 0.62 ** np.arange(items.shape[1] - 1, -1, -1)
    weight /= weight.sum(axis=1, keepdims=True)
    return (20 * np.einsum("bl,bld->bd", weight, leads[items])).astype(np.float32)


@pytest.fixture(scope="module")
def users() -> Sessions:
    return simulate(1200, seed=21)


@pytest.fixture(scope="module")
def trained(users: Sessions) -> Trained:
    return train(users, encode, VECTORS, seed=3, trees=60)


def test_the_reranker_ranks_better_than_the_session_score_alone(trained: Trained) -> None:
    metrics = trained.metrics

    assert metrics["auc"] > metrics["auc_session_score"] > 0.5
    assert metrics["ndcg10"] > metrics["ndcg10_session_score"]
    assert 0.01 < metrics["engaged_share"] < 0.3
    assert 1 <= metrics["trees"] <= 60


def test_the_model_reads_the_listed_features_in_order(trained: Trained) -> None:
    booster = lgb.Booster(model_str=trained.model_text)

    assert booster.feature_name() == [feature.name for feature in FEATURES]
    assert trained.features == FEATURES
    assert trained.feature_set == FEATURE_SET
    assert booster.num_trees() == trained.metrics["trees"]


@pytest.mark.parametrize("name", MONOTONE)
def test_scores_are_monotone_in_constrained_features(trained: Trained, users: Sessions, name: str) -> None:
    booster = lgb.Booster(model_str=trained.model_text)
    examples = sample_slates(
        users.select(np.arange(20)), encode, VECTORS, ItemLog.of(users), seed=1, slates_per_history=1, slate_size=5
    )
    column = [feature.name for feature in FEATURES].index(name)
    values = np.unique(examples.rows[:, column][np.isfinite(examples.rows[:, column])])
    rows = np.repeat(examples.rows, len(values), axis=0)
    rows[:, column] = np.tile(values, len(examples.rows))
    scores = booster.predict(rows, raw_score=True, num_threads=1).reshape(len(examples.rows), len(values))

    assert (MONOTONE[name] * np.diff(scores, axis=1) >= -1e-12).all()


def test_the_same_seed_gives_the_same_trees(users: Sessions) -> None:
    few = users.select(np.arange(300))
    one, two = (train(few, encode, VECTORS, seed=1, trees=5).model_text for _ in range(2))

    assert one == two


def test_too_few_interactions_are_rejected(users: Sessions) -> None:
    with pytest.raises(TooFewInteractions, match="bring more histories"):
        train(users.select(np.arange(3)), encode, VECTORS)
    with pytest.raises(TooFewInteractions, match="got 0 engaged of 0"):
        train(users.first(3), encode, VECTORS)


def test_a_label_is_an_engagement_within_the_next_events(users: Sessions) -> None:
    some = users.select(np.arange(60))
    examples = sample_slates(some, encode, VECTORS, ItemLog.of(users), seed=9, slates_per_history=1, slate_size=20)
    # The same random moments as in the code under test.
    rng = np.random.default_rng([9, 11])
    length = rng.integers(4, some.lengths)
    history = some.first(length)
    items, _ = top_unseen(encode(*history.padded(50)), VECTORS, history.padded(50)[0], 20)
    for row in range(len(some)):
        start = some.offsets[row] + length[row]
        end = min(start + LABEL_EVENTS, some.offsets[row + 1])
        liked = {int(item) for item, code in zip(some.item[start:end], some.engagement[start:end], strict=True)
                 if code in {2, 3, 4}}  # fmt: skip
        assert examples.engaged[row].tolist() == [int(item) in liked for item in items[row]]
    assert examples.engaged.any()


def test_candidates_are_the_best_unseen_items() -> None:
    random = np.random.default_rng(2)
    vectors, item_vectors = random.normal(size=(7, 8)).astype("f4"), random.normal(size=(40, 8)).astype("f4")
    seen = random.integers(0, 40, size=(7, 6))
    items, scores = top_unseen(vectors, item_vectors, seen, 10)

    for row in range(7):
        unseen = sorted(set(range(1, 40)) - set(seen[row].tolist()))
        best = sorted(unseen, key=lambda item: -float(vectors[row] @ item_vectors[item]))[:10]
        assert items[row].tolist() == best
        np.testing.assert_allclose(scores[row], item_vectors[items[row]] @ vectors[row], rtol=1e-5, atol=1e-5)


slates = st.integers(2, 12).flatmap(
    lambda width: st.tuples(
        arrays.arrays(np.float64, (4, width), elements=st.integers(0, 5)), arrays.arrays(np.bool_, (4, width))
    )
)


@settings(deadline=None)
@given(slates)
def test_auc_is_the_share_of_correctly_ordered_pairs(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, engaged = drawn
    pairs = [(a > b) + 0.5 * (a == b) for a, b in product(scores[engaged], scores[~engaged])]
    if pairs:
        assert auc(scores, engaged) == pytest.approx(np.mean(pairs))


@settings(deadline=None)
@given(slates)
def test_ndcg_is_the_gain_over_the_ideal_gain(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, engaged = drawn
    parts = []
    for row_scores, row in zip(scores, engaged, strict=True):
        if row.any():
            ranked = [row[column] for column in sorted(range(len(row)), key=lambda column: -row_scores[column])][:10]
            best = sorted(row, reverse=True)[:10]
            gain, ideal = (sum(g / np.log2(k + 2) for k, g in enumerate(order)) for order in (ranked, best))
            parts.append(gain / ideal)
    if parts:
        assert ndcg(scores, engaged) == pytest.approx(np.mean(parts))
