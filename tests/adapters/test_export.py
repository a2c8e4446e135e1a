"""Attention of PyTorch's own modules exports at any length, with the same results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.adapters.adapted import Adapted, item_array
from models.adapters.attention import MASKED, FreeLengthAttention, with_free_length
from models.errors import BundleError
from tests.adapters.written import written

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


class _Encoder(nn.Module):
    """A causal encoder of PyTorch, with its own mask."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(31, D, padding_idx=0)
        layer = nn.TransformerEncoderLayer(D, HEADS, 2 * D, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(D), enable_nested_tensor=False)

    def forward(self, item_index: Tensor) -> Tensor:
        future = nn.Transformer.generate_square_subsequent_mask(item_index.shape[1])
        padding = torch.where(item_index == 0, -1e9, 0.0)
        rows = self.encoder(self.item(item_index), mask=future, src_key_padding_mask=padding, is_causal=True)
        return Tensor(rows[:, -1])


class _Scaled(nn.Module):
    """The attention function of PyTorch, from the newest event."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(31, D, padding_idx=0)

    def forward(self, item_index: Tensor) -> Tensor:
        rows, seen = self.item(item_index), (item_index > 0)[:, None]
        return nn.functional.scaled_dot_product_attention(rows[:, -1:], rows, rows, attn_mask=seen)[:, 0]


class _Recurrent(nn.Module):
    """An LSTM of two layers over events that were moved to the left."""

    def __init__(self) -> None:
        super().__init__()
        self.item, self.lstm = nn.Embedding(31, D, padding_idx=0), nn.LSTM(D, D, 2, batch_first=True)

    def forward(self, item_index: Tensor) -> Tensor:
        length, count = item_index.shape[1], (item_index > 0).sum(1)
        column = (torch.arange(length) + (length - count)[:, None]).clamp(max=length - 1)
        rows, _ = self.lstm(self.item(item_index.gather(1, column)))
        return rows.gather(1, (count - 1).clamp(min=0)[:, None, None].expand(-1, -1, D)).squeeze(1)


class _Loop(nn.Module):
    """A Python loop over the columns, whose number is that of the example in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.item, self.cell = nn.Embedding(31, D, padding_idx=0), nn.GRUCell(D, D)

    def forward(self, item_index: Tensor) -> Tensor:
        state = torch.zeros(item_index.shape[0], D)
        for column in range(item_index.shape[1]):
            item = item_index[:, column]
            state = torch.where((item > 0)[:, None], self.cell(self.item(item), state), state)
        return state


@pytest.mark.parametrize("kind", [_Encoder, _Scaled, _Recurrent])
def test_what_people_write_exports_as_it_is(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = kind().eval()
    written(tmp_path, Adapted(module, item_array(module.item.weight), max_length=9))  # type: ignore[arg-type]


def test_a_loop_over_columns_needs_a_fixed_length(tmp_path: Path) -> None:
    module = _Loop().eval()
    vectors = item_array(module.item.weight)
    with pytest.raises(BundleError, match="computes with Python numbers"):
        written(tmp_path / "free", Adapted(module, vectors, max_length=9))
    written(tmp_path / "fixed", Adapted(module, vectors, max_length=9, fixed_length=9))
