"""The selector chooses only types that hold, is deterministic, explores within its bound, and is calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.bundle import Bundle, attach
from models.data.feedback import probability_of_helping
from models.errors import BundleError
from models.selector.features import CONTEXT, FEATURES, TYPES, rows
from models.selector.runtime import MAX_EXPLORATION, Selector, choose, preferred, probabilities
from models.selector.train import Feedback, Report, TooLittleFeedback, evaluate, train
from tests.bundles import tiny_bundle

USERS = 4_000


def answers(users: int, seed: int) -> Feedback:
    """Make three answers of each simulated user, in random contexts."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), 3)
    ranges = {
        "engaged_share": (0, 1),
        "top_category_share": (0.1, 0.9),
        "usual_popularity": (20, 100),
        "hours_since_last": (0, 200),
        "category_titles": (1, 10),
        "ranks_lost": (0, 4),
    }
    context = np.column_stack([rng.uniform(*ranges.get(name, (0, 1)), len(user)) for name in CONTEXT])
    context[rng.random(context.shape) < 0.02] = np.nan
    holds = rng.random((len(user), len(TYPES))) < 0.7
    holds[np.arange(len(user)), rng.integers(len(TYPES), size=len(user))] = True
    several = holds.sum(axis=1) > 1
    context, holds, user = context[several], holds[several], user[several]
    count = holds.sum(axis=1)
    nth = (rng.random(len(user)) * count).astype(np.int64)
    shown = (np.cumsum(holds, axis=1) <= nth[:, None]).sum(axis=1)
    helpful = rng.random(len(user)) < probability_of_helping(context, user, shown, seed)
    return Feedback(context, holds, shown, 1 / count, helpful, user)


@pytest.fixture(scope="module")
def trained() -> tuple[Selector, Report]:
    return train(answers(USERS, 1), exploration=MAX_EXPLORATION)


@pytest.fixture(scope="module")
def selector(trained: tuple[Selector, Report]) -> Selector:
    return trained[0]


def contexts(seed: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    context = rng.normal(size=(count, len(CONTEXT))) * 100
    context[rng.random(context.shape) < 0.2] = np.nan
    return context, rng.random((count, len(TYPES))) < 0.5, rng.random(count)


@given(seed=st.integers(0, 2**32), count=st.integers(0, 40))
def test_a_type_that_does_not_hold_is_never_chosen(selector: Selector, seed: int, count: int) -> None:
    context, holds, draw = contexts(seed, count)
    choice = choose(selector, context, holds, draw)
    chosen = choice >= 0
    assert (chosen == holds.any(axis=1)).all()
    assert holds[chosen, choice[chosen]].all()


@given(seed=st.integers(0, 2**32))
def test_a_choice_does_not_depend_on_other_items_of_the_batch(selector: Selector, seed: int) -> None:
    context, holds, draw = contexts(seed, 20)
    together = choose(selector, context, holds, draw)
    alone = [choose(selector, context[[n]], holds[[n]], draw[[n]])[0] for n in range(20)]
    assert together.tolist() == alone


def test_exploration_draws_every_type_that_holds_at_its_rate(selector: Selector) -> None:
    context, _, draw = contexts(7, 20_000)
    holds = np.ones((len(draw), len(TYPES)), dtype=np.bool_)
    choice, best = choose(selector, context, holds, draw), preferred(probabilities(selector, context, holds))
    explored = draw < selector.exploration
    assert (choice[~explored] == best[~explored]).all()
    shares = np.bincount(choice[explored], minlength=len(TYPES)) / explored.sum()
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)
    # A third of the random choices equals the choice of the model.
    assert (choice != best).mean() == pytest.approx(selector.exploration * 2 / 3, abs=0.01)


def test_exploration_above_the_bound_is_rejected(selector: Selector) -> None:
    with pytest.raises(BundleError, match="exploration"):
        Selector.of(selector.text, (1.0, 0.0), MAX_EXPLORATION + 0.01)


def test_predicted_probabilities_are_calibrated(selector: Selector) -> None:
    report = evaluate(selector, answers(USERS, 2))
    assert report.ece < 0.03
    observed = [observed for _, observed in report.reliability[::3]]
    assert observed == sorted(observed)


def test_estimated_values_are_near_the_true_ones_and_the_learned_policy_is_better(selector: Selector) -> None:
    seed = 3
    test = answers(USERS, seed)
    report = evaluate(selector, test)
    choice = preferred(probabilities(selector, test.context, test.holds))
    true_values = [
        probability_of_helping(test.context, test.user, kind, seed).mean()
        for kind in (choice, test.holds.argmax(axis=1))
    ]
    for value, true_value in zip((report.learned, report.fixed), true_values, strict=True):
        assert abs(value.mean - true_value) < 1.5 * value.margin
    assert true_values[0] > true_values[1]
    assert report.gain.mean > report.gain.margin > 0


def test_contributions_sum_to_the_calibrated_log_odds(selector: Selector) -> None:
    context, _, _ = contexts(4, 50)
    X = rows(context, np.arange(50) % len(TYPES))
    probability = selector.probability(X)
    np.testing.assert_allclose(
        selector.contributions(X).sum(axis=1), np.log(probability / (1 - probability)), atol=1e-6
    )
    assert selector.contributions(X).shape == (50, len(FEATURES) + 1)


def test_an_altered_selector_is_rejected(selector: Selector, tmp_path: Path) -> None:
    assert Selector.load(Bundle.load(tiny_bundle(tmp_path))) is None
    found = Selector.load(attach(tmp_path, selector.files()))
    assert found is not None
    assert found.version == selector.version
    (tmp_path / "selector.json").write_text("{}")
    with pytest.raises(BundleError, match=r"selector\.json"):
        Bundle.load(tmp_path)


def test_another_calibration_has_another_version(selector: Selector) -> None:
    assert Selector.of(selector.text, (1.0, 0.5), selector.exploration).version != selector.version


def test_too_little_feedback_is_rejected() -> None:
    with pytest.raises(TooLittleFeedback, match="users"):
        train(answers(3, 1))
