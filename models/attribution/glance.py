"""A glance: what every event nearly does to the session vector, in one short run each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from models.attribution.history import Bools, Histories, Reading, read
from models.attribution.removal import DELETED, MUTED, Runs

if TYPE_CHECKING:
    from models.session.runtime import SessionModel

UNHEARD: Final = 0.01
"""Share of the newest row's attention, mean over layers and heads, below which a glance takes an event for silent.

What that misses: ``python -m bench.proposals``.
"""


def glance(model: SessionModel, histories: Histories, wanted: Bools | None = None) -> Reading:
    """Read, with what `Runs` needs to take the sessions up again, and from that what every event does nearly.

    wanted bool [K, W] says of which events that is asked, None: of all. Another then seems to do nothing: its vector is
    the session's.

    Nearly: only the newest row learns that the event is gone; all other rows stay as they were with it; and whom it
    hardly heard (UNHEARD) it does not miss. That is exact for the newest two events, and else close: good for finding
    events that are worth a closer look (what it misses: ``python -m bench.proposals``). A model that cannot take
    sessions up again says exactly what every event does, where it can.
    """
    if model.reruns is None:
        return read(model, histories)
    whole = model.reruns.read(histories.item, histories.engagement, histories.length)
    width = histories.width
    columns = np.arange(width)
    asked = (columns >= width - histories.length[:, None]) & ((columns >= width - 2) | (whole.attention >= UNHEARD))
    row, column = np.nonzero(asked if wanted is None else asked & wanted)
    # Without the newest event the one before it asks, as in the shorter session; any other is hidden from the newest.
    removal = np.where(column == width - 1, DELETED, MUTED)
    without = np.repeat(whole.vector[:, None], width, axis=1)
    without[row, column] = Runs(model, histories, whole.state).without(removal, row, column)
    return Reading(whole.vector, whole.attention, without, whole.state)
