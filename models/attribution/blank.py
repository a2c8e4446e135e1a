"""The session vector with events blanked: each keeps its place and says nothing (its embedding is zeroed).

Only a graph that knows the blank event (see ``models/session/runtime.py``) can be asked so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.attribution.history import Floats, Histories, Ints
from models.errors import SessionInputError

if TYPE_CHECKING:
    from models.session.runtime import SessionModel


class Blanks:
    """Session vectors with one event blanked, each run once, however many items ask for it."""

    def __init__(self, model: SessionModel, histories: Histories) -> None:
        if not model.has_blank:
            raise SessionInputError(
                "expected a session model that knows the blank event, got one that does not: use deletion, or export "
                "the model with it."
            )
        self._model = model
        self._histories = histories
        self._place = np.full(histories.item.shape, -1, dtype=np.int64)
        self._vectors: list[Floats] = []
        self._count = 0

    def vectors(self, row: Ints, column: Ints) -> Floats:
        """Session vector with an event blanked, float32 [n, d]; row and column, int64 [n], may repeat."""
        new = self._place[row, column] < 0
        if new.any():
            keys = np.unique(row[new] * self._histories.width + column[new])
            self._run(*np.divmod(keys, self._histories.width))
        return np.concatenate(self._vectors)[self._place[row, column]]

    def _run(self, row: Ints, column: Ints) -> None:
        whole, each = self._histories, np.arange(len(row))
        asked = Histories(whole.item[row], whole.engagement[row], whole.length[row])
        asked.item[each, column], asked.engagement[each, column] = self._model.blank_event
        self._place[row, column] = self._count + each
        self._count += len(row)
        self._vectors.append(read(self._model, asked, without=False).vector)


def blanking(model: SessionModel, histories: Histories) -> Floats:
    """Session vector with each event blanked, float32 [K, W, d]; zero at padding.

    Raises SessionInputError for a model that knows no blank event.
    """
    row, column = np.nonzero(histories.item > 0)
    found = Blanks(model, histories).vectors(row, column)
    vectors = np.zeros((*histories.item.shape, found.shape[1]), dtype=np.float32)
    vectors[row, column] = found
    return vectors
