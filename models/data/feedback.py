"""Simulated users' answers to "was this explanation helpful?", in which it is known what they like to be told.

What a simulated user likes depends on traits that can be seen in the history, and on one that cannot:

- who finishes, likes and shares much remembers titles: *watch_history* helps, less after days without watching;
- who keeps to one category thinks in categories: *category_match* helps;
- who watches what many watch wants to know what is popular: *trending* helps;
- a claim that changes more helps more: ranks lost without the cited title, how much of the category was watched;
- each user leans to or from each type (standard deviation ``LEANING``), and nobody can see why.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.selector.features import CONTEXT, TYPES

LEANING: Final = 0.5


def chance_of_helping(
    context: NDArray[np.float64], user: NDArray[np.int64], kind: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Chance float64 [n] that an explanation helps: context as in CONTEXT [n, …], user int64 [n], kind int64 [n]."""
    column = dict(zip(CONTEXT, np.nan_to_num(context).T, strict=True))
    days_away = column["hours_since_last"] / 24
    memory = 0.3 + 2.4 * (column["engaged_share"] - 0.5) - 0.25 * np.minimum(days_away, 6) + 0.15 * column["ranks_lost"]
    habit = 0.1 + 4.0 * (column["top_category_share"] - 0.35) + 0.08 * np.minimum(column["category_titles"], 10)
    company = 0.05 * (column["usual_popularity"] - 62)
    known = np.stack([memory, habit, company], axis=1)
    leaning = LEANING * np.random.default_rng([seed, 23]).standard_normal((int(user.max(initial=0)) + 1, len(TYPES)))
    utility = np.take_along_axis(known + leaning[user], kind[:, None], axis=1)[:, 0]
    return np.asarray(1 / (1 + np.exp(-utility)))
