"""Training finds the structure of the data and is deterministic."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attribution.reference import zeroed
from models.data.sessions import Sessions
from models.session import loss
from models.session.config import Recipe, SessionConfig
from models.session.evaluate import evaluate_model, evaluate_popularity
from models.session.lstm import SessionLstm
from models.session.train import Progress, SessionNet, as_numpy, batches, new_model, train, vectors_of, weights_of
from models.session.transformer import SessionTransformer
from tests.bundles import ITEMS, tiny_catalog

pytestmark = pytest.mark.slow

SIZE = SessionConfig(items=ITEMS, d=16, heads=2, d_ff=32, dropout=0.0)
_START_MS, _STEP_MS = 1_760_000_000_000, 6 * 3_600_000
RECIPE = Recipe(epochs=8, events_per_batch=256, rate=1e-2)


def walks(count: int, seed: int, length: int = 9) -> Sessions:
    """Histories in which item k is followed by item k + 7, and in one of ten cases by a random item."""
    random = np.random.default_rng(seed)
    item = np.zeros((count, length), dtype=np.int32)
    item[:, 0] = random.integers(1, ITEMS + 1, count)
    for step in range(1, length):
        follower = (item[:, step - 1] + 6) % ITEMS + 1
        item[:, step] = np.where(random.random(count) < 0.9, follower, random.integers(1, ITEMS + 1, count))
    return Sessions(
        item=item.ravel(),
        engagement=random.integers(1, 6, count * length).astype(np.int8),
        timestamp_ms=(_START_MS + _STEP_MS * np.add.outer(np.arange(count) % 50, np.arange(length))).ravel(),
        cause=np.full(count * length, -1, dtype=np.int32),
        offsets=np.arange(count + 1, dtype=np.int64) * length,
        user_id_hash=np.array([f"{seed:08x}{number:08x}" for number in range(count)]),
        region=np.full(count, "GB"),
        locale=np.full(count, "en-GB"),
        catalog=tiny_catalog(),
    )


@pytest.mark.parametrize("kind", [SessionTransformer, SessionLstm])
def test_a_model_learns_which_item_follows_which(kind: type[SessionNet]) -> None:
    learn, held_out = walks(400, seed=1), walks(200, seed=2)
    model = new_model(kind, SIZE, seed=0)
    best = train(model, learn, walks(100, seed=3), RECIPE)
    metrics = evaluate_model(vectors_of(model), weights_of(model), held_out, SIZE.max_length)
    assert metrics.hit_at_10 > 0.85
    assert metrics.mrr > 0.7
    assert evaluate_popularity(learn, held_out).hit_at_10 < 0.4
    assert best.ndcg_at_10 > 0.7


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    model, validation, seen = new_model(SessionTransformer, SIZE, seed=0), walks(60, seed=3), []
    best = train(
        model, walks(60, seed=1), validation, RECIPE, lambda now: seen.append(now.metrics) if now.metrics else None
    )
    assert len(seen) == RECIPE.epochs
    assert best.ndcg_at_10 == max(metrics.ndcg_at_10 for metrics in seen)
    assert evaluate_model(vectors_of(model), weights_of(model), validation, SIZE.max_length) == best


def test_the_same_seed_gives_the_same_weights() -> None:
    models = [new_model(SessionTransformer, SIZE, seed=0) for _ in range(2)]
    for model in models:
        train(model, walks(40, seed=1), walks(20, seed=3), Recipe(epochs=2, events_per_batch=64))
    one, other = map(as_numpy, models)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_moving_average_of_the_weights_is_kept_if_requested() -> None:
    decay, recipe = 0.8, Recipe(epochs=1, events_per_batch=64, average=0.8)
    model, sessions = new_model(SessionTransformer, SIZE, seed=0), walks(60, seed=1)
    mean, steps = as_numpy(copy.deepcopy(model)), []

    def follow(now: Progress) -> None:
        if now.metrics is None:
            steps.append(as_numpy(copy.deepcopy(model)))

    train(model, sessions, walks(20, seed=3), recipe, follow)
    assert len(steps) > 5
    for weights in steps:
        mean = {name: decay * mean[name] + (1 - decay) * weights[name] for name in mean}
    kept = as_numpy(model)
    for name, weights in mean.items():
        np.testing.assert_allclose(kept[name], weights, atol=1e-6, err_msg=name)
    assert np.abs(kept["item.weight"] - steps[-1]["item.weight"]).max() > 1e-3


def test_every_event_but_the_first_is_a_target_exactly_once() -> None:
    sessions = walks(7, seed=5, length=23)
    for seed in range(5):
        counted = np.zeros(ITEMS + 1, dtype=np.int64)
        for items, engagements, targets in batches(
            sessions, 6, Recipe(events_per_batch=32), np.random.default_rng(seed)
        ):
            assert items.shape[1] <= 6
            assert torch.equal(items > 0, targets > 0)
            assert torch.equal(items > 0, engagements > 0)
            # Within a piece, the target of a row is the item of the next row.
            inside = targets[:, :-1][items[:, 1:] > 0]
            assert torch.equal(inside, items[:, 1:][items[:, 1:] > 0])
            counted += np.bincount(targets.numpy().ravel(), minlength=ITEMS + 1)
        expected = np.bincount(sessions.item.reshape(7, 23)[:, 1:].ravel(), minlength=ITEMS + 1)
        np.testing.assert_array_equal(counted[1:], expected[1:])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(rows=st.one_of(st.integers(1, 40), st.integers(500, 1600)), seed=st.integers(0, 1000))
def test_the_loss_in_blocks_equals_the_plain_loss(rows: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 6, generator=random), torch.randn(11, 6, generator=random)
    targets = torch.randint(0, 11, (rows,), generator=random)
    results = []
    for method in (
        loss.catalogue_cross_entropy,
        lambda r, i, t: torch.nn.functional.cross_entropy(r @ i.T, t),
    ):
        leaves = [each.clone().requires_grad_() for each in inputs]
        value = method(*leaves, targets)
        (3.0 * value).backward()
        results.append([value.detach(), *(leaf.grad for leaf in leaves)])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_scale_zero_blanks_an_event() -> None:
    model = new_model(SessionTransformer, SIZE, seed=0).eval()
    items, engagements = np.array([[3, 9, 4, 7]]), np.array([[1, 2, 5, 1]])
    without = zeroed(model, items, engagements)
    for event in range(items.shape[1]):
        scale = (torch.arange(items.shape[1])[None] != event).float()
        with torch.no_grad():
            rows = model(torch.from_numpy(items), torch.from_numpy(engagements), scale)
        np.testing.assert_allclose(rows[0, -1].numpy(), without[0, event], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [SessionTransformer, SessionLstm])
def test_a_model_trained_with_blank_events_is_uncertain_about_blank_sessions(kind: type[SessionNet]) -> None:
    cross_entropy = []
    for blank in ((0.0, 0.0), (0.0, 0.4)):
        chance = chances(kind, replace(RECIPE, blank=blank), 0.0)[0]
        cross_entropy.append(-float(np.log(chance).mean()))
    # The cross-entropy of a uniform prediction is log(items).
    assert cross_entropy[1] < 1.2 * np.log(ITEMS) < cross_entropy[0]


@pytest.mark.parametrize("kind", [SessionTransformer, SessionLstm])
def test_a_model_trained_with_faded_sessions_gains_confidence_gradually(kind: type[SessionNet]) -> None:
    parts, off = (0.25, 0.5, 0.75), []
    for faded in (0.0, 0.5):
        whole, *faint = (
            each.mean() for each in chances(kind, replace(RECIPE, blank=(0.0, 0.4), faded=faded), 1.0, *parts)
        )
        off.append(max(abs(chance - part * whole) for part, chance in zip(parts, faint, strict=True)))
    assert off[1] < 0.6 * off[0]


@cache
def trained(kind: type[SessionNet], recipe: Recipe) -> SessionNet:
    """Return a trained model, which the tests with the same recipe share."""
    model = new_model(kind, SIZE, seed=0)
    train(model, walks(400, seed=1), walks(100, seed=3), recipe)
    return model


def chances(kind: type[SessionNet], recipe: Recipe, *parts: float) -> list[np.ndarray]:
    """Train, and return the probability of each next item with all embeddings scaled by each factor."""
    held_out = walks(400, seed=2, length=5)
    items, engagements = map(torch.from_numpy, held_out.without_last().padded(4))
    target = torch.from_numpy(held_out.item[held_out.offsets[1:] - 1].astype(np.int64))
    model, found = trained(kind, recipe), []
    for part in parts:
        with torch.no_grad():
            scores = model(items, engagements, torch.full(items.shape, part))[:, -1] @ model.item_vectors[1:].T
        found.append(scores.softmax(dim=1)[torch.arange(len(target)), target - 1].numpy())
    return found


def test_padding_on_either_side_does_not_change_the_output() -> None:
    model = new_model(SessionTransformer, SIZE, seed=0).eval()
    items, engagements = torch.tensor([[3, 9, 4]]), torch.tensor([[1, 2, 5]])
    with torch.no_grad():
        plain = model(items, engagements)
        for left, right in ((2, 0), (0, 3), (4, 1)):
            padded = (torch.nn.functional.pad(each, (left, right)) for each in (items, engagements))
            torch.testing.assert_close(model(*padded)[:, left : left + 3], plain)


def test_later_events_do_not_change_earlier_rows() -> None:
    model = new_model(SessionTransformer, SIZE, seed=0).eval()
    items, engagements = torch.tensor([[3, 9, 4, 8]]), torch.tensor([[1, 2, 5, 3]])
    with torch.no_grad():
        whole, prefix = model(items, engagements), model(items[:, :2], engagements[:, :2])
    torch.testing.assert_close(whole[:, :2], prefix)


def test_the_baseline_has_the_same_size() -> None:
    counts = [
        sum(weight.numel() for weight in kind(SessionConfig(items=100)).parameters())
        for kind in (SessionTransformer, SessionLstm)
    ]
    assert abs(counts[0] - counts[1]) < 0.02 * counts[0]
