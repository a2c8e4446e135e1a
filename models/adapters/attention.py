"""Attention of several heads, written so that it exports to ONNX with free batch and length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MASKED = -1e30
"""Added to the score of a masked key: below every real score, but finite, so that no softmax is NaN."""


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) whose mask is added to the scores.

    ``torch.nn.MultiheadAttention`` computes the same; its shape arithmetic is fixed to the example when it is exported.
    """

    def __init__(self, heads: int, query: nn.Linear, key: nn.Linear, value: nn.Linear, output: nn.Linear) -> None:
        super().__init__()
        self.heads, self.query, self.key, self.value, self.output = heads, query, key, value, output

    def forward(self, queries: Tensor, rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from queries [B, Q, d] to rows [B, K, d], with bias [B, Q, K] added to the scores.

        Returns the output [B, Q, d] and the attention of the last query, [B, heads, K].
        """
        q, k, v = self._split(self.query(queries)), self._split(self.key(rows)), self._split(self.value(rows))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias[:, None]
        attention = scores.softmax(-1)
        context = (attention @ v).transpose(1, 2).flatten(2)
        return self.output(context), attention[:, :, -1]

    def _split(self, rows: Tensor) -> Tensor:
        """Split [B, L, d] into heads, [B, heads, L, d / heads]."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def masked(allowed: Tensor) -> Tensor:
    """Return what to add to the scores: 0 where a key is allowed, MASKED elsewhere."""
    return torch.where(allowed, 0.0, MASKED)


def keys(present: Tensor, event_mask: Tensor, *, causal: bool) -> Tensor:
    """Return which keys each row may attend to, bool [B, row, key].

    Args:
        present: bool [B, L], false for padding, which nobody attends to.
        event_mask: bool [B, L], false for events that no other position may attend to.
        causal: whether a row attends to itself and the rows before it only.

    """
    column = torch.arange(present.shape[1])
    itself = column[:, None] == column
    allowed = present[:, None] & (event_mask[:, None] | itself)
    return allowed & (column <= column[:, None]) if causal else allowed
