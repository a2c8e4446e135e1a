"""Public session models as their own code runs them, written again for these tests only.

Each has parameters of the names in its public state dict, and ``scores(session)``: the scores of all items, float64
[n + 1], after a session of item indices, oldest first and as long as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Scores = npt.NDArray[np.float64]

torch.manual_seed(0)


class Original(nn.Module):
    """A model that scores one session at a time."""

    def scores(self, session: Sequence[int]) -> Scores:
        """Score all items; the score of index 0, which is padding, is 0."""
        with torch.inference_mode():
            scores = self.score_all(list(session)).double().numpy().copy()
        scores[0] = 0
        return np.asarray(scores, dtype=np.float64)

    def score_all(self, session: list[int]) -> Tensor:
        """Score all items, [n + 1]."""
        raise NotImplementedError

    def randomised(self, seed: int) -> Original:
        """Draw all parameters anew, large enough that every event matters; rows of padding stay zero."""
        generator = torch.Generator().manual_seed(seed)
        for name, each in self.named_parameters():
            width = each.shape[-1] if each.ndim > 1 else 4
            scale = 0.3 if each.ndim == 1 else 1.5 * width**-0.5
            each.data = torch.randn(each.shape, generator=generator) * scale
            if each.ndim == 1 and name.endswith(("weight", "a_2")):
                each.data += 1
        for module in self.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight.data[module.padding_idx] = 0
        return self.eval()


class _Convolutions(nn.Module):
    def __init__(self, d: int, activation: nn.Module, *, residual: bool) -> None:
        super().__init__()
        self.conv1, self.activation, self.conv2 = nn.Conv1d(d, d, 1), activation, nn.Conv1d(d, d, 1)
        self.residual = residual

    def forward(self, rows: Tensor) -> Tensor:
        outputs = self.conv2(self.activation(self.conv1(rows.transpose(-1, -2)))).transpose(-1, -2)
        return outputs + rows if self.residual else outputs


class SasrecOriginal(Original):
    """pmixer/SASRec.pytorch: a window of maxlen columns, padded on the left, whose padding is attended to."""

    def __init__(
        self, items: int, d: int, maxlen: int, layers: int, heads: int, variant: str, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.maxlen, self.variant, self.of_2020 = maxlen, variant, variant == "2020"
        self.item_emb = nn.Embedding(items + 1, d, padding_idx=0)
        self.pos_emb = nn.Embedding(maxlen, d) if self.of_2020 else nn.Embedding(maxlen + 1, d, padding_idx=0)
        self.attention_layernorms = nn.ModuleList(nn.LayerNorm(d, eps=1e-8) for _ in range(layers))
        self.attention_layers = nn.ModuleList(nn.MultiheadAttention(d, heads) for _ in range(layers))
        self.forward_layernorms = nn.ModuleList(nn.LayerNorm(d, eps=1e-8) for _ in range(layers))
        residual = variant in {"original", "2020"}
        self.forward_layers = nn.ModuleList(
            _Convolutions(d, {"relu": nn.ReLU, "gelu": nn.GELU}[activation](), residual=residual) for _ in range(layers)
        )
        self.last_layernorm = nn.LayerNorm(d, eps=1e-8)

    def score_all(self, session: list[int]) -> Tensor:
        window = np.zeros((1, self.maxlen), dtype=np.int32)
        kept = session[-self.maxlen :]
        window[0, self.maxlen - len(kept) :] = kept
        return self.item_emb.weight @ self.log2feats(window)[0, -1]

    def log2feats(self, window: npt.NDArray[np.int32]) -> Tensor:
        rows = self.item_emb(torch.LongTensor(window)) * self.item_emb.embedding_dim**0.5
        padding = torch.BoolTensor(window == 0)
        if self.of_2020:
            rows = rows + self.pos_emb(torch.LongTensor(np.tile(np.arange(self.maxlen), [len(window), 1])))
            rows = rows * ~padding[..., None]
        else:
            positions = np.tile(np.arange(1, self.maxlen + 1), [len(window), 1]) * (window != 0)
            rows = rows + self.pos_emb(torch.LongTensor(positions))
        future = ~torch.tril(torch.ones((self.maxlen, self.maxlen), dtype=torch.bool))
        for layer, attention in enumerate(self.attention_layers):
            rows = self._block(rows.transpose(0, 1), layer, attention, future)
            if self.of_2020:
                rows = rows * ~padding[..., None]
        last: Tensor = self.last_layernorm(rows)
        return last

    def _block(self, rows: Tensor, layer: int, attention: nn.Module, future: Tensor) -> Tensor:
        attention_norm, feed_norm = self.attention_layernorms[layer], self.forward_layernorms[layer]
        feed = self.forward_layers[layer]
        if self.variant == "pre-norm":
            x = attention_norm(rows)
            rows = (rows + attention(x, x, x, attn_mask=future)[0]).transpose(0, 1)
            return Tensor(rows + feed(feed_norm(rows)))
        if self.variant == "post-norm":
            rows = attention_norm(rows + attention(rows, rows, rows, attn_mask=future)[0]).transpose(0, 1)
            return Tensor(feed_norm(rows + feed(rows)))
        query = attention_norm(rows)
        rows = (query + attention(query, rows, rows, attn_mask=future)[0]).transpose(0, 1)
        return Tensor(feed(feed_norm(rows)))


def load(model: Original, state: dict[str, Any]) -> Original:
    """Load weights, all of them."""
    model.load_state_dict(state, strict=True)
    return model.eval()
