"""How often attention and ablation find the true cause of the next event, measured for the model card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.data.sessions import Sessions
from models.session.evaluate import leave_last_out
from models.session.runtime import SessionModel

MIN_EVENTS = 11  # shorter histories have few candidates for the cause
_BATCH = 64
_SLATE = 20


@dataclass(frozen=True)
class Causes:
    """The share of histories in which a method ranks the true cause of the next event first.

    Attributes:
        score_drop: by the largest drop of the next item's score without the event; None if the graph has no output
            ``without``.
        attention: by the largest mean attention; None for a model without attention.
        newest: always the newest event.
        random: the expected share of a random choice.
        histories: number of histories.

    """

    score_drop: float | None
    attention: float | None
    newest: float
    random: float
    histories: int


def measure_causes(model: SessionModel, item_vectors: npt.NDArray[np.float32], sessions: Sessions) -> Causes | None:
    """Measure how well methods find the cause of the newest event, if known and the item is in the model's top 20.

    The score drop is centred: minus the mean drop of the top 20 items. Returns None if no cause is known.
    """
    long = sessions.select((sessions.lengths >= MIN_EVENTS) & (sessions.lengths <= model.max_length))
    newest = long.offsets[1:] - 1
    known = long.select(long.cause[newest] >= 0) if len(long) else long
    if not len(known):
        return None
    cause = known.cause[known.offsets[1:] - 1]
    history, target = leave_last_out(known)
    found: dict[str, list[npt.NDArray[np.bool_]]] = {"score_drop": [], "attention": [], "newest": []}
    chance: list[npt.NDArray[np.float64]] = []
    for start in range(0, len(history), _BATCH):
        part = np.arange(start, min(start + _BATCH, len(history)))
        items, engagements = history.select(part).padded(int(history.lengths[part].max()))
        vector = model.run(items, engagements, without=False).vector
        top = np.argsort(-(vector @ item_vectors[1:].T), axis=1)[:, :_SLATE] + 1
        hit = (top == target[part][:, None]).any(axis=1)
        part, top, items = part[hit], top[hit], items[hit]
        output = model.run(items, engagements[hit])
        column = cause[part] + items.shape[1] - history.lengths[part]
        if output.attention is not None:
            found["attention"].append(output.attention.mean(axis=(1, 2)).argmax(axis=1) == column)
        found["newest"].append(column == items.shape[1] - 1)
        chance.append(1.0 / history.lengths[part])
        if output.without is not None:
            centred = item_vectors[target[part]] - item_vectors[top].mean(axis=1)
            drop = np.einsum("bld,bd->bl", output.vector[:, None] - output.without, centred)
            found["score_drop"].append(np.where(items > 0, drop, -np.inf).argmax(axis=1) == column)
    random = np.concatenate(chance)
    if not len(random):
        return None
    return Causes(
        score_drop=float(np.concatenate(found["score_drop"]).mean()) if found["score_drop"] else None,
        attention=float(np.concatenate(found["attention"]).mean()) if found["attention"] else None,
        newest=float(np.concatenate(found["newest"]).mean()),
        random=float(random.mean()),
        histories=len(random),
    )
