"""Simulated answers to the question whether an explanation was helpful, with known probabilities.

The probability depends on traits that the history shows, and on one latent trait:

- *watch_history* helps users who finish, like and share much, less so after days without activity;
- *category_match* helps users whose history is concentrated on one category;
- *trending* helps users who watch popular items;
- a stronger claim helps more: more ranks lost without the cited event, more watched titles of the category;
- each user has a latent preference for each type, normally distributed with standard deviation ``PREFERENCE_SD``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.selector.features import CONTEXT, TYPES

PREFERENCE_SD: Final = 0.5


def probability_of_helping(
    context: NDArray[np.float64], user: NDArray[np.int64], kind: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Probability that an explanation helps, float64 [n].

    Args:
        context: float64 [n, len(CONTEXT)].
        user: int64 [n], user numbers from 0.
        kind: int64 [n], explanation types as positions in TYPES.
        seed: of the latent preferences.

    """
    column = dict(zip(CONTEXT, np.nan_to_num(context).T, strict=True))
    days_away = column["hours_since_last"] / 24
    watch_history = (
        0.3 + 2.4 * (column["engaged_share"] - 0.5) - 0.25 * np.minimum(days_away, 6) + 0.15 * column["ranks_lost"]
    )
    category_match = (
        0.1 + 4.0 * (column["top_category_share"] - 0.35) + 0.08 * np.minimum(column["category_titles"], 10)
    )
    trending = 0.05 * (column["usual_popularity"] - 62)
    observed = np.stack([watch_history, category_match, trending], axis=1)
    latent = PREFERENCE_SD * np.random.default_rng([seed, 23]).standard_normal(
        (int(user.max(initial=0)) + 1, len(TYPES))
    )
    utility = np.take_along_axis(observed + latent[user], kind[:, None], axis=1)[:, 0]
    return np.asarray(1 / (1 + np.exp(-utility)))
