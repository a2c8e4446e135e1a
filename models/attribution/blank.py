"""The session vector with events blanked: each keeps its place and says nothing (its embedding is zeroed).

Only a graph that knows the blank event (see ``models/session/runtime.py``) can be asked so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.attribution.history import Floats, Histories, Ints, read
from models.errors import SessionInputError

if TYPE_CHECKING:
    from models.session.runtime import SessionModel


def blanked(model: SessionModel, histories: Histories, row: Ints, column: Ints) -> Floats:
    """Session vector with one event blanked, float32 [n, d]; row and column, int64 [n], may repeat.

    Raises SessionInputError for a model that knows no blank event.
    """
    if not model.has_blank:
        raise SessionInputError(
            "expected a session model that knows the blank event, got one that does not: use deletion, or export the "
            "model with it."
        )
    keys, which = np.unique(row * histories.width + column, return_inverse=True)
    rows, columns = np.divmod(keys, histories.width)
    asked = Histories(histories.item[rows], histories.engagement[rows], histories.length[rows])
    each = np.arange(len(keys))
    asked.item[each, columns], asked.engagement[each, columns] = model.blank_event
    return read(model, asked, without=False).vector[which]


def blanking(model: SessionModel, histories: Histories) -> Floats:
    """Session vector with each event blanked, float32 [K, W, d]; zero at padding."""
    row, column = np.nonzero(histories.item > 0)
    found = blanked(model, histories, row, column)
    vectors = np.zeros((*histories.item.shape, found.shape[1]), dtype=np.float32)
    vectors[row, column] = found
    return vectors
