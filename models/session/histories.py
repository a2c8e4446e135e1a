"""Histories, which a session model reads, and what it computes from them.

An item's score is ``vector · item_vector``. So one session vector per history gives the scores of all items of a slate,
and one session vector per edited history gives their counterfactual scores (``models/attribution/ablation.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Histories:
    """Past events of K sessions, left-padded: the newest event is in the last column, padding is 0.

    item and engagement are int64 [K, W] (indices of the bundle's catalogue and engagements), length int64 [K]. They
    hold the window: the newest events of each session, as many as the session model reads. older holds the V columns
    of events before the window, in the same form; None where no session has such events. The model does not read them,
    but the newest of them move into the window where an event of the window is deleted.
    """

    item: Ints
    engagement: Ints
    length: Ints
    older: Histories | None = None

    def __len__(self) -> int:
        return len(self.length)

    @property
    def width(self) -> int:
        """Number of columns: the length of the longest history, or more."""
        return int(self.item.shape[1])

    @property
    def all_items(self) -> Ints:
        """Items of the window and, behind them, of the older events: int64 [K, W + V], the columns of an edit."""
        return self.item if self.older is None else np.concatenate([self.item, self.older.item], axis=1)

    @property
    def present(self) -> Bools:
        """Whether a column holds an event, bool [K, W]."""
        return np.arange(self.width) >= self.width - self.length[:, None]

    def first_column(self, row: int) -> int:
        """Column of a history's oldest event."""
        return self.width - int(self.length[row])


@dataclass(frozen=True, slots=True)
class Reading:
    """The session model's output for K histories.

    vector float32 [K, d], that of an empty session for an empty history; attention float32 [K, W], from the newest
    event, mean over layers and heads, None for a model without attention; cache float32 [K, W, s], the KV cache, None
    where the model has no incremental inference; masked float32 [K, W, d], the session vector with each event masked,
    where the graph computes that in the same run; estimate float32 [K, W, d], an approximation of the session vector
    without each event, where the graph has it.
    """

    histories: Histories
    vector: Floats
    attention: Floats | None
    cache: Floats | None
    masked: Floats | None
    estimate: Floats | None = None
