"""Attribute: what the re-ranker's features, the catalogue and the attention say of each item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.bundle import Bundle
from stream.explain.columns import Bools, Doubles, Floats, Ints, Slates, watched
from stream.explain.models import Models
from stream.explain.scores import Scores

TOP_FEATURES: Final = 5
"""Contributions that an explanation carries."""

TREND_FEATURE: Final = "trend_percentile"
"""The feature, if a bundle has it, that says how fast an item is rising: a percentile from 0 to 100."""

RESIDUAL_TOLERANCE: Final = 1e-5
"""Float32 rounding of some hundred trees' values, relative to the size of what is summed (to 1 at least)."""


@dataclass(frozen=True, slots=True)
class Signals:
    """Columns over the T items; where an item does not match the models, contributions are 0 and shares NaN.

    contribution float64 [T, F]: SHAP values on the re-ranker's raw score; top int64 [T, 5]: the largest by absolute
    value, largest first; residual float64 [T]: base + sum - raw score; sound bool [T]: the residual is float noise, so
    that contributions may be spoken of; personal_share float32 [T]: share of the absolute contributions that comes from
    the user and the session; category_match float32 [T]: share of the history in the item's category, and
    category_titles int64 [T]: how many different titles of the category were watched and not skipped; popularity and
    trend float32 [T]: percentiles, NaN where unknown.
    """

    contribution: Doubles
    top: Ints
    residual: Doubles
    sound: Bools
    personal_share: Floats
    category_match: Floats
    category_titles: Ints
    popularity: Floats
    trend: Floats


def attribute(slates: Slates, scores: Scores, models: Models) -> Signals:
    """Compute all signals; TreeSHAP in one call, over the items whose scores are reproduced."""
    bundle = models.bundle
    rows = np.flatnonzero(scores.matches)
    contribution = np.zeros((len(slates.item), len(bundle.features)))
    residual = np.full(len(slates.item), np.nan)
    sound = np.zeros(len(slates.item), dtype=np.bool_)
    personal_share = np.full(len(slates.item), np.nan, dtype=np.float32)
    if len(rows):
        shap = models.treeshap.contributions(slates.features[rows], same_bits=True)
        contribution[rows] = shap[:, :-1]
        residual[rows], sound[rows] = _residual(shap, models.reranker.raw(slates.features[rows]))
        personal_share[rows] = _personal_share(contribution[rows], bundle)
    category_match, category_titles = _category_match(slates, bundle)
    known = slates.known
    names = [feature.name for feature in bundle.features]
    trend = slates.features[:, names.index(TREND_FEATURE)] if TREND_FEATURE in names else np.full(len(known), np.nan)
    return Signals(
        contribution=contribution,
        top=_largest(np.abs(contribution)),
        residual=residual,
        sound=sound,
        personal_share=personal_share,
        category_match=category_match,
        category_titles=category_titles,
        popularity=np.where(known, bundle.catalog.popularity[slates.item], np.nan).astype(np.float32),
        trend=trend.astype(np.float32),
    )


def _largest(size: Doubles) -> Ints:
    """Find the largest of each row, the first of equals first, int64 [T, 5]; to sort all of a row would be slower."""
    left, rows = size.copy(), np.arange(len(size))
    places = np.empty((len(size), min(TOP_FEATURES, size.shape[1])), dtype=np.int64)
    for place in places.T:
        place[:] = left.argmax(axis=1)
        left[rows, place] = -1
    return places


def _residual(shap: Doubles, raw: Doubles) -> tuple[Doubles, Bools]:
    residual = shap.sum(axis=1) - raw
    size = np.maximum(1.0, np.abs(shap).sum(axis=1))
    return residual, np.abs(residual) <= RESIDUAL_TOLERANCE * size


def _personal_share(contribution: Doubles, bundle: Bundle) -> Floats:
    personal = np.array([feature.is_personal for feature in bundle.features])
    mass = np.abs(contribution)
    total = mass.sum(axis=1)
    moved = total > 0
    share = mass[:, personal].sum(axis=1) / np.where(moved, total, 1.0)
    return np.where(moved, share, np.nan).astype(np.float32)


def _category_match(slates: Slates, bundle: Bundle) -> tuple[Floats, Ints]:
    codes, histories = bundle.catalog.category_codes, slates.histories
    interest = watched(histories, bundle)
    category = codes[histories.item]
    width = len(bundle.catalog.category_names)
    # A small table per slate answers for all of its items: events in each category.
    cell = np.arange(len(histories))[:, None] * width + category
    size = len(histories) * width
    there = histories.item > 0
    events = np.bincount(cell[there], minlength=size)
    # A title that was watched twice is one title.
    slate, item = np.divmod(np.unique(np.nonzero(interest)[0] * len(codes) + histories.item[interest]), len(codes))
    titles = np.bincount(slate * width + codes[item], minlength=size)
    asked = slates.slate * width + codes[slates.item]
    length = histories.length[slates.slate]
    share = np.where(slates.known, events[asked] / np.maximum(length, 1), np.nan)
    return share.astype(np.float32), np.where(slates.known, titles[asked], 0).astype(np.int64)
