"""Reference attribution in PyTorch, slow and independent: tests and evaluation compare the quick methods with it.

It has the three ablations of events and integrated gradients (Sundararajan, Taly and Yan, "Axiomatic Attribution for
Deep Networks", ICML 2017). An ablation runs the model once per event. No code is shared with the exported graph or with
``models/attribution/ablation.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.session.transformer import SessionTransformer

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Contributions of L events to the scores of N items in B sessions.

    values float64 [B, N, L], 0 at padding; residual float64 [B, N], the sum of the values minus the difference between
    score and baseline score: 0 for an exact integral.
    """

    values: npt.NDArray[np.float64]
    residual: npt.NDArray[np.float64]


def session_vectors(model: SessionTransformer, item_index: Index, engagement_index: Index) -> npt.NDArray[np.float32]:
    """Session vectors [B, d] of int64 [B, L] sessions, left-padded; zero for an empty session."""
    items, engagements = torch.from_numpy(item_index), torch.from_numpy(engagement_index)
    with torch.no_grad():
        return _numpy(_newest(model(items, engagements), items))


def masked(model: SessionTransformer, item_index: Index, engagement_index: Index) -> npt.NDArray[np.float32]:
    """Session vector with each event masked, float32 [B, L, d]: hidden as attention key, all others in their positions.

    The newest event is the query; without it, the event before it is the query. At padding: the session vector.
    """
    items, engagements = torch.from_numpy(item_index), torch.from_numpy(engagement_index)
    length = items.shape[1]

    def without(event: int) -> Tensor:
        if event == length - 1:
            return _newest(model(items[:, :-1], engagements[:, :-1]), items[:, :-1])
        removed = torch.zeros_like(items, dtype=torch.bool)
        removed[:, event] = True
        return _newest(model.rows(model.embed(items, engagements), items, removed), items)

    return _each(model, items, engagements, without)


def deleted(model: SessionTransformer, item_index: Index, engagement_index: Index) -> npt.NDArray[np.float32]:
    """Session vector with each event deleted, float32 [B, L, d]: later events have their position reduced by one.

    The recommender would compute the same for a session without the event. At padding: the session vector.
    """
    items, engagements = torch.from_numpy(item_index), torch.from_numpy(engagement_index)

    def without(event: int) -> Tensor:
        shorter, received = (torch.cat([x[:, :event], x[:, event + 1 :]], dim=1) for x in (items, engagements))
        return _newest(model(shorter, received), shorter)

    return _each(model, items, engagements, without)


def zeroed(model: SessionTransformer, item_index: Index, engagement_index: Index) -> npt.NDArray[np.float32]:
    """Session vector with each event blanked, float32 [B, L, d]: only its position is left, its embedding is zero.

    At padding: the session vector.
    """
    items, engagements = torch.from_numpy(item_index), torch.from_numpy(engagement_index)

    def without(event: int) -> Tensor:
        keep = torch.ones_like(items, dtype=torch.bool)
        keep[:, event] = False
        tokens, positions = _parts(model, items, engagements)
        return _newest(model.rows(tokens * keep[:, :, None] + positions, items), items)

    return _each(model, items, engagements, without)


def integrated_gradients(
    model: SessionTransformer, item_index: Index, engagement_index: Index, candidates: Index, *, steps: int = 32
) -> Attribution:
    """Integrated gradients of the scores of candidates int64 [B, N]; the baseline is a session of blank events.

    The integral is computed by the midpoint rule with so many steps. The attribution of an event is the sum over its
    embedding.
    """
    items, engagements = torch.from_numpy(item_index), torch.from_numpy(engagement_index)
    wanted = model.item_vectors[torch.from_numpy(candidates)].detach()  # [B, N, d]
    tokens, positions = (part.detach() for part in _parts(model, items, engagements))

    def scores(share: Tensor | float) -> Tensor:
        return torch.einsum("bd,bnd->bn", _newest(model.rows(share * tokens + positions, items), items), wanted)

    values = np.zeros((*candidates.shape, items.shape[1]))
    for step in range(steps):
        share = torch.full_like(tokens, (step + 0.5) / steps).requires_grad_()
        now = scores(share)
        for number in range(candidates.shape[1]):
            (slope,) = torch.autograd.grad(now[:, number].sum(), share, retain_graph=True)
            values[:, number] += slope.sum(dim=2).double().numpy() / steps
    values *= (item_index > 0)[:, None]
    with torch.no_grad():
        difference = (scores(1.0) - scores(0.0)).double().numpy()
    return Attribution(values, values.sum(axis=2) - difference)


def _parts(model: SessionTransformer, items: Tensor, engagements: Tensor) -> tuple[Tensor, Tensor]:
    """Split the input of the first layer into the embeddings of the events and those of their positions."""
    tokens = (model.item(items) + model.engagement(engagements)) * model.input_scale
    return tokens, model.embed(items, engagements) - tokens


def _newest(rows: Tensor, items: Tensor) -> Tensor:
    if items.shape[1] == 0:
        return rows.new_zeros((len(rows), rows.shape[2]))
    return rows[:, -1] * items[:, -1:].ne(0)


def _each(
    model: SessionTransformer, items: Tensor, engagements: Tensor, without: Callable[[int], Tensor]
) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        whole = _newest(model(items, engagements), items)
        if items.shape[1] == 0:
            return np.zeros((len(items), 0, model.config.d), dtype=np.float32)
        vectors = torch.stack([without(event) for event in range(items.shape[1])], dim=1)
        return _numpy(torch.where(items.ne(0)[:, :, None], vectors, whole[:, None]))


def _numpy(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.float().numpy()
    return array
