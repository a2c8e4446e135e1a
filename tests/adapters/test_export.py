"""Attention of PyTorch's own modules exports at any length, with the same results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.adapters.attention import MASKED, FreeLengthAttention, with_free_length

B, L, D, HEADS = 3, 5, 12, 3


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


FUTURE = torch.triu(torch.ones(L, L, dtype=torch.bool), diagonal=1)
PADDING = torch.tensor([[True, True, False, False, False], [False] * L, [True, False, False, False, False]])


@pytest.mark.parametrize(
    ("built", "given"),
    [
        ({}, {}),
        ({"batch_first": True}, {"attn_mask": FUTURE}),
        ({"batch_first": True, "bias": False}, {"attn_mask": torch.where(FUTURE, -1e9, 0.0)}),
        ({}, {"key_padding_mask": PADDING, "average_attn_weights": False}),
        ({"batch_first": True}, {"key_padding_mask": PADDING, "attn_mask": FUTURE | FUTURE.T}),
        ({"batch_first": True}, {"attn_mask": FUTURE.expand(B * HEADS, -1, -1), "is_causal": True}),
        ({"batch_first": True, "kdim": 7, "vdim": 9}, {"need_weights": False}),
    ],
)
def test_attention_of_free_length_is_that_of_pytorch(built: dict[str, Any], given: dict[str, Any]) -> None:
    torch.manual_seed(0)
    original = nn.MultiheadAttention(D, HEADS, **built).eval()
    free = with_free_length(original)
    assert isinstance(free, FreeLengthAttention)
    assert type(original) is nn.MultiheadAttention
    inputs = [drawn(B, L, D), drawn(B, L, built.get("kdim", D)), drawn(B, L, built.get("vdim", D))]
    if not built.get("batch_first"):
        inputs = [each.transpose(0, 1) for each in inputs]
    expected, expected_weights = original(*inputs, **given)
    output, weights = free(*inputs, **given)
    # A row that may attend to nothing is NaN in PyTorch, and finite here.
    kept = ~expected.isnan()
    torch.testing.assert_close(output[kept], expected[kept])
    assert output.isfinite().all()
    assert (weights is None) == (expected_weights is None)
    if weights is not None and expected_weights is not None:
        known = ~expected_weights.isnan()
        torch.testing.assert_close(weights[known], expected_weights[known])


def test_a_masked_score_is_below_every_other() -> None:
    assert torch.tensor([MASKED, -1e4]).softmax(0).tolist() == [0, 1]
