"""An impression that cannot be explained is refused before it reaches a model, by the name of its field."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from schemas.columnar import from_records
from schemas.errors import InvalidEvent
from schemas.json_form import from_json
from schemas.validation import MAX_FUTURE_MS, MAX_SLATE_ITEMS, faults
from tests.strategies import impressions

GOLDEN = Path(__file__).parent / "golden" / "impression.v1.json"
NOW_MS = 1_767_225_600_000


@given(record=impressions)
def test_what_fits_has_no_fault(record: dict[str, Any]) -> None:
    assert faults(from_records("impression", [record]), NOW_MS) == {}


def broken(**change: Any) -> dict[str, Any]:
    return from_json("impression", GOLDEN.read_bytes()) | change


def with_item(**change: Any) -> dict[str, Any]:
    record = broken()
    record["items"][0] |= change
    return record


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (broken(request_id="not-a-uuid"), "request_id"),
        (broken(user_id_hash="ABCDEF0123456789"), "user_id_hash"),
        (broken(region="eu/../us"), "region"),
        (broken(region=".."), "region"),
        (broken(region=""), "region"),
        (broken(locale="en US"), "locale"),
        (broken(timestamp_ms=1_767_225_600), "not seconds"),
        (broken(timestamp_ms=NOW_MS + MAX_FUTURE_MS + 1), "ahead of the clock"),
        (broken(user_features=[math.inf]), "user_features"),
        (with_item(item_features=[0.5, -math.inf]), "item_features"),
        (with_item(ranking_score=math.nan), "score"),
        (with_item(reranking_score=math.inf), "score"),
        (with_item(position=0), "position"),
        (broken(items=broken()["items"] * 2), "twice"),
        (broken(items=broken()["items"] * (MAX_SLATE_ITEMS + 1)), "at most"),
        (broken(session=broken()["session"] * 1000), "session"),
    ],
)
def test_what_does_not_fit_is_refused_by_field(record: dict[str, Any], named: str) -> None:
    [(row, fault)] = faults(from_records("impression", [broken(), record, broken()]), NOW_MS).items()
    assert row == 1
    assert named in fault


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (broken(session=None), "session"),
        (broken(detail="yes"), "detail"),
        (broken(timestamp_ms=2**70), "larger than its type"),
        (with_item(ranking_score=1e39), "ranking_score"),
        (with_item(position=2.5), "position"),
        (with_item(item_id="\ud800"), "half a character"),
        ({}, "request_id"),
        (broken(items=[7]), "items"),
        (17, "a record"),
    ],
)
def test_a_record_of_another_shape_is_refused_by_field(record: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidEvent, match=named):
        from_records("impression", [broken(), record])


def test_a_clock_a_day_ahead_is_tolerated() -> None:
    record = broken(timestamp_ms=NOW_MS + MAX_FUTURE_MS)
    assert faults(from_records("impression", [record]), NOW_MS) == {}
