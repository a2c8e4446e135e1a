"""Diagnosis: why a bundle's models do not reproduce the scores of impressions, and what most likely helps.

Every item is scored as the explain stream scores it. Items that differ are grouped by the mismatch that the stream
would name; within a group, what usually goes wrong between two systems is tried out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.bundle import Bundle
from models.session.histories import Histories
from schemas.events import MISMATCHES
from stream.explain.decode import decode
from stream.explain.models import Models
from stream.explain.score import Scores, score
from stream.explain.slates import Slates

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EXAMPLES: Final = 3
_NOW_MS: Final = 2**62
_LENGTHS: Final = (5, 10, 20, 25, 30, 50, 64, 100, 128, 200)
_PRECISIONS: Final = (("float16", 2.0**-10), ("bfloat16", 2.0**-7))
_CORRELATION: Final = 0.9999
_MOST: Final = 0.9

REMEDIES: Final[dict[str, str]] = {
    "other_model": "other versions served these slates: diagnose them with their own bundles",
    "other_features": "another list of features served these slates: send the bundle's feature_set, or write the "
    "bundle again with the list that serves",
    "unknown_item": "the catalogue lacks the item: write the bundle with the catalogue that serves",
    "empty_session": "state in the manifest what an empty session scores (empty_session)",
    "unknown_event": "the bundle does not know an item or an engagement of the session: add it to the bundle, or leave "
    "such events out of the session before scoring",
    "ranking_score": "another session model scored the items: compare item order, weights and version",
    "history_features": "the features that were sent do not derive from the session that was sent: send the session "
    "that the features were computed from",
    "reranking_score": "another re-ranker scored the items: compare its version and the order of its features",
    "other_items": "the other items of the slate differ: see there",
}
"""What to do about each mismatch, if nothing more is found."""


@dataclass
class Group:
    """Items that differ in one way: how many, the largest difference in tolerances, and some examples."""

    cause: str
    remedy: str
    items: int = 0
    tolerances: float = 0.0
    examples: list[str] = field(default_factory=list)


@dataclass
class Diagnosis:
    """What became of the items of impressions.

    slates and items: how many were scored; reproduced: items whose scores the models reproduce; groups: the others, the
    largest group first; rejected: why impressions cannot be explained at all, with their numbers.
    """

    slates: int = 0
    items: int = 0
    reproduced: int = 0
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)

    def ordered(self) -> list[Group]:
        """Return the groups, the largest first."""
        return sorted(self.groups.values(), key=lambda group: -group.items)


def diagnose(bundle: Bundle, batches: Iterable[pa.RecordBatch]) -> Diagnosis:
    """Score impressions, ``impression.avsc`` in Arrow, and group the items that differ.

    Raises:
        BundleError: a model of the bundle does not run.

    """
    models, found = Models.open(bundle), Diagnosis()
    for batch in batches:
        decoded = decode(batch, bundle, _NOW_MS)
        for error in decoded.errors.values():
            found.rejected[error] = found.rejected.get(error, 0) + 1
        slates = decoded.slates
        if len(slates) == 0:
            continue
        scores = score(slates, models)
        found.slates += len(slates)
        found.items += len(slates.item)
        found.reproduced += int(scores.matches.sum())
        for cause, remedy, rows in _groups(slates, scores, models):
            group = found.groups.setdefault((cause, remedy), Group(cause, remedy))
            group.items += len(rows)
            differences = _differences(slates, scores, models, rows, cause)
            group.tolerances = max(group.tolerances, float(np.nanmax(differences, initial=0.0)))
            group.examples += [_example(slates, scores, row, cause) for row in rows[: EXAMPLES - len(group.examples)]]
    return found


def _groups(slates: Slates, scores: Scores, models: Models) -> Iterator[tuple[str, str, Ints]]:
    for number, cause in enumerate(MISMATCHES):
        rows = np.flatnonzero(scores.mismatch == number)
        if not len(rows):
            continue
        if cause in ("ranking_score", "unknown_event"):
            remedy = _session_remedy(slates, scores, models, rows)
        elif cause == "reranking_score":
            remedy = _reranker_remedy(slates, models, rows)
        else:
            remedy = None
        yield cause, remedy or REMEDIES[cause], rows


def _session_remedy(slates: Slates, scores: Scores, models: Models, rows: Ints) -> str | None:
    sent, ours = slates.ranking_score[rows], _ranking(slates, scores, models, slates.histories)[rows]
    tolerance = models.bundle.manifest.score_tolerance * models.spread.session
    if (remedy := _precision(ours, sent)) is not None:
        return f"the session model {remedy}"
    for length in _LENGTHS:
        if length < models.session.max_length and (slates.histories.length > length).any():
            again = _ranking(slates, scores, models, _shortened(slates.histories, length))[rows]
            if _mostly(np.abs(again - sent) <= tolerance):
                return f"the recommender reads the newest {length} events: set max_length to {length}"
    if _mostly(np.abs(ours - models.bundle.item_bias[slates.item[rows]] - sent) <= tolerance):
        return "the recommender leaves the item biases out: write the bundle without item_bias"
    return _linear(ours, sent, "ranking_score")


def _reranker_remedy(slates: Slates, models: Models, rows: Ints) -> str | None:
    if models.reranker is None:
        return _linear(slates.ranking_score[rows], slates.reranking_score[rows], "reranking_score")
    X, sent = slates.features[rows], slates.reranking_score[rows]
    raw = models.reranker.raw(X)
    tolerance = models.bundle.manifest.score_tolerance * models.spread.reranker
    sigmoid = 1.0 / (1.0 + np.exp(-raw))
    predicted = np.asarray(models.reranker.booster.predict(X, num_threads=1), dtype=np.float64)
    for values, says in (
        (raw, "raw scores are sent: set reranker_output to raw"),
        (predicted, "what predict() gives is sent: set reranker_output to prediction"),
        (sigmoid, "probabilities are sent: set reranker_output to probability"),
    ):
        if _mostly(np.abs(values - sent) <= tolerance * np.minimum(1.0, np.abs(sent) + 1e-3)):
            return says
    if np.isnan(X).any() and _mostly(np.abs(models.reranker.score(np.nan_to_num(X)) - sent) <= tolerance):
        return "the recommender scores missing features as 0: send 0 instead of NaN"
    if (remedy := _precision(models.reranker.score(X), sent)) is not None:
        return f"the re-ranker {remedy}"
    return _linear(raw, sent, "reranking_score")


def _precision(ours: Doubles, sent: Doubles) -> str | None:
    scale = np.abs(sent).max(initial=0.0)
    for name, step in _PRECISIONS:
        if scale > 0 and _mostly(np.abs(ours - sent) <= 2 * step * scale):
            return (
                f"serves in {name}, or the scores are rounded to it: serve and send float32, or raise score_tolerance "
                "to what this rounding needs"
            )
    return None


def _linear(ours: Doubles, sent: Doubles, name: str) -> str | None:
    """Recognise scores that are scaled or shifted."""
    fine = np.isfinite(ours) & np.isfinite(sent)
    if fine.sum() < 5 or ours[fine].std() == 0 or sent[fine].std() == 0:
        return None
    if np.corrcoef(ours[fine], sent[fine])[0, 1] < _CORRELATION:
        return None
    slope, offset = np.polyfit(ours[fine], sent[fine], 1)
    return f"{name} is {slope:.4g} times ours plus {offset:.4g}: send the model's own score, or export the scaled model"


def _shortened(histories: Histories, length: int) -> Histories:
    """Keep the newest events only."""
    there = np.arange(histories.width) >= histories.width - length
    kept = np.minimum(histories.length, length)
    return Histories(histories.item * there, histories.engagement * there, kept)


def _ranking(slates: Slates, scores: Scores, models: Models, histories: Histories) -> Doubles:
    vector = models.session.run(histories.item, histories.engagement, without=False).vector
    ranking: Doubles = np.einsum("td,td->t", vector[slates.slate].astype(np.float64), scores.items) + scores.bias
    return ranking


def _differences(slates: Slates, scores: Scores, models: Models, rows: Ints, cause: str) -> Doubles:
    """Return how far scores are apart, in tolerances; NaN where there is nothing to compare."""
    share = models.bundle.manifest.score_tolerance
    if cause in ("ranking_score", "unknown_event"):
        ours = _ranking(slates, scores, models, slates.histories)[rows]
        return np.asarray(np.abs(ours - slates.ranking_score[rows]) / (share * models.spread.session))
    if cause == "reranking_score" and models.reranker is not None:
        raw = models.reranker.raw(slates.features[rows])
        sent = models.reranker.link.raw(slates.reranking_score[rows])
        return np.asarray(np.abs(raw - sent) / (share * models.spread.reranker))
    return np.full(len(rows), np.nan)


def _example(slates: Slates, scores: Scores, row: int, cause: str) -> str:
    request = slates.texts("request_id")[int(slates.slate[row])]
    item = slates.item_id[row].as_py()
    if cause in ("ranking_score", "unknown_event"):
        ours = float(scores.reading.vector[slates.slate[row]] @ scores.items[row] + scores.bias[row])
        return f"{request} {item}: ranking_score {slates.ranking_score[row]:.6g}, ours {ours:.6g}"
    if cause == "reranking_score":
        return f"{request} {item}: reranking_score {slates.reranking_score[row]:.6g}"
    return f"{request} {item}"


def _mostly(fits: npt.NDArray[np.bool_]) -> bool:
    return bool(len(fits) > 0 and fits.mean() >= _MOST)
