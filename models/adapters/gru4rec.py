"""GRU4Rec (Hidasi et al., ICLR 2016) from the state dict of ``hidasib/GRU4Rec_PyTorch_Official``.

That code numbers items from 0, so that item index k here is its item k - 1. Its scores are
``Wy · hidden state + By``, whose second part becomes the item bias. An empty session is the state before the first
event, which is zero. The network reads any number of events; max_length is how many the recommender feeds it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.adapters.adapted import Adapted, Weights, embedding, item_array
from models.errors import BundleError


class Gru4rec(nn.Module):
    """Item embeddings, gated recurrent units, and optionally a linear layer after them."""

    def __init__(self, items: Tensor, layers: Sequence[nn.GRU], dense: nn.Linear | None = None) -> None:
        super().__init__()
        self.item = embedding(items)
        self.layers = nn.ModuleList(layers)
        self.dense = nn.Identity() if dense is None else dense

    def forward(self, item_index: Tensor) -> Tensor:
        """Compute the session vector [B, d] of sessions [B, L], padded on the left; see Adapted."""
        length = item_index.shape[1]
        count = (item_index > 0).sum(1)
        # A recurrent network must not read padding before the events, so events move to the left. What follows the
        # newest event has no effect on the state at that event.
        column = (torch.arange(length) + (length - count)[:, None]).clamp(max=length - 1)
        rows = self.item(item_index.gather(1, column))
        for layer in self.layers:
            rows, _ = layer(rows)
        newest = (count - 1).clamp(min=0)[:, None, None].expand(-1, -1, rows.shape[-1])
        state = rows.gather(1, newest).squeeze(1) * (count > 0)[:, None]
        vector: Tensor = self.dense(state)
        return vector


def gru(weights: Sequence[Tensor]) -> nn.GRU:
    """Return one layer of input weights [3 h, i], hidden weights [3 h, h] and, if there are any, their biases [3 h]."""
    layer = nn.GRU(weights[0].shape[1], weights[1].shape[1], bias=len(weights) == 4, batch_first=True)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    layer.load_state_dict(dict(zip(names, weights, strict=False)))
    return layer


def gru4rec(weights: Weights, *, max_length: int = 50) -> Adapted:
    """Read a GRU4Rec out of the state dict of ``gru.model``, with shared (constrained) or separate embeddings.

    Raises:
        BundleError: the state dict is of another model, or its first layer reads one-hot vectors.

    """
    if missing := [name for name in ("Wy.weight", "By.weight", "G.0.weight_ih") if name not in weights]:
        remedy = "train it with an embedding (constrained_embedding or embedding)" if "GE.Wh0" in weights else (
            "choose the family that the model belongs to, or bring it with --module"
        )  # fmt: skip
        raise BundleError(
            "checkpoint: expected the state dict of the model of GRU4Rec_PyTorch_Official, got one without "
            f"{', '.join(missing)}: {remedy}."
        )
    layers: list[nn.GRU] = []
    while f"G.{len(layers)}.weight_ih" in weights:
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        layers.append(gru([weights[f"G.{len(layers)}.{part}"] for part in parts]))
    outputs, inputs = weights["Wy.weight"], weights.get("E.weight", weights["Wy.weight"])
    return Adapted(
        Gru4rec(_after_padding(inputs), layers).eval(),
        item_array(_after_padding(outputs)),
        max_length,
        item_bias=item_array(_after_padding(weights["By.weight"]).squeeze(1)),
        empty_session="run",
        has_blank_event=True,
    )


def _after_padding(table: Tensor) -> Tensor:
    """Put a row of zeros, the padding, before a table whose first row is that of the first item."""
    return nn.functional.pad(table, (0, 0, 1, 0))
