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

    def learned(self, items: npt.NDArray[np.int32]) -> Tensor:
        """Score all items after sessions that fill the window, int32 [B, L]: [B, n + 1]."""
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
        return self.learned(window)[0]

    def learned(self, items: npt.NDArray[np.int32]) -> Tensor:
        return Tensor(self.log2feats(items)[:, -1] @ self.item_emb.weight.T)

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


class Gru4recOriginal(Original):
    """hidasib/GRU4Rec_PyTorch_Official: items from 0, one GRU cell per layer, a bias per item."""

    def __init__(self, items: int, layers: Sequence[int], embedding: int = 0) -> None:
        super().__init__()
        if embedding:
            self.E = nn.Embedding(items, embedding)
        sizes = [embedding or layers[-1], *layers]
        self.G = nn.ModuleList(nn.GRUCell(sizes[depth], sizes[depth + 1]) for depth in range(len(layers)))
        self.Wy, self.By = nn.Embedding(items, layers[-1]), nn.Embedding(items, 1)

    def score_all(self, session: list[int]) -> Tensor:
        return self.learned(np.array([session], dtype=np.int32))[0]

    def learned(self, items: npt.NDArray[np.int32]) -> Tensor:
        states = [torch.zeros(len(items), cell.hidden_size) for cell in self.G]
        for column in items.T:
            row = (self.E if hasattr(self, "E") else self.Wy)(torch.from_numpy(column).long() - 1)
            for depth, cell in enumerate(self.G):
                states[depth] = row = cell(row, states[depth])
        scores = states[-1] @ self.Wy.weight.T + self.By.weight.T
        return nn.functional.pad(scores, (1, 0))


class _StandardNorm(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))

    def forward(self, rows: Tensor) -> Tensor:
        deviation = rows.std(-1, keepdim=True)
        return self.a_2 * (rows - rows.mean(-1, keepdim=True)) / (deviation + 1e-6) + self.b_2


class _Tree(nn.Module):
    """A module that only holds parts under the names of a state dict."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def __getitem__(self, name: str) -> Any:
        return self.get_submodule(name)


class Bert4recOriginal(Original):
    """jaywonchung/BERT4Rec-VAE-Pytorch: the mask in the last column of a window that is padded on the left."""

    def __init__(self, items: int, d: int, max_len: int, layers: int, heads: int) -> None:
        super().__init__()
        self.max_len, self.heads, self.mask = max_len, heads, items + 1
        token = nn.Embedding(items + 2, d, padding_idx=0)
        self.bert = _Tree(
            embedding=_Tree(token=token, position=_Tree(pe=nn.Embedding(max_len, d))),
            transformer_blocks=nn.ModuleList(
                _Tree(
                    attention=_Tree(
                        linear_layers=nn.ModuleList(nn.Linear(d, d) for _ in range(3)), output_linear=nn.Linear(d, d)
                    ),
                    feed_forward=_Tree(w_1=nn.Linear(d, 4 * d), w_2=nn.Linear(4 * d, d)),
                    input_sublayer=_Tree(norm=_StandardNorm(d)),
                    output_sublayer=_Tree(norm=_StandardNorm(d)),
                )
                for _ in range(layers)
            ),
        )
        self.out = nn.Linear(d, items + 1)

    def score_all(self, session: list[int]) -> Tensor:
        kept = session[-self.max_len + 1 :]
        return self.learned(np.array([[0] * (self.max_len - 1 - len(kept)) + kept], dtype=np.int32))[0]

    def learned(self, items: npt.NDArray[np.int32]) -> Tensor:
        window = nn.functional.pad(torch.from_numpy(items).long(), (0, 1), value=self.mask)
        rows = self.bert["embedding.token"](window) + self.bert["embedding.position.pe"].weight
        seen = (window > 0)[:, None, None]
        for block in self.bert["transformer_blocks"]:
            x = block["input_sublayer.norm"](rows)
            query, key, value = (
                layer(x).view(len(window), self.max_len, self.heads, -1).transpose(1, 2)
                for layer in block["attention.linear_layers"]
            )
            scores = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).masked_fill(~seen, -1e9)
            context = (scores.softmax(-1) @ value).transpose(1, 2).reshape(len(window), self.max_len, -1)
            rows = rows + block["attention.output_linear"](context)
            inner = block["feed_forward.w_1"](block["output_sublayer.norm"](rows))
            inner = 0.5 * inner * (1 + torch.tanh((2 / np.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
            rows = rows + block["feed_forward.w_2"](inner)
        return Tensor(self.out(rows[:, -1]))


class TwoTowerOriginal(Original):
    """The mean of item vectors, by ``EmbeddingBag``; the candidate tower has a table of its own or the same."""

    def __init__(self, items: int, d: int, *, shared: bool) -> None:
        super().__init__()
        self.history = nn.EmbeddingBag(items + 1, d, mode="mean", padding_idx=0)
        if not shared:
            self.candidate = nn.Embedding(items + 1, d, padding_idx=0)
        self.max_length = 8

    def score_all(self, session: list[int]) -> Tensor:
        window = [0] * self.max_length + session
        user = self.history(torch.tensor([window[-self.max_length :]]))
        return Tensor((self.candidate if hasattr(self, "candidate") else self.history).weight @ user[0])


class RecboleOriginal(Original):
    """RecBole 1.2.1: padding on the right, attention by a mask of -10000, normalisation after each residual."""

    def __init__(self, kind: str, items: int, d: int, max_length: int, layers: int, heads: int, act: str) -> None:
        super().__init__()
        self.kind, self.max_length, self.heads, self.d, self.n_items, self.act = (
            kind,
            max_length,
            heads,
            d,
            items + 1,
            act,
        )
        is_bert = kind == "BERT4Rec"
        self.item_embedding = nn.Embedding(self.n_items + is_bert, d, padding_idx=0)
        if kind == "GRU4Rec":
            self.gru_layers = nn.GRU(d, 2 * d, layers, bias=False, batch_first=True)
            self.dense = nn.Linear(2 * d, d)
            return
        self.position_embedding = nn.Embedding(max_length, d)
        self.LayerNorm = nn.LayerNorm(d, eps=1e-12)
        self.trm_encoder = _Tree(
            layer=nn.ModuleList(
                _Tree(
                    multi_head_attention=_Tree(
                        **{name: nn.Linear(d, d) for name in ("query", "key", "value", "dense")},
                        LayerNorm=nn.LayerNorm(d, eps=1e-12),
                    ),
                    feed_forward=_Tree(
                        dense_1=nn.Linear(d, 2 * d), dense_2=nn.Linear(2 * d, d), LayerNorm=nn.LayerNorm(d, eps=1e-12)
                    ),
                )
                for _ in range(layers)
            )
        )
        if is_bert:
            self.output_ffn, self.output_ln = nn.Linear(d, d), nn.LayerNorm(d, eps=1e-12)
            self.output_bias = nn.Parameter(torch.zeros(self.n_items))

    def score_all(self, session: list[int]) -> Tensor:
        kept = session[-self.max_length :]
        item_seq = torch.tensor([kept + [0] * (self.max_length - len(kept))])
        if self.kind == "BERT4Rec":
            item_seq = nn.functional.pad(item_seq, (0, 1))
            item_seq[0, len(kept)] = self.n_items
            item_seq = item_seq[:, 1:]
        rows = self.item_embedding(item_seq)
        if self.kind == "GRU4Rec":
            vector = self.dense(self.gru_layers(rows)[0])[0, len(kept) - 1]
        else:
            vector = self._transformer(rows, item_seq)[0, len(kept) - 1]
        scores = self.item_embedding.weight[: self.n_items] @ vector
        return scores + self.output_bias if self.kind == "BERT4Rec" else scores

    def _transformer(self, rows: Tensor, item_seq: Tensor) -> Tensor:
        rows = self.LayerNorm(rows + self.position_embedding.weight)
        seen = (item_seq != 0)[:, None, None]
        if self.kind == "SASRec":
            seen = torch.tril(seen.expand(-1, -1, item_seq.shape[1], -1))
        mask = torch.where(seen, 0.0, -10000.0)
        for layer in self.trm_encoder["layer"]:
            attention, feed = layer["multi_head_attention"], layer["feed_forward"]
            query, key, value = (
                attention[name](rows).view(*rows.shape[:2], self.heads, -1).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask).softmax(-1)
            context = (weights @ value).transpose(1, 2).reshape(rows.shape)
            rows = attention["LayerNorm"](attention["dense"](context) + rows)
            inner = {"gelu": nn.functional.gelu, "relu": torch.relu, "swish": nn.functional.silu}[self.act](
                feed["dense_1"](rows)
            )
            rows = feed["LayerNorm"](feed["dense_2"](inner) + rows)
        if self.kind == "BERT4Rec":
            rows = self.output_ln(nn.functional.gelu(self.output_ffn(rows)))
        return rows
