"""Training of a session model: prediction of the next item at every position of every history."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.data.sessions import Sessions
from models.session.config import Recipe, SessionConfig
from models.session.evaluate import Metrics, Vectors, evaluate_model
from models.session.loss import catalogue_cross_entropy
from models.session.lstm import SessionLstm
from models.session.transformer import SessionTransformer

SessionNet = SessionTransformer | SessionLstm


@dataclass(frozen=True)
class Progress:
    """The progress of a training; metrics are set at the end of an epoch only."""

    epoch: int
    step: int
    steps: int
    loss: float
    metrics: Metrics | None = None


def train(
    model: SessionNet,
    sessions: Sessions,
    validation: Sessions,
    recipe: Recipe,
    report: Callable[[Progress], None] = lambda _: None,
) -> Metrics:
    """Train in place, keep the weights of the epoch with the best NDCG@10 on validation, and return its metrics.

    With the same machine and number of threads, equal arguments give equal weights.

    Raises:
        ValueError: the recipe has no epoch.

    """
    torch.manual_seed(recipe.seed)
    random = np.random.default_rng(recipe.seed)
    augmentation = torch.Generator().manual_seed(recipe.seed)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.rate,
        betas=(0.9, 0.98),
    )
    steps = recipe.epochs * sum(1 for _ in batches(sessions, model.config.max_length, recipe, random))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))
    averaged.update_parameters(model)
    kept: SessionNet = averaged.module
    best: tuple[Metrics, dict[str, Tensor]] | None = None
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        smooth = math.nan
        for items, engagements, targets in batches(sessions, model.config.max_length, recipe, random):
            scale, kept_share = _draw_scales(items, recipe, augmentation)
            noisy = _replace_targets(targets, kept_share, augmentation)
            loss = _loss(model, items, engagements, noisy, scale)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimiser.step()
            schedule.step()
            averaged.update_parameters(model)
            step += 1
            smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
            report(Progress(epoch, step, steps, smooth))
        metrics = evaluate_model(vectors_of(kept), weights_of(kept), validation, model.config.max_length)
        report(Progress(epoch, step, steps, smooth, metrics))
        if best is None or metrics.ndcg_at_10 > best[0].ndcg_at_10:
            best = metrics, copy.deepcopy(kept.state_dict())
    if best is None:
        raise ValueError(f"expected at least one epoch, got {recipe.epochs}")
    model.load_state_dict(best[1])
    model.eval()
    return best[0]


def batches(
    sessions: Sessions, max_length: int, recipe: Recipe, random: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Split histories into pieces of at most max_length + 1 events and batch pieces of similar length.

    Yields items, engagements and next items, int64 [B, L] each, padded with 0 on the right. Longer histories are split
    at positions that differ from epoch to epoch.
    """
    first, last = _pieces(sessions.offsets, max_length, random)
    length = last - first - 1
    # Noise on the lengths puts pieces of similar length into random order, so that batches differ between epochs.
    order = np.argsort(length + random.random(len(length)) * 2.0, kind="stable")
    events = np.cumsum(length[order])
    parts = np.split(order, np.flatnonzero(np.diff(events // recipe.events_per_batch)) + 1)
    for number in random.permutation(len(parts)):
        part = parts[number]
        columns = np.arange(length[part].max())
        real = columns < length[part][:, None]
        where = np.where(real, first[part][:, None] + columns, 0)
        yield (
            torch.from_numpy(np.where(real, sessions.item[where], 0).astype(np.int64)),
            torch.from_numpy(np.where(real, sessions.engagement[where], 0).astype(np.int64)),
            torch.from_numpy(np.where(real, sessions.item[np.where(real, where + 1, 0)], 0).astype(np.int64)),
        )


def new_model(kind: type[SessionNet], config: SessionConfig, seed: int) -> SessionNet:
    """Create a model with random weights from a seed."""
    torch.manual_seed(seed)
    return kind(config)


def use_threads(threads: int) -> None:
    """Set the number of threads; results may differ in rounding between numbers of threads."""
    torch.set_num_threads(threads)


def count_weights(model: SessionNet) -> int:
    """Count the weights of a model without its embeddings."""
    embeddings = ("item.", "engagement.")
    return sum(weight.numel() for name, weight in model.named_parameters() if not name.startswith(embeddings))


def as_numpy(model: SessionNet) -> dict[str, npt.NDArray[np.float32]]:
    """Return all weights by name, float32, for the export."""
    return {name: weight.detach().float().numpy() for name, weight in model.state_dict().items()}


def vectors_of(model: SessionNet) -> Vectors:
    """Adapt a torch model to the evaluation: from left-padded numpy arrays to the vectors of the newest events."""

    def vectors(items: npt.NDArray[np.int64], engagements: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        model.eval()
        count = (items > 0).sum(axis=1)
        # The LSTM needs padding on the right.
        columns = (np.arange(items.shape[1]) - count[:, None]) % max(items.shape[1], 1)
        shifted = (torch.from_numpy(np.take_along_axis(each, columns, axis=1)) for each in (items, engagements))
        with torch.no_grad():
            rows = model(*shifted)
        newest: npt.NDArray[np.float32] = rows[torch.arange(len(rows)), torch.from_numpy(count) - 1].float().numpy()
        return newest

    return vectors


def weights_of(model: SessionNet) -> npt.NDArray[np.float32]:
    """Return the item vectors, float32 [items + 1, d]."""
    vectors: npt.NDArray[np.float32] = model.item_vectors.detach().float().numpy()
    return vectors


def _draw_scales(items: Tensor, recipe: Recipe, augmentation: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the factor of each event's embedding, float32 [B, L], and the share of targets to keep, float32 [B, 1].

    Targets are replaced in faded sessions only; see Recipe.
    """
    blank = torch.empty(len(items), 1).uniform_(*recipe.blank, generator=augmentation)
    scale = (torch.rand(items.shape) >= blank).float()
    faded = torch.rand(len(items), 1, generator=augmentation) < recipe.faded
    factor = torch.rand(len(items), 1, generator=augmentation)
    return torch.where(faded, factor, scale), torch.where(faded, factor, 1.0)


def _replace_targets(targets: Tensor, kept_share: Tensor, augmentation: torch.Generator) -> Tensor:
    """Keep each target int64 [B, L] with its session's probability, else take another of the batch; 0 is no target."""
    real = targets > 0
    own = targets[real]
    others = own[torch.randperm(len(own), generator=augmentation)]
    is_kept = torch.rand(len(own), generator=augmentation) < kept_share.expand(targets.shape)[real]
    result = targets.clone()
    result[real] = torch.where(is_kept, own, others)
    return result


def _loss(model: SessionNet, items: Tensor, engagements: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Mean cross-entropy over the real targets."""
    real = targets > 0
    return catalogue_cross_entropy(model(items, engagements, scale)[real], model.item_vectors[1:], targets[real] - 1)


def _rate(step: int, steps: int) -> float:
    """Factor on the learning rate at a step: linear warm-up, then cosine decay."""
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _pieces(
    offsets: npt.NDArray[np.int64], max_length: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first and the one-past-last event of each piece; consecutive pieces share an event as a target."""
    first, last = [], []
    for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        if high - low < 2:
            continue
        start = low
        if high - low > max_length + 1:
            # A first piece of random length shifts all later pieces.
            end = low + 1 + int(random.integers(1, max_length + 1))
            first.append(start)
            last.append(end)
            start = end - 1
        while start < high - 1:
            end = min(start + max_length + 1, high)
            first.append(start)
            last.append(end)
            start = end - 1
    return np.array(first, dtype=np.int64), np.array(last, dtype=np.int64)
