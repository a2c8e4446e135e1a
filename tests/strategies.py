"""Hypothesis strategies for the events on the bus; every record drawn fits its Avro schema."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from models.data.sessions import ENGAGEMENT_NAMES
from schemas.events import EXPLANATION_TYPES, STATUSES

float32 = st.floats(width=32, allow_nan=True, allow_infinity=False)
finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(max_size=20)
timestamps_ms = st.integers(946_684_800_000, 1_767_225_600_000)
item_ids = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)


def _record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(dict(fields))


def _items(features: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    item = _record(
        item_id=item_ids,
        position=st.integers(1, 500),
        ranking_score=finite32,
        reranking_score=st.none() | finite32,
        item_features=st.lists(float32, min_size=features, max_size=features),
    )
    return st.lists(item, max_size=6, unique_by=lambda drawn: drawn["item_id"])


impressions = _record(
    request_id=st.uuids().map(str),
    timestamp_ms=timestamps_ms,
    user_id_hash=st.binary(min_size=8, max_size=8).map(bytes.hex),
    region=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True),
    locale=st.sampled_from(["en-US", "de", "de-AT", "xx-Unknown"]),
    feature_set=text,
    model_version=text,
    session=st.lists(
        _record(
            item_id=item_ids,
            engagement=st.sampled_from(ENGAGEMENT_NAMES) | text,
            timestamp_ms=st.none() | timestamps_ms,
        ),
        max_size=6,
    ),
    user_features=st.lists(float32, min_size=4, max_size=4),
    context_features=st.lists(float32, max_size=2),
    items=_items(4),
    detail=st.booleans(),
)

float64 = st.floats(allow_infinity=False)
finite64 = st.floats(allow_infinity=False, allow_nan=False)
details = _record(
    base_value=float64,
    raw_score=float64,
    residual=float64,
    features=st.lists(
        _record(
            name=text,
            display_name=text,
            owner=st.sampled_from(["user", "item", "context", "session"]),
            unit=text,
            value=float64,
            contribution=float64,
            sensitive=st.booleans(),
        ),
        max_size=2,
    ),
    session_score=float64,
    events=st.lists(
        _record(
            event=int32,
            item_id=text,
            title=text,
            engagement=st.sampled_from(ENGAGEMENT_NAMES),
            age_s=st.none() | int64,
            attention=st.none() | finite64,
            similarity=st.none() | st.floats(-1, 1),
            effect=st.none() | finite64,
        ),
        max_size=2,
    ),
    events_together=st.none() | finite64,
    recourse=st.none()
    | _record(
        kind=st.sampled_from(["history", "feature"]),
        events=st.lists(int32, max_size=3),
        item_ids=st.lists(text, max_size=3),
        titles=st.lists(text, max_size=3),
        feature=st.none() | text,
        rank=int32,
        rank_without=int32,
        off_slate=st.booleans(),
        text=text,
    ),
    similar_moments=st.lists(
        _record(
            event=int32,
            similarity=st.floats(-1, 1),
            next_item_id=text,
            next_title=text,
            whose=st.sampled_from(["own", "others"]),
        ),
        max_size=2,
    ),
    contrast=st.none()
    | _record(
        item_id=text,
        raw_score=float64,
        session_score=float64,
        features=st.lists(_record(name=text, display_name=text, difference=float64), max_size=2),
        events=st.lists(_record(event=int32, item_id=text, title=text, difference=float64), max_size=2),
    ),
)

explanations = _record(
    request_id=st.uuids().map(str),
    timestamp_ms=int64,
    user_id_hash=text,
    region=text,
    locale=text,
    model_version=text,
    policy=text,
    produced_at_ms=int64,
    ablations=st.lists(text, max_size=3),
    items=st.lists(
        _record(
            item_id=text,
            position=int32,
            type=st.sampled_from(EXPLANATION_TYPES),
            status=st.sampled_from(STATUSES),
            mismatch=st.none() | text,
            text=text,
            basis_text=text,
            detail=st.none() | details,
            evidence=_record(
                history=st.lists(
                    _record(
                        item_id=text,
                        title=text,
                        event=int32,
                        attention=st.none() | finite32,
                        attribution=float32,
                        score_drop=float32,
                        rank=int32,
                        rank_without=int32,
                    ),
                    max_size=2,
                ),
                features=st.lists(
                    _record(name=text, display_name=text, value=float32, contribution=float32), max_size=3
                ),
                personal_share=st.none() | finite32,
                category_match=st.none() | finite32,
                residual=st.none() | finite32,
                basis=st.none() | st.sampled_from(["personal", "mixed", "popular"]),
            ),
        ),
        max_size=3,
    ),
)

audits = _record(
    request_id=st.binary(min_size=16, max_size=16),
    timestamp_ms=int64,
    user_id_hash=st.binary(min_size=8, max_size=8),
    region=text,
    model_version=text,
    policy=text,
    wording_hash=st.binary(min_size=8, max_size=8),
    source_topic_id=text,
    source_partition=int32,
    source_offset=int64,
    computation_time_ms=float32,
    ablations=text,
    history=st.lists(text, max_size=5),
    entries=st.lists(
        _record(
            item_id=text,
            position=int32,
            ranking_score=float32,
            reranking_score=float32,
            explanation_type=st.sampled_from(EXPLANATION_TYPES),
            status=st.sampled_from(STATUSES),
            explanation_text_hash=st.binary(min_size=8, max_size=8),
            shap_top_3=st.lists(_record(feature=text, value=float32), max_size=3),
            attention_top_2=st.lists(_record(event=int32, weight=float32), max_size=2),
            cited=st.lists(int32, max_size=2),
        ),
        max_size=3,
    ),
)

dead_letters = _record(topic=text, partition=int32, offset=int64, stage=text, error=text, value=st.binary(max_size=40))

EVENTS = {"impression": impressions, "explanation": explanations, "audit": audits, "dead_letter": dead_letters}


def same(left: Any, right: Any) -> bool:
    """Equality in which NaN equals NaN."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)
