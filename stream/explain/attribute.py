"""Attribute: what the re-ranker's features, the catalogue and the attention say of each item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models.bundle import Bundle
from models.compiled import compiled
from models.feature import Meaning, shown_as
from stream.explain.models import Models
from stream.explain.score import Scores
from stream.explain.slates import Bools, Doubles, Floats, Ints, Slates, watched
from stream.explain.top_k import write_top_k

TOP_FEATURES: Final = 5
"""Contributions that an explanation carries."""

RESIDUAL_TOLERANCE: Final = 1e-5
"""Float32 rounding of some hundred trees' values, relative to the size of what is summed (to 1 at least)."""


@dataclass(frozen=True, slots=True)
class Signals:
    """Columns over the T items; where an item does not match the models, contributions are 0 and shares NaN.

    contribution float64 [T, F]: SHAP values on the re-ranker's raw score; base_value float64 [T]: the expected raw
    score, to which the contributions add, and raw_score float64 [T]: the raw score itself, both NaN where the item does
    not match the models; top int64 [T, 5]: the largest by absolute value, largest first; shown float64 [T, G]: the
    contributions as they are shown, features of a group as one (``models.feature.shown_as``), and shown_top int64
    [T, 5]: the largest of these; residual float64 [T]:
    base_value + sum of contributions - raw_score; sound bool [T]: the residual is float noise, so that contributions
    may be spoken of; personal_share float32 [T]: share of the absolute contributions that comes from
    the user and the session; category int64 [T]: of the item's categories the code of that of which most titles were
    watched, category_titles int64 [T]: how many different ones, each with a sign of interest, and category_match
    float32 [T]: share of the history in this category; popularity and trend float32 [T]: percentiles, NaN where
    unknown.

    Without a re-ranker F is 0, and what is said of contributions is NaN or false.
    """

    contribution: Doubles
    base_value: Doubles
    raw_score: Doubles
    top: Ints
    shown: Doubles
    shown_top: Ints
    residual: Doubles
    sound: Bools
    personal_share: Floats
    category: Ints
    category_match: Floats
    category_titles: Ints
    popularity: Floats
    trend: Floats


def attribute(slates: Slates, scores: Scores, models: Models) -> Signals:
    """Compute all signals; TreeSHAP in one call, over the items whose scores are reproduced."""
    bundle = models.bundle
    rows = np.flatnonzero(scores.matches)
    contribution = np.zeros((len(slates.item), len(bundle.features)))
    base_value, raw_score, residual = (np.full(len(slates.item), np.nan) for _ in range(3))
    sound = np.zeros(len(slates.item), dtype=np.bool_)
    personal_share = np.full(len(slates.item), np.nan, dtype=np.float32)
    if len(rows) and models.treeshap is not None:
        shap = models.treeshap.contributions(slates.features[rows], same_bits=True)
        contribution[rows] = shap[:, :-1]
        base_value[rows] = shap[:, -1]
        raw_score[rows] = scores.rescorer.raw(rows, slates.ranking_score[rows])
        residual[rows], sound[rows] = _residual(shap, raw_score[rows])
        personal_share[rows] = _personal_share(contribution[rows], bundle)
    category, category_match, category_titles = _category_match(slates, bundle)
    top = _largest(contribution)
    shown, shown_top = _shown(contribution, top, bundle)
    catalog_popularity = np.where(slates.known, bundle.catalog.popularity[slates.item], np.nan)
    return Signals(
        contribution=contribution,
        base_value=base_value,
        raw_score=raw_score,
        top=top,
        shown=shown,
        shown_top=shown_top,
        residual=residual,
        sound=sound,
        personal_share=personal_share,
        category=category,
        category_match=category_match,
        category_titles=category_titles,
        popularity=_percentile("popularity", slates, bundle, catalog_popularity),
        trend=_percentile("trend", slates, bundle, np.full(len(slates.item), np.nan)),
    )


def _percentile(meaning: Meaning, slates: Slates, bundle: Bundle, otherwise: Doubles) -> Floats:
    """Return the feature of a meaning as a percentile from 0 to 100, or other percentiles where a bundle has none."""
    for column, feature in enumerate(bundle.features):
        if feature.meaning == meaning and not feature.is_sensitive:
            return (slates.features[:, column] * (100.0 / feature.scale)).astype(np.float32)
    return otherwise.astype(np.float32)


def _largest(contribution: Doubles) -> Ints:
    """Find the largest of each row by absolute value, the first of equals first, int64 [T, 5]."""
    places = np.empty((len(contribution), min(TOP_FEATURES, contribution.shape[1])), dtype=np.int64)
    _rank(contribution, places)
    return places


def _shown(contribution: Doubles, top: Ints, bundle: Bundle) -> tuple[Doubles, Ints]:
    """Add up the contributions of each group, and find the largest again if there is a group of several features."""
    names = shown_as(bundle.features)
    distinct = list(dict.fromkeys(names))
    if len(distinct) == len(names):
        return contribution, top
    belongs = np.array([[name == each for each in distinct] for name in names], dtype=np.float64)
    shown: Doubles = contribution @ belongs
    return shown, _largest(shown)


def _residual(shap: Doubles, raw: Doubles) -> tuple[Doubles, Bools]:
    residual = shap.sum(axis=1) - raw
    size = np.maximum(1.0, np.abs(shap).sum(axis=1))
    return residual, np.abs(residual) <= RESIDUAL_TOLERANCE * size


def _personal_share(contribution: Doubles, bundle: Bundle) -> Floats:
    # A sensitive feature is none of the user's habits, of which a personal share is said to speak.
    personal = np.array([feature.is_personal and not feature.is_sensitive for feature in bundle.features], np.bool_)
    mass = np.abs(contribution)
    total = mass.sum(axis=1)
    moved = total > 0
    share = mass[:, personal].sum(axis=1) / np.where(moved, total, 1.0)
    return np.where(moved, share, np.nan).astype(np.float32)


def _category_match(slates: Slates, bundle: Bundle) -> tuple[Ints, Floats, Ints]:
    catalog, histories = bundle.catalog, slates.histories
    category, titles = np.zeros(len(slates.item), dtype=np.int64), np.zeros(len(slates.item), dtype=np.int64)
    share = np.full(len(slates.item), np.nan, dtype=np.float32)
    interest = watched(histories, bundle)
    tables = np.empty((2, len(catalog.category_names)), dtype=np.int64)
    _count(histories.item, histories.length, interest, slates.offsets, slates.item, catalog.category_offsets,
           catalog.category_members, tables, category, share, titles)  # fmt: skip
    return category, share, titles


@compiled
def _rank(contribution: Any, places: Any) -> None:
    """Write the columns of each row's largest, in absolute value, in their order."""
    every = np.ones(contribution.shape[1], np.bool_)
    for row in range(len(contribution)):
        write_top_k(np.abs(contribution[row]), every, places[row])


@compiled
def _count(
    history: Any,
    length: Any,
    interest: Any,
    offsets: Any,
    item: Any,
    first: Any,
    members: Any,
    tables: Any,
    category: Any,
    share: Any,
    titles: Any,
) -> None:
    """Count each slate's events and titles by category, and answer for all of its items that are known.

    The categories of item i are members[first[i]:first[i + 1]]; tables int64 [2, categories] is working space.
    """
    for slate in range(history.shape[0]):
        tables[:] = 0
        for column in range(history.shape[1]):
            past = history[slate, column]
            if past == 0:
                continue
            # A title that was watched twice is one title.
            new = interest[slate, column]
            for before in range(column):
                new &= history[slate, before] != past or not interest[slate, before]
            for place in range(first[past], first[past + 1]):
                tables[0, members[place]] += 1
                tables[1, members[place]] += new
        for row in range(offsets[slate], offsets[slate + 1]):
            if item[row] > 0:
                best = members[first[item[row]]]
                for place in range(first[item[row]] + 1, first[item[row] + 1]):
                    code = members[place]
                    if (tables[1, code], tables[0, code]) > (tables[1, best], tables[0, best]):
                        best = code
                category[row] = best
                share[row] = tables[0, best] / max(length[slate], 1)
                titles[row] = tables[1, best]
