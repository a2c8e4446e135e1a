"""Attention and effect of each head of a session model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.attribution import reference
from models.session.heads import CATEGORY, FOCUSED, Profile, attention_and_effect, describe_heads, recency
from models.session.transformer import SessionTransformer
from tests.bundles import TINY, random_weights
from tests.models.test_session_train import walks


@pytest.fixture(scope="module")
def net() -> SessionTransformer:
    model = SessionTransformer(TINY).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in random_weights(TINY).items()})
    return model


def test_recency_is_the_correlation_with_the_order_of_events() -> None:
    weight = np.array([[0, 0.1, 0.2, 0.3, 0.4], [0, 0.4, 0.3, 0.2, 0.1], [0, 0, 0, 0, 1], [0.2] * 5])
    real = np.arange(5) >= 5 - np.array([4, 4, 1, 5])[:, None]
    np.testing.assert_allclose(recency(weight, real), [1, -1, 0, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("profile", "kind"),
    [
        (Profile(FOCUSED - 0.01, 0.9, 0.9), "focused"),
        (Profile(0.8, 0.61, 0.9), "recency"),
        (Profile(0.8, 0.6, CATEGORY + 0.01), "category"),
        (Profile(0.8, 0.6, CATEGORY), "distributed"),
    ],
)
def test_a_profile_has_the_first_pattern_that_applies(profile: Profile, kind: str) -> None:
    assert profile.kind == kind


def test_padding_has_neither_attention_nor_effect(net: SessionTransformer) -> None:
    items = np.array([[0, 0, 5, 9, 7, 3], [2, 8, 4, 6, 1, 5]])
    engagements = np.where(items > 0, 1 + items % 5, 0)
    attention, effect, best = attention_and_effect(net, torch.from_numpy(items), torch.from_numpy(engagements))
    np.testing.assert_allclose(attention.sum(axis=3), 1.0, atol=1e-5)
    assert not attention[0, ..., :2].any()
    assert not effect[0, ..., :2].any()
    assert (np.abs(effect[:, :, :, -1]) > 1e-4).all()
    scores = reference.session_vectors(net, items, engagements) @ net.item_vectors.detach().numpy()[1:].T
    np.testing.assert_array_equal(best, scores.argmax(axis=1) + 1)


def test_every_head_is_described(net: SessionTransformer) -> None:
    heads = describe_heads(net, walks(20, seed=3, length=12))
    assert [(each.layer, each.head) for each in heads] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for each in heads:
        for profile in (each.attention, each.effect):
            assert 0 <= profile.entropy <= 1 + 1e-6
            assert 0 <= profile.category <= 1 + 1e-6
        assert each.largest_effect > 0
    assert describe_heads(net, walks(20, seed=3, length=6)) == []
