"""SASRec (Kang and McAuley, ICDM 2018) as ``pmixer/SASRec.pytorch`` runs it, from its state dict.

That code pads every session on the left to ``maxlen`` columns and attends to the padding. All rows of padding are
alike: they have the same input, see nothing but padding, and so stay alike in every layer. Attention to k equal rows is
attention to one of them whose score is larger by log(k). One column of padding, with log(maxlen - events) added to
its score, therefore gives the same session vector without the other columns (within 1e-5 in float32), at the cost of
the events alone.

The variants are those of the repository's history:

- ``original``, until May 2025: the query is normalised, keys and values are not, and the residual is the query;
- ``2020``, until June 2024: the same, with positions from 0 and with padding set to zero before each block;
- ``pre-norm`` and ``post-norm``, since May 2025: by its flag ``--norm_first``.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from models.adapters.adapted import Adapted, Weights, embedding, item_array, linear, linear_of, norm
from models.adapters.attention import MASKED, Attention, asked_rows, keys, masked, without_each
from models.errors import BundleError

Variant = Literal["original", "2020", "pre-norm", "post-norm"]
Activation = Literal["relu", "gelu"]

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {"relu": nn.ReLU, "gelu": nn.GELU}

_EPSILON: Final = 1e-8


class Sasrec(nn.Module):
    """The session model at free length."""

    def __init__(self, weights: Weights, heads: int, variant: Variant, activation: Activation) -> None:
        super().__init__()
        self.item = embedding(weights["item_emb.weight"])
        self.position = nn.Embedding.from_pretrained(weights["pos_emb.weight"].float())
        self.first_position = 0 if variant == "2020" else 1
        self.max_length = self.position.num_embeddings - self.first_position
        self.zero_padding = variant == "2020"
        layers = sum(name.endswith("in_proj_weight") for name in weights)
        self.blocks = nn.ModuleList(_Block(weights, depth, heads, variant, activation) for depth in range(layers))
        self.last_norm = norm(weights, "last_layernorm", _EPSILON)

    def forward(self, item_index: Tensor, event_mask: Tensor, want_estimate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute session vector [B, d], attention [B, layers, heads, L] and estimate [B, L, d]; see Adapted.

        The estimate without an event masks it for the newest position only: the other positions stay as they are.
        Without the newest event, it is the position before that counts.
        """
        items = nn.functional.pad(item_index, (1, 0))  # column 0 stands for all padding
        present = items > 0
        rows, bias = self._embed(items, present), self._bias(present, nn.functional.pad(event_mask, (1, 0), value=True))
        asked, attention = asked_rows(want_estimate, item_index.shape[0]), []
        without = rows[asked, -1:].expand(-1, item_index.shape[1], -1)
        without_bias = without_each(bias[asked, -1:], 1, item_index.shape[1])
        for depth, block in enumerate(self.blocks):
            newest = depth == len(self.blocks) - 1  # only the newest rows of the last block are read
            without, _ = block(without, rows[asked], without_bias)
            rows, each = block(rows[:, -2:] if newest else rows, rows, bias[:, -2:] if newest else bias)
            if self.zero_padding:
                rows = rows * (present[:, -2:] if newest else present)[..., None]
            attention.append(each[..., 1:])
        estimate = torch.cat([without[:, :-1], rows[asked, :1]], 1)
        return self.last_norm(rows[:, -1]), torch.stack(attention, 1), self.last_norm(estimate)

    def _embed(self, items: Tensor, present: Tensor) -> Tensor:
        """Embed items and positions, [B, 1 + L, d]; the newest event always has the last position."""
        position = torch.arange(items.shape[1]) + self.position.num_embeddings - items.shape[1]
        rows = self.item(items) * self.item.embedding_dim**0.5 + self.position((position * present).clamp(min=0))
        return rows * present[..., None] if self.zero_padding else rows

    def _bias(self, present: Tensor, event_mask: Tensor) -> Tensor:
        """Return what is added to the scores, [B, 1 + L, 1 + L]: column 0 counts as all columns of padding."""
        padding = self.max_length - present.sum(1)
        padding_bias = torch.where(padding > 0, padding.clamp(min=1).float().log(), MASKED)
        bias = masked(keys(present, event_mask, causal=True))
        return torch.cat([padding_bias[:, None, None].expand(-1, bias.shape[1], -1), bias[..., 1:]], -1)


class _Block(nn.Module):
    def __init__(self, weights: Weights, depth: int, heads: int, variant: Variant, activation: Activation) -> None:
        super().__init__()
        name = f"attention_layers.{depth}"
        matrices = weights[f"{name}.in_proj_weight"].chunk(3)
        query, key, value = map(linear_of, matrices, weights[f"{name}.in_proj_bias"].chunk(3))
        self.attention = Attention(heads, query, key, value, linear(weights, f"{name}.out_proj"))
        self.attention_norm = norm(weights, f"attention_layernorms.{depth}", _EPSILON)
        self.feed_norm = norm(weights, f"forward_layernorms.{depth}", _EPSILON)
        convolutions = (linear(weights, f"forward_layers.{depth}.conv{part}") for part in (1, 2))
        self.feed = nn.Sequential(next(convolutions), ACTIVATIONS[activation](), next(convolutions))
        self.variant = variant

    def forward(self, queries: Tensor, rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the rows of the queries after this block, and the attention of the last one."""
        if self.variant == "pre-norm":
            context, attention = self.attention(self.attention_norm(queries), self.attention_norm(rows), bias)
            queries = queries + context
            return queries + self.feed(self.feed_norm(queries)), attention
        if self.variant == "post-norm":
            context, attention = self.attention(queries, rows, bias)
            queries = self.attention_norm(queries + context)
            return self.feed_norm(queries + self.feed(queries)), attention
        queries = self.attention_norm(queries)
        context, attention = self.attention(queries, rows, bias)
        queries = self.feed_norm(queries + context)
        return queries + self.feed(queries), attention


def sasrec(
    weights: Weights, *, heads: int = 1, variant: Variant = "original", activation: Activation = "relu"
) -> Adapted:
    """Read a SASRec out of a state dict with the names of pmixer/SASRec.pytorch.

    The state dict does not tell heads, variant and activation: they must be those of the training.

    Raises:
        BundleError: the state dict is of another model, or the settings do not fit it.

    """
    if missing := [
        name for name in ("item_emb.weight", "pos_emb.weight", "last_layernorm.weight") if name not in weights
    ]:
        raise BundleError(
            f"checkpoint: expected the state dict of pmixer/SASRec.pytorch, got one without {', '.join(missing)}: "
            "choose the family that the model belongs to, or bring it with --module."
        )
    d = weights["item_emb.weight"].shape[1]
    if heads < 1 or d % heads:
        raise BundleError(f"checkpoint: expected heads to divide the width {d}, got {heads}: correct --heads.")
    if variant not in get_args(Variant):
        raise BundleError(f"checkpoint: expected a variant out of {', '.join(get_args(Variant))}, got {variant}.")
    module = Sasrec(weights, heads, variant, activation).eval()
    return Adapted(
        module,
        item_array(weights["item_emb.weight"]),
        module.max_length,
        empty_session="run",
        has_blank_event=True,
    )
