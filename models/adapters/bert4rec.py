"""BERT4Rec (Sun et al., CIKM 2019) from the state dict of ``jaywonchung/BERT4Rec-VAE-Pytorch``.

That code appends a mask token to the session, keeps the newest ``max_len`` columns, pads on the left, and reads the
scores at the mask. The mask always has the last position. Attention goes in both directions, and not to padding, so
that the model is the same at free length.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from models.adapters.adapted import Adapted, Weights, embedding, item_array, linear
from models.adapters.attention import Attention, asked_rows, keys, masked, without_each
from models.errors import BundleError

_EPSILON: Final = 1e-6


class Bert4rec(nn.Module):
    """The session model at free length."""

    def __init__(self, weights: Weights, heads: int) -> None:
        super().__init__()
        tokens = weights["bert.embedding.token.weight"]
        self.item = embedding(tokens[:-1])
        self.mask = nn.Parameter(tokens[-1].float())
        self.position = nn.Embedding.from_pretrained(weights["bert.embedding.position.pe.weight"].float())
        layers = sum(name.endswith("attention.output_linear.weight") for name in weights)
        self.blocks = nn.ModuleList(_Block(weights, depth, heads) for depth in range(layers))

    def forward(self, item_index: Tensor, event_mask: Tensor, want_estimate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute session vector [B, d], attention [B, layers, heads, L] and estimate [B, L, d]; see Adapted.

        The estimate without an event masks it for the mask's position only: the other positions stay as they are.
        """
        mask = self.mask.expand(item_index.shape[0], 1, -1)
        position = torch.arange(item_index.shape[1] + 1) + self.position.num_embeddings - item_index.shape[1] - 1
        rows = torch.cat([self.item(item_index), mask], 1) + self.position(position)
        present, event_mask = (nn.functional.pad(each, (0, 1), value=True) for each in (item_index > 0, event_mask))
        bias, attention = masked(keys(present, event_mask, causal=False)), []
        asked = asked_rows(want_estimate, item_index.shape[0])
        without = rows[asked, -1:].expand(-1, item_index.shape[1], -1)
        without_bias = without_each(bias[asked, -1:], 0, item_index.shape[1])
        for depth, block in enumerate(self.blocks):
            without, _ = block(without, rows[asked], without_bias)
            newest = depth == len(self.blocks) - 1  # only the mask's row of the last block is read
            rows, each = block(rows[:, -1:] if newest else rows, rows, bias[:, -1:] if newest else bias)
            attention.append(each[..., :-1])
        return rows[:, -1], torch.stack(attention, 1), without


class _Block(nn.Module):
    def __init__(self, weights: Weights, depth: int, heads: int) -> None:
        super().__init__()
        name = f"bert.transformer_blocks.{depth}"
        query, key, value = (linear(weights, f"{name}.attention.linear_layers.{part}") for part in range(3))
        self.attention = Attention(heads, query, key, value, linear(weights, f"{name}.attention.output_linear"))
        self.attention_norm = _Norm(weights, f"{name}.input_sublayer.norm")
        self.feed_norm = _Norm(weights, f"{name}.output_sublayer.norm")
        first, second = (linear(weights, f"{name}.feed_forward.w_{part}") for part in (1, 2))
        self.feed = nn.Sequential(first, nn.GELU(approximate="tanh"), second)

    def forward(self, queries: Tensor, rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the rows of the queries after this block, and the attention of the last one."""
        context, attention = self.attention(self.attention_norm(queries), self.attention_norm(rows), bias)
        queries = queries + context
        return queries + self.feed(self.feed_norm(queries)), attention


class _Norm(nn.Module):
    """Layer normalisation of that code: it divides by the unbiased standard deviation plus epsilon."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(weights[f"{name}.a_2"]), nn.Parameter(weights[f"{name}.b_2"])

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise rows [..., d]."""
        centred = rows - rows.mean(-1, keepdim=True)
        variance = (centred * centred).sum(-1, keepdim=True) / (rows.shape[-1] - 1)
        return self.scale * centred / (variance.sqrt() + _EPSILON) + self.shift


def bert4rec(weights: Weights, *, heads: int) -> Adapted:
    """Read a BERT4Rec out of a state dict with the names of jaywonchung/BERT4Rec-VAE-Pytorch.

    max_length is one less than the positions, the last of which is the mask's. The state dict does not tell the heads.

    Raises:
        BundleError: the state dict is of another model, or the heads do not fit it.

    """
    expected = ("bert.embedding.token.weight", "bert.embedding.position.pe.weight", "out.weight")
    if missing := [name for name in expected if name not in weights]:
        raise BundleError(
            "checkpoint: expected the state dict of BERT4Rec-VAE-Pytorch, got one without "
            f"{', '.join(missing)}: choose the family that the model belongs to, or bring it with --module."
        )
    d = weights[expected[0]].shape[1]
    if heads < 1 or d % heads:
        raise BundleError(f"checkpoint: expected heads to divide the width {d}, got {heads}: correct --heads.")
    return Adapted(
        Bert4rec(weights, heads).eval(),
        item_array(weights["out.weight"]),
        len(weights[expected[1]]) - 1,
        item_bias=item_array(weights["out.bias"]),
        empty_session="run",
        has_blank_event=True,
    )
