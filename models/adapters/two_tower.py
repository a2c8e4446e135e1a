"""A two-tower model whose user is the average of the items of the session, from its table of item embeddings.

Such models come as a table of item vectors (``torch.nn.EmbeddingBag(mode="mean")`` or an average in numpy); the
items of the user's side may have a table of their own. The average of no items is the zero vector.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.adapters.adapted import Adapted, Weights, embedding, item_array
from models.errors import BundleError


class TwoTower(nn.Module):
    """The average of item embeddings."""

    def __init__(self, items: Tensor) -> None:
        super().__init__()
        self.item = embedding(items)

    def forward(self, item_index: Tensor) -> Tensor:
        """Compute the session vector [B, d] of sessions [B, L], padded on the left; see Adapted."""
        present = (item_index > 0)[..., None].float()
        average: Tensor = (self.item(item_index) * present).sum(1) / present.sum(1).clamp(min=1)
        return average


def two_tower(weights: Weights, *, max_length: int = 50) -> Adapted:
    """Read a two-tower average out of a state dict with one or two tables [n + 1, d], row 0 of which is padding.

    The first table is averaged, the last one scores. With one table they are the same.

    Raises:
        BundleError: the state dict holds anything but such tables.

    """
    tables = [each for each in weights.values() if each.ndim == 2]
    if len(tables) != len(weights) or not 1 <= len(tables) <= 2 or tables[0].shape != tables[-1].shape:
        found = ", ".join(f"{name} {list(each.shape)}" for name, each in weights.items())
        raise BundleError(
            f"checkpoint: expected one table of item embeddings, or two of one shape, got {found or 'none'}: save "
            "these tables alone, or bring a model that does more than an average with --module."
        )
    return Adapted(
        TwoTower(tables[0]).eval(), item_array(tables[-1]), max_length, empty_session="zero", has_blank_event=True
    )
