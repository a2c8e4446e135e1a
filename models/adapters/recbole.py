"""SASRec, GRU4Rec and BERT4Rec of RecBole, from a checkpoint of its trainer.

Tested against the code of RecBole 1.2.1. RecBole pads on the right and does not attend to padding, so that free length
changes nothing; positions count from the oldest event. It cannot be asked about an empty session. Its BERT4Rec appends
a mask token and drops the first column, so that the oldest event of every session has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.adapters.adapted import Adapted, Weights, embedding, item_array, linear, norm
from models.adapters.attention import Attention, keys, masked
from models.adapters.gru4rec import Gru4rec, gru
from models.errors import BundleError

_ACTIVATIONS: Final[Mapping[str, type[nn.Module]]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Transformer(nn.Module):
    """RecBole's SASRec, or its BERT4Rec with ``bidirectional``."""

    def __init__(self, weights: Weights, settings: Mapping[str, Any], *, bidirectional: bool) -> None:
        super().__init__()
        epsilon, self.bidirectional = float(settings["layer_norm_eps"]), bidirectional
        tokens = weights["item_embedding.weight"]
        self.item = embedding(tokens[:-1] if bidirectional else tokens)
        self.mask = nn.Parameter(tokens[-1].float())
        self.position = nn.Embedding.from_pretrained(weights["position_embedding.weight"].float())
        self.norm = norm(weights, "LayerNorm", epsilon)
        layers = sum(name.endswith("multi_head_attention.query.weight") for name in weights)
        self.blocks = nn.ModuleList(_Block(weights, depth, settings, epsilon) for depth in range(layers))
        self.output: nn.Module = nn.Identity()
        if bidirectional:
            self.output = nn.Sequential(linear(weights, "output_ffn"), nn.GELU(), norm(weights, "output_ln", epsilon))

    def forward(self, item_index: Tensor, event_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute session vector [B, d] and attention [B, layers, heads, L]; see Adapted."""
        present, rows = item_index > 0, self.item(item_index)
        position = present.long().cumsum(1) - 1
        if self.bidirectional:
            # The oldest event is dropped, and the mask follows the newest one.
            present = present & (position > 0)
            position = torch.cat([position - 1, position[:, -1:]], 1)
            rows = torch.cat([rows, self.mask.expand(rows.shape[0], 1, -1)], 1)
            present, event_mask = (nn.functional.pad(each, (0, 1), value=True) for each in (present, event_mask))
        rows = self.norm(rows + self.position(position.clamp(min=0)))
        bias, attention = masked(keys(present, event_mask, causal=not self.bidirectional)), []
        for depth, block in enumerate(self.blocks):
            newest = depth == len(self.blocks) - 1  # only the newest row of the last block is read
            rows, each = block(rows[:, -1:] if newest else rows, rows, bias[:, -1:] if newest else bias)
            attention.append(each[..., :-1] if self.bidirectional else each)
        return self.output(rows[:, -1]), torch.stack(attention, 1)


class _Block(nn.Module):
    def __init__(self, weights: Weights, depth: int, settings: Mapping[str, Any], epsilon: float) -> None:
        super().__init__()
        name = f"trm_encoder.layer.{depth}.multi_head_attention"
        query, key, value, output = (linear(weights, f"{name}.{part}") for part in ("query", "key", "value", "dense"))
        self.attention = Attention(int(settings["n_heads"]), query, key, value, output)
        self.attention_norm = norm(weights, f"{name}.LayerNorm", epsilon)
        name = f"trm_encoder.layer.{depth}.feed_forward"
        activation = _ACTIVATIONS[settings["hidden_act"]]()
        self.feed = nn.Sequential(linear(weights, f"{name}.dense_1"), activation, linear(weights, f"{name}.dense_2"))
        self.feed_norm = norm(weights, f"{name}.LayerNorm", epsilon)

    def forward(self, queries: Tensor, rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the rows of the queries after this block, and the attention of the last one."""
        context, attention = self.attention(queries, rows, bias)
        queries = self.attention_norm(queries + context)
        return self.feed_norm(queries + self.feed(queries)), attention


_DEFAULTS: Final[Mapping[str, Any]] = {"n_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12}


def recbole(weights: Weights, settings: Mapping[str, Any]) -> Adapted:
    """Read one of RecBole's models; the names in the state dict tell which.

    Args:
        weights: ``state_dict`` of the checkpoint.
        settings: ``config`` of the checkpoint; RecBole's own defaults hold where it says nothing. n_heads, hidden_act,
            layer_norm_eps and MAX_ITEM_LIST_LENGTH are read.

    Raises:
        BundleError: the model is none of the three, or of another release of RecBole.

    """
    settings = dict(_DEFAULTS) | {name: value for name, value in settings.items() if value is not None}
    items = weights.get("item_embedding.weight")
    if items is not None and "gru_layers.weight_ih_l0" in weights:
        return _gru4rec(weights, items, int(settings.get("MAX_ITEM_LIST_LENGTH", 50)))
    bidirectional = "output_ffn.weight" in weights
    # A BERT4Rec without this layer is of a release that places the mask token elsewhere.
    is_other_release = settings.get("model") == "BERT4Rec" and not bidirectional
    if items is None or "position_embedding.weight" not in weights or is_other_release:
        raise BundleError(
            "checkpoint: expected a SASRec, GRU4Rec or BERT4Rec of RecBole 1.2, got a state dict of "
            f"{', '.join(list(weights)[:4])} …: bring other models with --module."
        )
    if settings["hidden_act"] not in _ACTIVATIONS or items.shape[1] % int(settings["n_heads"]):
        raise BundleError(
            f"checkpoint: expected n_heads to divide {items.shape[1]} and hidden_act out of "
            f"{', '.join(_ACTIVATIONS)}, got {settings['n_heads']} and {settings['hidden_act']}: correct --heads and "
            "--activation."
        )
    return Adapted(
        Transformer(weights, settings, bidirectional=bidirectional).eval(),
        item_array(items[:-1] if bidirectional else items),
        len(weights["position_embedding.weight"]),
        item_bias=item_array(weights["output_bias"]) if bidirectional else None,
        has_blank_event=True,
    )


def _gru4rec(weights: Weights, items: Tensor, max_length: int) -> Adapted:
    layers: list[nn.GRU] = []
    while f"gru_layers.weight_ih_l{len(layers)}" in weights:
        layers.append(gru([weights[f"gru_layers.weight_{part}_l{len(layers)}"] for part in ("ih", "hh")]))
    module = Gru4rec(items, layers, linear(weights, "dense")).eval()
    return Adapted(module, item_array(items), max_length, has_blank_event=True)
