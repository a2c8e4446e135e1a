"""The session transformer: a small causal self-attention model that predicts the next item of a session.

After SASRec (Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018), with pre-layer-normalisation
(Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020), sinusoidal positions (Vaswani et
al., "Attention Is All You Need", 2017, section 3.5) and what the user did with each item as a second input.

Positions are counted from the oldest event of the session, padding not counted. So padding on either side changes
nothing, and the output at each row is what the model says when run on the events up to that row alone: training on all
rows at once is training on all prefixes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name that every torch program uses

from models.session.config import SessionConfig, sinusoids


class Layer(nn.Module):
    """One pre-layer-normalised block: causal self-attention, then a feed-forward net, each added to its input.

    The projections have no biases: a key's would cancel in the softmax, and the others are not missed.
    """

    def __init__(self, config: SessionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(config.d)
        self.query = nn.Linear(config.d, config.d, bias=False)
        self.key = nn.Linear(config.d, config.d, bias=False)
        self.value = nn.Linear(config.d, config.d, bias=False)
        self.output = nn.Linear(config.d, config.d, bias=False)
        self.feed_norm = nn.LayerNorm(config.d)
        self.feed_in = nn.Linear(config.d, config.d_ff)
        self.feed_out = nn.Linear(config.d_ff, config.d)
        self.dropout = nn.Dropout(config.dropout)

    def split(self, x: Tensor) -> Tensor:
        """[..., L, d] to [..., heads, L, d / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def feed(self, h: Tensor) -> Tensor:
        """Add the feed-forward half of the block to h [..., d]."""
        return h + self.dropout(self.feed_out(F.relu(self.feed_in(self.feed_norm(h)))))

    def forward(self, h: Tensor, seen: Tensor) -> Tensor:
        """Run the block on h [B, L, d]; seen bool [B, 1, L, L] is true where a row attends to a key (last axis)."""
        x = self.attention_norm(h)
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.feed(h + self.dropout(self.output(context.transpose(1, 2).flatten(2))))


class SessionTransformer(nn.Module):
    """Item and engagement indices in, one vector per row out; the score of an item is vector · item_vectors[item]."""

    def __init__(self, config: SessionConfig) -> None:
        super().__init__()
        self.config = config
        self.item = nn.Embedding(config.items + 1, config.d, padding_idx=0)
        self.engagement = nn.Embedding(config.engagements + 1, config.d, padding_idx=0)
        # One row of the item table is both an input (scaled to the size of a position) and an output vector (tied).
        self.input_scale = math.sqrt(config.d)
        for embedding in (self.item, self.engagement):
            nn.init.normal_(embedding.weight, std=config.d**-0.5)
            nn.init.zeros_(embedding.weight[0])
        self.register_buffer("position", torch.from_numpy(sinusoids(config.max_length, config.d)), persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.d)
        # Without it, the newest item's own vector would reach the output along the residual path and plead for itself,
        # whereas hardly anybody watches the same thing twice: NDCG@10 .17 instead of .22 after the same short training.
        self.projection = nn.Linear(config.d, config.d)

    @property
    def item_vectors(self) -> Tensor:
        """[items + 1, d], row 0 all zeros."""
        return self.item.weight

    def embed(self, item_index: Tensor, engagement_index: Tensor, said: Tensor | None = None) -> Tensor:
        """[B, L] indices to the first hidden rows [B, L, d]; what an event says is scaled by said, float32 [B, L]."""
        place = (item_index.ne(0).long().cumsum(dim=1) - 1).clamp(min=0)
        tokens = (self.item(item_index) + self.engagement(engagement_index)) * self.input_scale
        if said is not None:
            tokens = tokens * said[:, :, None]
        return tokens + self.position[place]

    def rows(self, hidden: Tensor, item_index: Tensor, removed: Tensor | None = None) -> Tensor:
        """Run the layers on first hidden rows [B, L, d].

        removed, bool [B, L], takes events away as attention keys in every layer, which is the slow definition of what
        the exported graph calls ``without``.
        """
        length = item_index.shape[1]
        keys = item_index.ne(0) if removed is None else item_index.ne(0) & ~removed
        causal = torch.ones(length, length, dtype=torch.bool, device=item_index.device).tril()
        # Every row sees itself, padding too: a softmax over nothing would be NaN, and nobody reads a padding row. A
        # removed key stays hidden from its own row, unless it would be alone there.
        alone = ~(keys[:, None, :] & causal).any(dim=2)
        seen = (keys[:, None, :] & causal) | torch.diag_embed(alone)
        h = self.dropout(hidden)
        for layer in self.layers:
            h = layer(h, seen[:, None])
        vectors: Tensor = self.projection(self.final_norm(h))
        return vectors

    def forward(self, item_index: Tensor, engagement_index: Tensor, said: Tensor | None = None) -> Tensor:
        """int64 [B, L] each, 0 = padding on either side; returns [B, L, d], meaningless at padding.

        said, float32 [B, L]: the part of each event that is heard, by default 1; at 0 it is there and says nothing.
        """
        return self.rows(self.embed(item_index, engagement_index, said), item_index)
