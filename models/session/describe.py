"""What a trained session model's scores rest on, in figures for its card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.data.sessions import Sessions
from models.session.evaluate import leave_last_out
from models.session.runtime import SessionModel

LONG = 10  # events: in shorter sessions there is little choice
_BATCH = 64
_SLATE = 20


@dataclass(frozen=True)
class Causes:
    """How often a method names the event that truly led to the next item, first of all events."""

    without: float | None
    attention: float
    newest: float
    random: float
    histories: int


def measure_causes(model: SessionModel, item_vectors: npt.NDArray[np.float32], sessions: Sessions) -> Causes | None:
    """Ask which event led to the newest item, where that is known and the item is among the model's own best 20.

    An event is named by how much the item's score falls without it, more than those of the best 20 fall on average.
    None where nobody knows any cause.
    """
    whole = sessions.select((sessions.lengths > LONG) & (sessions.lengths <= model.max_length))
    newest = whole.offsets[1:] - 1
    known = whole.select(whole.cause[newest] >= 0) if len(whole) else whole
    if not len(known):
        return None
    cause = known.cause[known.offsets[1:] - 1]
    history, target = leave_last_out(known)
    named: dict[str, list[npt.NDArray[np.bool_]]] = {"without": [], "attention": [], "newest": []}
    chance: list[npt.NDArray[np.float64]] = []
    for start in range(0, len(history), _BATCH):
        part = np.arange(start, min(start + _BATCH, len(history)))
        items, engagements = history.select(part).padded(int(history.lengths[part].max()))
        vector = model.run(items, engagements, without=False).vector
        best = np.argsort(-(vector @ item_vectors[1:].T), axis=1)[:, :_SLATE] + 1
        shown = (best == target[part][:, None]).any(axis=1)
        part, best, items = part[shown], best[shown], items[shown]
        got = model.run(items, engagements[shown])
        at = cause[part] + items.shape[1] - history.lengths[part]
        named["attention"].append(got.attention.mean(axis=(1, 2)).argmax(axis=1) == at)
        named["newest"].append(at == items.shape[1] - 1)
        chance.append(1.0 / history.lengths[part])
        if got.without is not None:
            wanted = item_vectors[target[part]] - item_vectors[best].mean(axis=1)
            drop = np.einsum("bld,bd->bl", got.vector[:, None] - got.without, wanted)
            named["without"].append(np.where(items > 0, drop, -np.inf).argmax(axis=1) == at)
    random = np.concatenate(chance)
    if not len(random):
        return None
    return Causes(
        without=float(np.concatenate(named["without"]).mean()) if named["without"] else None,
        attention=float(np.concatenate(named["attention"]).mean()),
        newest=float(np.concatenate(named["newest"]).mean()),
        random=float(random.mean()),
        histories=len(random),
    )
