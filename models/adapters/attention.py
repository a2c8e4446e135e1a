"""Attention of several heads, written so that it exports to ONNX with free batch and length."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

MASKED = -1e30
"""Added to the score of a masked key: below every real score, but finite, so that no softmax is NaN."""


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) whose mask is added to the scores."""

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
        context = (attention @ v).transpose(1, 2)
        # No size is left to be found out (-1), which ONNX cannot do for a batch of none.
        context = context.reshape(context.shape[0], context.shape[1], self.output.in_features)
        return self.output(context), attention[:, :, -1]

    def _split(self, rows: Tensor) -> Tensor:
        """Split [B, L, d] into heads, [B, heads, L, d / heads]."""
        return rows.unflatten(-1, (self.heads, self.output.in_features // self.heads)).transpose(1, 2)


def without_each(bias: Tensor, first: int, events: int) -> Tensor:
    """Repeat the bias [B, 1, K] of one query for each event, [B, L, K], with the key of this event masked.

    The keys of the L events are the columns from ``first`` on.
    """
    column, event = torch.arange(bias.shape[-1]), first + torch.arange(events)
    return bias + masked(column != event[:, None])


def asked_rows(want_estimate: Tensor, batch: int) -> Tensor:
    """Return all rows of the batch if an estimate is wanted (bool scalar), else none: int64 [n]."""
    return torch.nonzero(want_estimate.expand(batch)).squeeze(1)


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


class FreeLengthAttention(nn.MultiheadAttention):
    """``torch.nn.MultiheadAttention`` with the same weights and results, whose export has free batch and length.

    PyTorch's own computes shapes with Python numbers, which an export fixes to those of the example.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as ``torch.nn.MultiheadAttention`` does; masks are bool, true where masked, or added to the scores."""
        del is_causal  # says that attn_mask is causal, and nothing more
        if not self.batch_first:
            query, key, value = (rows.transpose(0, 1) for rows in (query, key, value))
        q, k, v = (self._project(rows, part) for part, rows in enumerate((query, key, value)))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if attn_mask is not None:
            scores = scores + _added(attn_mask if attn_mask.ndim == 2 else attn_mask.unflatten(0, (-1, self.num_heads)))
        if key_padding_mask is not None:
            scores = scores + _added(key_padding_mask)[:, None, None]
        attention = scores.softmax(-1)
        output = self.out_proj((attention @ v).transpose(1, 2).flatten(2))
        weights = attention.mean(1) if average_attn_weights else attention
        return output if self.batch_first else output.transpose(0, 1), weights if need_weights else None

    def _project(self, rows: Tensor, part: int) -> Tensor:
        """Compute queries, keys or values of rows [B, L, i]: [B, heads, L, d / heads]."""
        if self.in_proj_weight is None:
            weight = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[part]
        else:
            weight = self.in_proj_weight.chunk(3)[part]
        bias = None if self.in_proj_bias is None else self.in_proj_bias.chunk(3)[part]
        projected = nn.functional.linear(rows, weight, bias)
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _added(mask: Tensor) -> Tensor:
    return torch.where(mask, MASKED, 0.0) if mask.dtype == torch.bool else mask


def with_free_length(module: nn.Module) -> nn.Module:
    """Copy a module, and let every ``torch.nn.MultiheadAttention`` in it export with free batch and length."""
    copied = copy.deepcopy(module)
    for each in copied.modules():
        if type(each) is nn.MultiheadAttention and each.bias_k is None and not each.add_zero_attn:
            each.__class__ = FreeLengthAttention
    return copied
