"""Decode: impressions in Arrow to slates, without those that cannot be explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from models.bundle import Bundle
from models.feature import Owner
from schemas.columnar import from_records, list_offsets
from schemas.errors import InvalidEvent
from schemas.validation import faults
from stream.explain.slates import Bools, Doubles, Ints, Slates, histories_of

_ONCE_A_SLATE: Final[tuple[Owner, ...]] = ("user", "context")
"""Owners whose features an impression carries once for all of its items."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The slates of a batch, the row of the batch that each is (int64 [S]), and why other rows are none, by row."""

    slates: Slates
    rows: Ints
    errors: dict[int, str]


def decode(impressions: pa.RecordBatch, bundle: Bundle, now_ms: int) -> Decoded:
    """Check impressions, look up their items in the bundle's catalogue, and select the history of each session.

    ``now_ms``: the clock against which a timestamp in the future is judged, in milliseconds since 1970.
    """
    errors = faults(impressions, now_ms)
    foreign = _is_foreign(impressions, bundle)
    for found in (_wrong_widths(impressions, foreign, bundle), _missing_scores(impressions, foreign, bundle)):
        for row, error in found.items():
            errors.setdefault(row, error)
    rows = np.arange(impressions.num_rows)
    if errors:
        kept = ~np.isin(rows, list(errors))
        rows, foreign, impressions = rows[kept], foreign[kept], impressions.filter(pa.array(kept))
    return Decoded(_slates(impressions, foreign, bundle), rows, errors)


def decode_records(impressions: Sequence[Mapping[str, Any]], bundle: Bundle, now_ms: int = 2**62) -> Slates:
    """Turn records of impressions into slates.

    Raises:
        InvalidEvent: one of them cannot be explained; says which and why.

    """
    decoded = decode(from_records("impression", impressions), bundle, now_ms)
    for row, error in decoded.errors.items():
        raise InvalidEvent(f"impression {row} cannot be explained: {error}")
    return decoded.slates


def _is_foreign(impressions: pa.RecordBatch, bundle: Bundle) -> Bools:
    """Whether another model, or another list of features, than the bundle's served a slate: bool [S]."""
    served = zip(
        impressions.column("model_version").to_pylist(), impressions.column("feature_set").to_pylist(), strict=True
    )
    own = (bundle.model_version, bundle.manifest.feature_set)
    return np.fromiter((each != own for each in served), np.bool_, impressions.num_rows)


def _wrong_widths(impressions: pa.RecordBatch, foreign: Bools, bundle: Bundle) -> dict[int, str]:
    """Say of slates whose features are not as many as the bundle's list has what was expected, by row.

    Foreign slates may have any number: their list is another.
    """
    found: dict[int, str] = {}
    name = bundle.manifest.feature_set
    for owner in _ONCE_A_SLATE:
        expected = len(bundle.owned(owner))
        sizes = np.diff(list_offsets(impressions.column(f"{owner}_features")))
        for row in np.flatnonzero((sizes != expected) & ~foreign).tolist():
            found.setdefault(
                row,
                f"expected {expected} {owner}_features of {name}, got {sizes[row]}; send them all in the bundle's "
                "order, NaN for a missing one",
            )
    slates = impressions.column("items")
    items, counts = slates.flatten(), np.diff(list_offsets(slates))
    expected = len(bundle.owned("item"))
    sizes = np.diff(list_offsets(items.field("item_features")))
    slate = np.repeat(np.arange(len(counts)), counts)
    for place in np.flatnonzero((sizes != expected) & ~foreign[slate]).tolist():
        item_id = items.field("item_id")[place].as_py()
        found.setdefault(
            int(slate[place]),
            f"expected {expected} item_features of {name} for {item_id!r}, got {sizes[place]}; send them all in the "
            "bundle's order, NaN for a missing one",
        )
    return found


def _missing_scores(impressions: pa.RecordBatch, foreign: Bools, bundle: Bundle) -> dict[int, str]:
    """Say of slates without re-ranking scores that the bundle's re-ranker should have scored, by row."""
    if not bundle.has_reranker:
        return {}
    slates = impressions.column("items")
    items, counts = slates.flatten(), np.diff(list_offsets(slates))
    scores = items.field("reranking_score")
    if not scores.null_count:
        return {}
    missing = scores.is_null().to_numpy(zero_copy_only=False)
    slate = np.repeat(np.arange(len(counts)), counts)
    found: dict[int, str] = {}
    for place in np.flatnonzero(missing & ~foreign[slate]).tolist():
        found.setdefault(
            int(slate[place]),
            f"expected a reranking_score of {items.field('item_id')[place].as_py()!r}, got none; send the score of the "
            f"re-ranker of {bundle.model_version}",
        )
    return found


def _slates(impressions: pa.RecordBatch, foreign: Bools, bundle: Bundle) -> Slates:
    sessions, items_of = impressions.column("session"), impressions.column("items")
    events, items = sessions.flatten(), items_of.flatten()
    session_offsets, offsets = list_offsets(sessions), list_offsets(items_of)
    event_item = _index(events.field("item_id"), bundle)
    engagement = _engagement(events.field("engagement"), bundle)
    histories, event, older_event = histories_of(
        session_offsets, foreign, event_item, engagement, bundle.manifest.max_length
    )
    ranking_score = items.field("ranking_score").to_numpy().astype(np.float64)
    return Slates(
        batch=impressions,
        offsets=offsets,
        foreign=foreign,
        histories=histories,
        event=event,
        older_event=older_event,
        sessions=session_offsets,
        event_id=events.field("item_id"),
        event_item=event_item,
        slate=np.repeat(np.arange(len(foreign)), np.diff(offsets)),
        item_id=items.field("item_id"),
        item=_index(items.field("item_id"), bundle),
        position=items.field("position").to_numpy().astype(np.int64),
        ranking_score=ranking_score,
        reranking_score=_reranking_score(items.field("reranking_score"), ranking_score),
        features=_features(impressions, offsets, foreign, ranking_score, bundle),
    )


def _index(item_ids: pa.StringArray, bundle: Bundle) -> Ints:
    """Look item ids up in the catalogue, each distinct id once: int64 [n], 0 where unknown."""
    coded = item_ids.dictionary_encode()
    found: Ints = bundle.catalog.index(coded.dictionary.to_pylist())[coded.indices.to_numpy()]
    return found


def _engagement(names: pa.StringArray, bundle: Bundle) -> Ints:
    """Return the bundle's index of each engagement, 0 where the bundle does not know it: int64 [n]."""
    coded = names.dictionary_encode()
    found: Ints = bundle.engagement_index(coded.dictionary.to_pylist())[coded.indices.to_numpy()]
    return found


def _reranking_score(scores: pa.FloatArray, ranking_score: Doubles) -> Doubles:
    """Return the scores that ordered each item, float64 [T]: without a re-ranker, the ranking scores."""
    sent = scores.to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(scores.is_null().to_numpy(zero_copy_only=False), ranking_score, sent) if scores.null_count else sent


def _features(
    impressions: pa.RecordBatch, offsets: Ints, foreign: Bools, ranking_score: Doubles, bundle: Bundle
) -> Doubles:
    """Lay out the input of the re-ranker, float64 [T, F], in the order of the bundle's features."""
    counts = np.diff(offsets)
    own = np.repeat(~foreign, counts)
    matrix = np.full((len(own), len(bundle.features)), np.nan)
    if not own.any():
        return matrix
    owners = np.array([feature.owner for feature in bundle.features])
    for owner in _ONCE_A_SLATE:
        columns = np.flatnonzero(owners == owner)
        if len(columns):
            values = _matrix(impressions.column(f"{owner}_features"), ~foreign, len(columns))
            matrix[_places(own, columns)] = np.repeat(values, counts[~foreign], axis=0)
    columns = np.flatnonzero(owners == "item")
    if len(columns):
        features = impressions.column("items").flatten().field("item_features")
        matrix[_places(own, columns)] = _matrix(features, own, len(columns))
    if bundle.session_column is not None:
        matrix[own, bundle.session_column] = ranking_score[own]
    return matrix


def _places(own: Bools, columns: Ints) -> Any:
    """Index some columns of the rows that are the bundle's own, quickly where all of them are."""
    return (slice(None), columns) if own.all() else np.ix_(own, columns)


def _matrix(lists: pa.ListArray, kept: Bools, width: int) -> Any:
    """Stack those lists that are kept, each of ``width`` numbers: float32 [kept.sum(), width]."""
    values = lists.flatten().to_numpy()
    if not kept.all():
        values = values[np.repeat(kept, np.diff(list_offsets(lists)))]
    return values.reshape(int(kept.sum()), width)
