"""The session vector with one event swapped for another, in its place: the blank one, or none that is seen.

A blanked event says nothing (its embedding is zeroed); a hidden one is attended to by nobody. Only a model that knows
the blank event, or that takes sessions up again, can be asked so (see ``models/session/runtime.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from models.attribution.history import Asked, Floats, Histories, Ints, Runs
from models.errors import SessionInputError

if TYPE_CHECKING:
    from models.session.runtime import SessionModel


HIDDEN: Final = None
"""In place of an event: it stays, and nobody sees it. The newest cannot be hidden, since it asks."""


class Swaps:
    """Session vectors with one event swapped, each run once, however many items ask for it."""

    def __init__(
        self, model: SessionModel, histories: Histories, event: tuple[int, int] | None, state: Floats | None = None
    ) -> None:
        """event: item and engagement index, or HIDDEN; with the histories' state, little is run again."""
        self._event = event
        self._histories = histories
        self._runs = Runs(model, histories, state)
        self._place = np.full(histories.item.shape, -1, dtype=np.int64)
        self._vectors: list[Floats] = []
        self._count = 0

    def vectors(self, row: Ints, column: Ints) -> Floats:
        """Session vector with an event swapped, float32 [n, d]; row and column, int64 [n], may repeat."""
        new = self.asked(row, column)
        if len(new.keys):
            self.keep(new.keys, self._runs.vectors(new.changed, new.row, new.kept, new.moved, new.hidden))
        return np.concatenate(self._vectors)[self._place[row, column]]

    def asked(self, row: Ints, column: Ints) -> Asked:
        """Say what has not been run yet."""
        new = self._place[row, column] < 0
        keys = np.unique(row[new] * self._histories.width + column[new])
        row, column = np.divmod(keys, self._histories.width)
        whole, each = self._histories, np.arange(len(row))
        asked = Histories(whole.item[row], whole.engagement[row], whole.length[row])
        hidden = column if self._event is HIDDEN else np.full_like(column, -1)
        if self._event is not HIDDEN:
            asked.item[each, column], asked.engagement[each, column] = self._event
        return Asked(asked, row, column, np.zeros_like(row), hidden, keys)

    def keep(self, keys: Ints, vectors: Floats) -> None:
        """Keep what was run."""
        self._place.reshape(-1)[keys] = self._count + np.arange(len(keys))
        self._count += len(keys)
        self._vectors.append(vectors)


def blanking(model: SessionModel, histories: Histories) -> Floats:
    """Session vector with each event blanked, float32 [K, W, d]; zero at padding.

    Raises SessionInputError for a model that knows no blank event.
    """
    if not model.has_blank:
        raise SessionInputError(
            "expected a session model that knows the blank event, got one that does not: use deletion, or export the "
            "model with it."
        )
    row, column = np.nonzero(histories.item > 0)
    found = Swaps(model, histories, model.blank_event).vectors(row, column)
    vectors = np.zeros((*histories.item.shape, found.shape[1]), dtype=np.float32)
    vectors[row, column] = found
    return vectors
