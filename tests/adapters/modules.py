"""Modules as people have them, for ``--module``: some that export as they are, some that do not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.adapters.adapted import Adapted

ITEMS, D, LENGTH = 30, 16, 12


class Transformer(nn.Module):
    """A causal ``TransformerEncoder`` of PyTorch over events, positions from the newest."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.item = nn.Embedding(ITEMS + 1, D, padding_idx=0)
        self.position = nn.Embedding(LENGTH, D)
        layer = nn.TransformerEncoderLayer(D, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, item_index: Tensor) -> Tensor:
        """Read the newest row; padding is hidden from all events."""
        length = item_index.shape[1]
        age = torch.arange(length).flip(0)
        rows = self.item(item_index) + self.position(age)
        future = torch.triu(torch.full((length, length), -1e9), diagonal=1)
        padding = torch.where(item_index == 0, -1e9, 0.0)
        rows = self.encoder(rows, mask=future, src_key_padding_mask=padding)
        return Tensor(rows[:, -1])


class WithEngagements(nn.Module):
    """The mean of items, each times a number of its engagement."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.item, self.weight = nn.Embedding(ITEMS + 1, D, padding_idx=0), nn.Embedding(4, 1, padding_idx=0)

    def forward(self, item_index: Tensor, engagement_index: Tensor) -> Tensor:
        """Add up."""
        return Tensor((self.item(item_index) * self.weight(engagement_index)).sum(1))


class WithNumpy(nn.Module):
    """A mean whose weights numpy computes from the lengths, outside PyTorch's sight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.item = nn.Embedding(ITEMS + 1, D, padding_idx=0)

    def forward(self, item_index: Tensor) -> Tensor:
        """Divide by the number of events."""
        count = np.maximum((item_index.numpy() > 0).sum(axis=1), 1)
        return Tensor(self.item(item_index).sum(1) / torch.from_numpy(count)[:, None])


class NumbersOnly(nn.Module):
    """Takes the items out of PyTorch altogether."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(ITEMS + 1, D, padding_idx=0)

    def forward(self, item_index: Tensor) -> Tensor:
        """Read the newest item as a Python number."""
        return self.item(torch.tensor([int(each) for each in item_index[:, -1]]))


class Window(nn.Module):
    """A layer over a window of fixed width."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.item, self.mix = nn.Embedding(ITEMS + 1, D, padding_idx=0), nn.Linear(LENGTH * D, D)

    def forward(self, item_index: Tensor) -> Tensor:
        """Mix all columns."""
        return Tensor(self.mix(self.item(item_index).flatten(1)))


def transformer() -> nn.Module:
    return Transformer().eval()


def with_engagements() -> Adapted:
    module = WithEngagements().eval()
    return Adapted(module, module.item.weight.detach().numpy(), LENGTH, empty_session="zero")


def with_numpy() -> nn.Module:
    return WithNumpy().eval()


def numbers_only() -> nn.Module:
    return NumbersOnly().eval()


def window() -> nn.Module:
    return Window().eval()


def nothing() -> None:
    return None
