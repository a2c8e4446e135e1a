"""What an adapter gives: a PyTorch module that fits the contract of the session graph, with its item vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.manifest import EmptySession

Floats = npt.NDArray[np.float32]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Adapted:
    """A session model that is ready for export.

    Attributes:
        module: ``forward`` takes the inputs of the session graph under their names: ``item_index`` int64 [B, L], padded
            with 0 on the left, and optionally ``engagement_index`` int64 [B, L], ``event_mask`` bool [B, L] and
            ``want_estimate``, a bool scalar. It returns the session vector float32 [B, d]; or a tuple of it, the
            attention float32 [B, layers, heads, L] and, if an estimate may be wanted, an approximation of the session
            vector without each event, float32 [B, L, d], of which no row is computed if it is not wanted.
        item_vectors: float32 [n + 1, d], row 0 all zeros; the score of item i is
            ``session_vector @ item_vectors[i] + item_bias[i]``.
        max_length: number of newest events that the model reads.
        item_bias: float32 [n + 1], 0 in row 0; None for a model without.
        fixed_length: number of columns that the module requires; None if it runs on any number up to max_length.
        empty_session: what an empty session is for the recommender (see Manifest); "run" if the module gives the right
            session vector for a row of padding.
        has_blank_event: whether item index n + 1 is the blank event, whose embedding is zero.

    """

    module: nn.Module
    item_vectors: Floats
    max_length: int
    item_bias: Floats | None = None
    fixed_length: int | None = None
    empty_session: EmptySession = "unknown"
    has_blank_event: bool = False


def item_array(weight: Tensor) -> Floats:
    """Turn a table of items [n + 1, ...] into a float32 array whose row 0, of padding, is zero."""
    array = weight.detach().cpu().float().numpy().copy()
    array[0] = 0
    return np.asarray(array, dtype=np.float32)


def embedding(weight: Tensor) -> nn.Embedding:
    """Return an embedding of a table [n + 1, d] and of the blank event, index n + 1, whose row is zero."""
    blank = torch.zeros_like(weight[:1])
    return nn.Embedding.from_pretrained(torch.cat([weight, blank]).float())


def linear(weights: Weights, name: str) -> nn.Linear:
    """Return the linear layer whose weight, and bias if it has one, have this prefix."""
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    # A convolution of kernel size 1 is a linear layer, too.
    return linear_of(weight.squeeze(-1) if weight.ndim == 3 else weight, bias)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return the linear layer of a weight [out, in] and a bias [out]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return layer


def norm(weights: Weights, name: str, epsilon: float) -> nn.LayerNorm:
    """Return the layer normalisation whose weight and bias have this prefix."""
    layer = nn.LayerNorm(len(weights[f"{name}.weight"]), eps=epsilon)
    layer.load_state_dict({part: weights[f"{name}.{part}"] for part in ("weight", "bias")})
    return layer
