"""The baseline of the transformer: an LSTM with as many weights, the same inputs and tied item vectors."""

from __future__ import annotations

from torch import Tensor, nn

from models.session.config import SessionConfig


class SessionLstm(nn.Module):
    """Two LSTM layers over item and engagement embeddings; the score of an item is vector · item_vectors[item].

    At the default size: 413,000 weights between the embeddings and the vector, against 412,000 in the transformer.
    """

    def __init__(self, config: SessionConfig, hidden: int = 160) -> None:
        super().__init__()
        self.config = config
        self.item = nn.Embedding(config.items + 1, config.d, padding_idx=0)
        self.engagement = nn.Embedding(config.engagements + 1, config.d, padding_idx=0)
        self.input_scale = config.d**0.5
        for embedding in (self.item, self.engagement):
            nn.init.normal_(embedding.weight, std=config.d**-0.5)
            nn.init.zeros_(embedding.weight[0])
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(config.d, hidden, num_layers=2, dropout=config.dropout, batch_first=True)
        self.output = nn.Linear(hidden, config.d)
        self.final_norm = nn.LayerNorm(config.d)

    @property
    def item_vectors(self) -> Tensor:
        """float32 [items + 1, d], row 0 all zeros."""
        return self.item.weight

    def forward(self, item_index: Tensor, engagement_index: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return one vector per event, float32 [B, L, d], undefined at padding.

        The indices are int64 [B, L], padded with 0 on the right; scale, float32 [B, L], is a factor on the embedding of
        each event, 1 by default; 0 blanks the event.
        """
        tokens = (self.item(item_index) + self.engagement(engagement_index)) * self.input_scale
        if scale is not None:
            tokens = tokens * scale[:, :, None]
        hidden, _ = self.lstm(self.dropout(tokens))
        return self.final_norm(self.output(self.dropout(hidden)))
