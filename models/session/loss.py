"""The loss of next-item training: a softmax over the whole catalogue that never holds all of its logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ROWS = 512  # logits of so many rows stay in the cache of a core for catalogues of some thousands of items


class CatalogueCrossEntropy(torch.autograd.Function):  # type: ignore[misc,unused-ignore]
    """Mean cross-entropy of ``rows @ items.T`` against targets; its gradient is formed along the way.

    With all logits in memory at once, reading and writing them costs more than the products do.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        """Rows float32 [N, d], items float32 [n, d], targets int64 [N]; returns a scalar."""
        row_gradient, item_gradient = torch.empty_like(rows), torch.zeros_like(items)
        loss = rows.new_zeros(())
        logits = rows.new_empty((min(_ROWS, len(rows)), len(items)))
        for start in range(0, len(rows), _ROWS):
            part, wanted = rows[start : start + _ROWS], targets[start : start + _ROWS, None]
            share = logits[: len(part)]
            torch.mm(part, items.T, out=share)
            top = share.amax(dim=1, keepdim=True)
            own = share.gather(1, wanted)
            share.sub_(top).exp_()
            total = share.sum(dim=1, keepdim=True)
            loss += (total.log() + top - own).sum()
            share.div_(total).scatter_add_(1, wanted, torch.full_like(own, -1.0))
            torch.mm(share, items, out=row_gradient[start : start + _ROWS])
            item_gradient.addmm_(share.T, part)
        ctx.save_for_backward(row_gradient / len(rows), item_gradient / len(rows))
        return loss / len(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scale the gradients of forward."""
        rows, items = ctx.saved_tensors
        return rows * gradients[0], items * gradients[0], None


def catalogue_cross_entropy(rows: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of rows [N, d] against targets int64 [N], over the items [n, d]."""
    loss: Tensor = CatalogueCrossEntropy.apply(rows, items, targets)  # type: ignore[no-untyped-call,unused-ignore]
    return loss
