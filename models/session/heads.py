"""The attention of each head, and the effect of each head's attention to an event on the score of the best item.

Attention weights alone are no evidence of influence (Jain and Wallace, "Attention is not Explanation", NAACL 2019), so
attention and effect are measured separately. Both are classified by the same four patterns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.data.sessions import Sessions
from models.session.transformer import SessionTransformer

Floats = npt.NDArray[np.float64]
Kind = Literal["focused", "recency", "category", "distributed"]

MIN_EVENTS: Final = 10
"""Shorter histories are left out: with few events, the distribution of attention has little meaning."""

FOCUSED, RECENCY, CATEGORY = 0.5, 0.6, 0.5

_BATCH: Final = 32


@dataclass(frozen=True)
class Profile:
    """The distribution of a head's weights over the events of a session, as means over sessions.

    Attributes:
        entropy: normalised entropy of the weights, 1 if all are equal.
        recency: correlation of the weights with the order of the events.
        category: share of the weight on events of the best item's category.

    """

    entropy: float
    recency: float
    category: float

    @property
    def kind(self) -> Kind:
        """The first pattern that applies."""
        if self.entropy < FOCUSED:
            return "focused"
        if self.recency > RECENCY:
            return "recency"
        return "category" if self.category > CATEGORY else "distributed"


@dataclass(frozen=True)
class Head:
    """The profiles of one head.

    The effect of an event through a head is the drop of the best item's score, relative to the mean score of all items,
    when the event is masked in this head only. Profiles are of the absolute effect.

    Attributes:
        layer: number of the layer, from 1.
        head: number of the head in its layer, from 1.
        attention: profile of the attention from the newest event.
        effect: profile of the effects.
        largest_effect: mean over sessions of the largest absolute effect, in logits.

    """

    layer: int
    head: int
    attention: Profile
    effect: Profile
    largest_effect: float


def describe_heads(net: SessionTransformer, sessions: Sessions) -> list[Head]:
    """Measure every head on the histories of at least MIN_EVENTS events; empty if there are none."""
    sessions = sessions.select(sessions.lengths >= MIN_EVENTS)
    if not len(sessions):
        return []
    items, engagements = sessions.padded(min(int(sessions.lengths.max()), net.config.max_length))
    parts = [
        attention_and_effect(
            net, torch.from_numpy(items[start : start + _BATCH]), torch.from_numpy(engagements[start : start + _BATCH])
        )
        for start in range(0, len(items), _BATCH)
    ]
    attention, effect, best = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    real = items > 0
    codes = sessions.catalog.category_codes
    same = real & (codes[items] == codes[best][:, None])
    return [
        Head(
            layer=layer + 1,
            head=head + 1,
            attention=_profile(attention[:, layer, head], real, same),
            effect=_profile(np.abs(effect[:, layer, head]), real, same),
            largest_effect=float(np.abs(effect[:, layer, head]).max(axis=1).mean()),
        )
        for layer in range(net.config.layers)
        for head in range(net.config.heads)
    ]


def recency(weight: Floats, real: npt.NDArray[np.bool_]) -> Floats:
    """Pearson correlation of weights with the order of the events, float64 [n]; 0 if either is constant.

    weight is float64 [n, L], 0 at padding; real, bool [n, L], marks the events.
    """
    columns, count = np.arange(weight.shape[1]), np.maximum(real.sum(axis=1, keepdims=True), 1)
    order = np.where(real, columns - (columns * real).sum(axis=1, keepdims=True) / count, 0.0)
    deviation = np.where(real, weight - weight.sum(axis=1, keepdims=True) / count, 0.0)
    spread = np.sqrt((order**2).sum(axis=1) * (deviation**2).sum(axis=1))
    # Equal weights differ by rounding errors, whose correlation has no meaning.
    constant = spread <= 1e-6 * count[:, 0]
    return np.where(constant, 0.0, (order * deviation).sum(axis=1) / np.where(constant, 1.0, spread))


def _profile(weight: Floats, real: npt.NDArray[np.bool_], same: npt.NDArray[np.bool_]) -> Profile:
    total = weight.sum(axis=1, keepdims=True)
    weight = weight / np.where(total > 0, total, 1.0)
    logs = np.log(weight, out=np.zeros_like(weight), where=weight > 0)
    entropy = -(weight * logs).sum(axis=1) / np.log(real.sum(axis=1))
    return Profile(
        float(entropy.mean()), float(recency(weight, real).mean()), float((weight * same).sum(axis=1).mean())
    )


def attention_and_effect(
    net: SessionTransformer, items: Tensor, engagements: Tensor
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Measure attention and effect of each head, float64 [B, layers, heads, L] each, and the best item int64 [B].

    items and engagements are int64 [B, L], left-padded with 0.
    """
    length, heads = items.shape[1], net.config.heads
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    alone = torch.eye(length, dtype=torch.bool) & items.eq(0)[:, :, None]
    seen = ((items.ne(0)[:, None, :] & causal) | alone)[:, None].expand(-1, heads, -1, -1)  # [B, heads, row, key]
    with torch.no_grad():
        rows = [net.embed(items, engagements)]
        for layer in net.layers:
            rows.append(layer(rows[-1], seen))
        vectors = net.item_vectors[1:]
        scores = _vector(net, rows[-1]) @ vectors.T
        best = scores.argmax(dim=1)
        centred = vectors[best] - vectors.mean(dim=0)
        score = (_vector(net, rows[-1]) * centred).sum(dim=1)
        attention = torch.stack(
            [_attention(layer, h, seen)[:, :, -1] for layer, h in zip(net.layers, rows[:-1], strict=True)], dim=1
        )
        effect = torch.zeros_like(attention)
        for depth in range(len(net.layers)):
            for head in range(heads):
                for event in range(length):
                    unmasked = seen.clone()
                    unmasked[:, head, :, event] = False
                    # A row without any other key keeps its own key, so that its softmax is defined.
                    unmasked[:, head] |= torch.diag_embed(~unmasked[:, head].any(dim=2))
                    h = net.layers[depth](rows[depth], unmasked)
                    for later in net.layers[depth + 1 :]:
                        h = later(h, seen)
                    effect[:, depth, head, event] = score - (_vector(net, h) * centred).sum(dim=1)
        effect *= items.ne(0)[:, None, None]
        return attention.double().numpy(), effect.double().numpy(), (best + 1).numpy()


def _vector(net: SessionTransformer, rows: Tensor) -> Tensor:
    vector: Tensor = net.projection(net.final_norm(rows[:, -1]))
    return vector


def _attention(layer: torch.nn.Module, h: Tensor, seen: Tensor) -> Tensor:
    x = layer.attention_norm(h)
    query, key = layer.split(layer.query(x)), layer.split(layer.key(x))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)
