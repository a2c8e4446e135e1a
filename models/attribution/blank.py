"""The session vector with one event swapped for another, in its place: the blank one, or none that is seen.

A blanked event says nothing (its embedding is zeroed); a hidden one is attended to by nobody. Only a model that knows
the blank event, or that takes sessions up again, can be asked so (see ``models/session/runtime.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from models.attribution.history import Asked, Asker, Floats, Histories, Ints
from models.errors import SessionInputError

if TYPE_CHECKING:
    from models.session.runtime import SessionModel


HIDDEN: Final = None
"""In place of an event: it stays, and nobody sees it. The newest cannot be hidden, since it asks."""


class Swaps(Asker):
    """Session vectors with one event swapped for another, or for none that is seen."""

    def __init__(
        self, model: SessionModel, histories: Histories, event: tuple[int, int] | None, state: Floats | None = None
    ) -> None:
        """event: item and engagement index, or HIDDEN; with the histories' state, little is run again."""
        super().__init__(model, histories, state)
        self._event = event

    def removed(self, row: Ints, column: Ints) -> Asked:
        """Say how to run histories with an event swapped."""
        whole, each = self.histories, np.arange(len(row))
        changed = Histories(whole.item[row], whole.engagement[row], whole.length[row])
        if self._event is not HIDDEN:
            changed.item[each, column], changed.engagement[each, column] = self._event
        hidden = column if self._event is HIDDEN else np.full_like(column, -1)
        return Asked(changed, row, column, np.zeros_like(row), hidden)


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
