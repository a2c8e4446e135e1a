"""The loss of next-item training: cross-entropy over the whole catalogue, computed block by block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ROWS = 512  # rows per block; for some thousands of items, the logits of a block fit into the cache of a core


class CatalogueCrossEntropy(torch.autograd.Function):  # type: ignore[misc,unused-ignore]
    """Mean cross-entropy of ``rows @ items.T`` against targets, which computes its gradient in the forward pass.

    The logits are never in memory all at once: reading and writing them would take longer than the matrix products.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of rows float32 [N, d], items float32 [n, d] and targets int64 [N]: a scalar."""
        row_gradient, item_gradient = torch.empty_like(rows), torch.zeros_like(items)
        loss = rows.new_zeros(())
        logits = rows.new_empty((min(_ROWS, len(rows)), len(items)))
        for start in range(0, len(rows), _ROWS):
            part, target = rows[start : start + _ROWS], targets[start : start + _ROWS, None]
            softmax = logits[: len(part)]
            torch.mm(part, items.T, out=softmax)
            largest = softmax.amax(dim=1, keepdim=True)
            target_logit = softmax.gather(1, target)
            softmax.sub_(largest).exp_()
            total = softmax.sum(dim=1, keepdim=True)
            loss += (total.log() + largest - target_logit).sum()
            softmax.div_(total).scatter_add_(1, target, torch.full_like(target_logit, -1.0))
            torch.mm(softmax, items, out=row_gradient[start : start + _ROWS])
            item_gradient.addmm_(softmax.T, part)
        ctx.save_for_backward(row_gradient / len(rows), item_gradient / len(rows))
        return loss / len(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scale the gradients computed by forward."""
        rows, items = ctx.saved_tensors
        return rows * gradients[0], items * gradients[0], None


def catalogue_cross_entropy(rows: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of rows [N, d] against targets int64 [N], over the items [n, d]."""
    loss: Tensor = CatalogueCrossEntropy.apply(rows, items, targets)  # type: ignore[no-untyped-call,unused-ignore]
    return loss
