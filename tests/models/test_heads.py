"""What heads look at, and what they do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.attribution import reference
from models.session.heads import CATEGORY, FOCUSED, Profile, _measure, describe_heads, recency
from models.session.transformer import SessionTransformer
from tests.bundles import TINY, random_weights
from tests.models.test_session_train import walks


@pytest.fixture(scope="module")
def net() -> SessionTransformer:
    made = SessionTransformer(TINY).eval()
    made.load_state_dict({name: torch.from_numpy(value) for name, value in random_weights(TINY).items()})
    return made


def test_weight_that_grows_with_every_event_is_all_recency() -> None:
    weight = np.array([[0, 0.1, 0.2, 0.3, 0.4], [0, 0.4, 0.3, 0.2, 0.1], [0, 0, 0, 0, 1], [0.2] * 5])
    there = np.arange(5) >= 5 - np.array([4, 4, 1, 5])[:, None]
    np.testing.assert_allclose(recency(weight, there), [1, -1, 0, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("profile", "kind"),
    [
        (Profile(FOCUSED - 0.01, 0.9, 0.9), "focused"),
        (Profile(0.8, 0.61, 0.9), "recency"),
        (Profile(0.8, 0.6, CATEGORY + 0.01), "category"),
        (Profile(0.8, 0.6, CATEGORY), "distributed"),
    ],
)
def test_a_head_is_of_the_first_class_that_fits(profile: Profile, kind: str) -> None:
    assert profile.kind == kind


def test_hiding_an_event_from_the_newest_layer_s_only_head_is_hiding_its_key_there(net: SessionTransformer) -> None:
    items = np.array([[0, 0, 5, 9, 7, 3], [2, 8, 4, 6, 1, 5]])
    received = np.where(items > 0, 1 + items % 5, 0)
    attention, effect, best = _measure(net, torch.from_numpy(items), torch.from_numpy(received))
    np.testing.assert_allclose(attention.sum(axis=3), 1.0, atol=1e-5)
    assert not attention[0, ..., :2].any()
    assert not effect[0, ..., :2].any()
    assert (np.abs(effect[:, :, :, -1]) > 1e-4).all()
    scores = reference.session_vectors(net, items, received) @ net.item_vectors.detach().numpy()[1:].T
    np.testing.assert_array_equal(best, scores.argmax(axis=1) + 1)


def test_every_head_is_described(net: SessionTransformer) -> None:
    heads = describe_heads(net, walks(20, seed=3, length=12))
    assert [(each.layer, each.head) for each in heads] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for each in heads:
        for profile in (each.attention, each.effect):
            assert 0 <= profile.entropy <= 1 + 1e-6
            assert 0 <= profile.category <= 1 + 1e-6
        assert each.strongest > 0
    assert describe_heads(net, walks(20, seed=3, length=6)) == []
