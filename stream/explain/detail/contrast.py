"""Contrast: why one item of a slate stands before another, as the difference of their ledgers.

The raw scores of two items differ by the sum of the differences of their contributions, and their session scores by the
sum of the differences of the effects of all events, and of what the events do only together. So a contrast is as exact
as the two ledgers.
"""

from __future__ import annotations

from typing import Final

from schemas.events import Contrast, Detail, EventContrast, FeatureContrast

SHOWN: Final = 5
"""Features and events that a contrast names at most: those that differ most."""


def contrast(one: Detail, other: Detail, other_item_id: str, limit: int | None = SHOWN) -> Contrast:
    """Say what sets an item apart from another item of its slate, the largest differences first.

    Sensitive features and differences of 0 are left out; limit: of features and of events, None for all.
    """
    features = [
        FeatureContrast(
            name=mine["name"],
            display_name=mine["display_name"],
            difference=mine["contribution"] - theirs["contribution"],
        )
        for mine, theirs in zip(one["features"], other["features"], strict=True)
        if not mine["sensitive"]
    ]
    events = [
        EventContrast(
            event=mine["event"],
            item_id=mine["item_id"],
            title=mine["title"],
            difference=mine["effect"] - theirs["effect"],
        )
        for mine, theirs in zip(one["events"], other["events"], strict=True)
        if mine["effect"] is not None and theirs["effect"] is not None
    ]
    return Contrast(
        item_id=other_item_id,
        raw_score=one["raw_score"] - other["raw_score"],
        session_score=one["session_score"] - other["session_score"],
        features=sorted((each for each in features if each["difference"]), key=_size)[:limit],
        events=sorted((each for each in events if each["difference"]), key=_size)[:limit],
    )


def _size(part: FeatureContrast | EventContrast) -> float:
    return -abs(part["difference"])
