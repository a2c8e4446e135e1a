"""What a trained session model does, in figures for its card: where its heads look, what its scores rest on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.data.sessions import COMPLETE, LIKE, SHARE, Sessions
from models.session.evaluate import leave_last_out
from models.session.runtime import SessionModel

LONG = 10  # events: in shorter sessions, where attention goes says little, since there is little choice
_BATCH = 64
_SLATE = 20
_LATEST = 5
_MARKED = 1.5  # so many times what even attention would give


@dataclass(frozen=True)
class Head:
    """Where one head of the newest event looks, as means over sessions.

    newest and latest are shares of its attention, on the newest event and on the newest five; same_category and engaged
    say how many times more attention events of the newest one's category, and liked, finished or shared ones, get than
    even attention would give; spread is the effective number of events (the exponential of the entropy) over the number
    of events.
    """

    layer: int
    head: int
    newest: float
    latest: float
    same_category: float
    engaged: float
    spread: float

    @property
    def kind(self) -> str:
        """What it does most markedly, in two words."""
        if self.newest > 0.5:
            return "newest event"
        if self.latest > 0.5:
            return "latest events"
        marked = {"same category": self.same_category, "well received": self.engaged}
        most = max(marked, key=lambda name: marked[name])
        return most if marked[most] > _MARKED else "broad"


@dataclass(frozen=True)
class Causes:
    """How often a method names the event that truly led to the next item, first of all events."""

    without: float | None
    attention: float
    newest: float
    random: float
    histories: int


def describe_heads(model: SessionModel, sessions: Sessions) -> list[Head]:
    """Measure every head on the histories of 10 events and more; empty if there is none."""
    sessions = sessions.select(sessions.lengths >= LONG)
    if not len(sessions):
        return []
    items, engagements = sessions.padded(model.max_length)
    attention = np.concatenate(
        [
            model.run(items[start : start + _BATCH], engagements[start : start + _BATCH], without=False).attention
            for start in range(0, len(items), _BATCH)
        ]
    ).astype(np.float64)
    real = items > 0
    category = sessions.catalog.category_codes[items]
    same = real & (category == category[:, -1:])
    same[:, -1] = False
    engaged = real & np.isin(engagements, (LIKE, COMPLETE, SHARE))
    logs = np.log(attention, out=np.zeros_like(attention), where=attention > 0)
    spread = np.exp(-(attention * logs).sum(axis=3)) / real.sum(axis=1)[:, None, None]
    earlier = real.copy()
    earlier[:, -1] = False
    return [
        Head(
            layer=layer + 1,
            head=head + 1,
            newest=float(attention[:, layer, head, -1].mean()),
            latest=float(attention[:, layer, head, -_LATEST:].sum(axis=1).mean()),
            same_category=_lift(attention[:, layer, head], same, earlier),
            engaged=_lift(attention[:, layer, head], engaged, real),
            spread=float(spread[:, layer, head].mean()),
        )
        for layer in range(attention.shape[1])
        for head in range(attention.shape[2])
    ]


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


def _lift(attention: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float:
    """Attention per chosen event over attention per event among all, where there are both; 1 where there never are."""
    some = chosen.any(axis=1) & (among & ~chosen).any(axis=1)
    if not some.any():
        return 1.0
    attention, chosen, among = attention[some], chosen[some], among[some]
    share = (attention * chosen).sum(axis=1) / np.maximum((attention * among).sum(axis=1), 1e-12)
    return float(share.mean() / (chosen.sum(axis=1) / among.sum(axis=1)).mean())
