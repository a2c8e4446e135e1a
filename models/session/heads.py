"""What each head does: where it looks, and what its looking at each event does to the score of the best item.

Where a head looks says little about what it does (see ``models/attribution/removal.py``), so both are measured, and
both are put into the same four classes, those in which recommenders' heads are usually described.
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

LONG: Final = 10
"""Events: in shorter sessions, where a head looks says little, since there is little choice."""

FOCUSED, RECENCY, CATEGORY = 0.5, 0.6, 0.5

_BATCH: Final = 32


@dataclass(frozen=True)
class Profile:
    """How a head spreads its weight over the events of a session, as means over sessions.

    entropy: of the weights, 1 where all are equal; recency: correlation of the weights with the order of the events;
    category: share of the weight on events of the category of the best item.
    """

    entropy: float
    recency: float
    category: float

    @property
    def kind(self) -> Kind:
        """The first class that fits."""
        if self.entropy < FOCUSED:
            return "focused"
        if self.recency > RECENCY:
            return "recency"
        return "category" if self.category > CATEGORY else "distributed"


@dataclass(frozen=True)
class Head:
    """One head: the profile of its attention from the newest event, and the profile of its effects.

    The effect of an event through a head is the change of the best item's score, relative to the mean of all items,
    when the event is hidden from this head alone; its size counts, whichever its sign. strongest is the mean over
    sessions of the largest effect, in logits.
    """

    layer: int
    head: int
    attention: Profile
    effect: Profile
    strongest: float


def describe_heads(net: SessionTransformer, sessions: Sessions) -> list[Head]:
    """Measure every head on the histories of 10 events and more; empty if there is none."""
    sessions = sessions.select(sessions.lengths >= LONG)
    if not len(sessions):
        return []
    items, engagements = sessions.padded(min(int(sessions.lengths.max()), net.config.max_length))
    parts = [
        _measure(
            net, torch.from_numpy(items[start : start + _BATCH]), torch.from_numpy(engagements[start : start + _BATCH])
        )
        for start in range(0, len(items), _BATCH)
    ]
    attention, effect, best = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    there = items > 0
    codes = sessions.catalog.category_codes
    same = there & (codes[items] == codes[best][:, None])
    return [
        Head(
            layer=layer + 1,
            head=head + 1,
            attention=_profile(attention[:, layer, head], there, same),
            effect=_profile(np.abs(effect[:, layer, head]), there, same),
            strongest=float(np.abs(effect[:, layer, head]).max(axis=1).mean()),
        )
        for layer in range(net.config.layers)
        for head in range(net.config.heads)
    ]


def recency(weight: Floats, there: npt.NDArray[np.bool_]) -> Floats:
    """Pearson correlation of weights with the order of the events, float64 [n]; 0 where either is constant.

    weight is [n, L], 0 where there is no event; there bool [n, L].
    """
    columns, count = np.arange(weight.shape[1]), np.maximum(there.sum(axis=1, keepdims=True), 1)
    order = np.where(there, columns - (columns * there).sum(axis=1, keepdims=True) / count, 0.0)
    apart = np.where(there, weight - weight.sum(axis=1, keepdims=True) / count, 0.0)
    spread = np.sqrt((order**2).sum(axis=1) * (apart**2).sum(axis=1))
    # Equal weights differ by float noise only; a correlation with noise would say something.
    flat = spread <= 1e-6 * count[:, 0]
    return np.where(flat, 0.0, (order * apart).sum(axis=1) / np.where(flat, 1.0, spread))


def _profile(weight: Floats, there: npt.NDArray[np.bool_], same: npt.NDArray[np.bool_]) -> Profile:
    total = weight.sum(axis=1, keepdims=True)
    weight = weight / np.where(total > 0, total, 1.0)
    logs = np.log(weight, out=np.zeros_like(weight), where=weight > 0)
    entropy = -(weight * logs).sum(axis=1) / np.log(there.sum(axis=1))
    return Profile(
        float(entropy.mean()), float(recency(weight, there).mean()), float((weight * same).sum(axis=1).mean())
    )


def _measure(
    net: SessionTransformer, items: Tensor, engagements: Tensor
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Attention and effect, [B, layers, heads, L] each, and the best item [B]."""
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
        wanted = vectors[best] - vectors.mean(dim=0)
        before = (_vector(net, rows[-1]) * wanted).sum(dim=1)
        attention = torch.stack(
            [_attention(layer, h, seen)[:, :, -1] for layer, h in zip(net.layers, rows[:-1], strict=True)], dim=1
        )
        effect = torch.zeros_like(attention)
        for depth in range(len(net.layers)):
            for head in range(heads):
                for event in range(length):
                    hidden = seen.clone()
                    hidden[:, head, :, event] = False
                    # The oldest event's own row has no other key; what it asks changes nothing that is looked at.
                    hidden[:, head] |= torch.diag_embed(~hidden[:, head].any(dim=2))
                    h = net.layers[depth](rows[depth], hidden)
                    for later in net.layers[depth + 1 :]:
                        h = later(h, seen)
                    effect[:, depth, head, event] = before - (_vector(net, h) * wanted).sum(dim=1)
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
