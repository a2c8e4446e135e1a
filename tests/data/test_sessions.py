"""Histories as columns: selection, splits, truncation and padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.sessions import InvalidSessions, Sessions, user_hash
from tests.bundles import tiny_catalog


def histories(lengths: list[int], users: list[int] | None = None) -> Sessions:
    events = sum(lengths)
    random = np.random.default_rng(events)
    names = range(len(lengths)) if users is None else users
    return Sessions(
        item=random.integers(1, 61, events).astype(np.int32),
        engagement=random.integers(1, 6, events).astype(np.int8),
        timestamp_ms=np.arange(events, dtype=np.int64),
        cause=np.full(events, -1, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        user_id_hash=np.array([user_hash(str(name)) for name in names], dtype="U16"),
        region=np.full(len(lengths), "GB"),
        locale=np.full(len(lengths), "en-GB"),
        catalog=tiny_catalog(),
    )


def plain(sessions: Sessions) -> list[list[int]]:
    return [
        sessions.timestamp_ms[low:high].tolist()
        for low, high in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
    ]


lengths = st.lists(st.integers(0, 8), min_size=1, max_size=12)


@settings(deadline=None)
@given(lengths, st.integers(0, 9))
def test_the_newest_events_are_dropped(lengths: list[int], count: int) -> None:
    sessions = histories(lengths)

    assert plain(sessions.without_last(count)) == [events[: max(0, len(events) - count)] for events in plain(sessions)]
    assert plain(sessions.first(count)) == [events[:count] for events in plain(sessions)]


@settings(deadline=None)
@given(lengths, st.integers(1, 9))
def test_the_newest_events_are_padded_on_the_left(lengths: list[int], length: int) -> None:
    sessions = histories(lengths)
    items, engagements = sessions.padded(length)

    assert items.shape == engagements.shape == (len(lengths), length)
    for row, (low, high) in enumerate(zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)):
        kept = sessions.item[low:high][-length:].tolist()
        assert items[row].tolist() == [0] * (length - len(kept)) + kept
    assert ((engagements > 0) == (items > 0)).all()


@settings(deadline=None)
@given(lengths, st.randoms(use_true_random=False))
def test_histories_are_selected_in_the_given_order(lengths: list[int], random: Any) -> None:
    sessions = histories(lengths)
    rows = [random.randrange(len(lengths)) for _ in range(5)]
    picked = sessions.select(rows)

    assert plain(picked) == [plain(sessions)[row] for row in rows]
    assert picked.user_id_hash.tolist() == sessions.user_id_hash[rows].tolist()


def test_no_user_is_in_two_parts_of_a_split() -> None:
    sessions = histories([3] * 200, users=[number // 4 for number in range(200)])
    train, validation, test = parts = sessions.parts()
    users = [set(part.user_id_hash.tolist()) for part in parts]

    assert [len(each) for each in users] == [40, 5, 5]
    assert len(set.union(*users)) == 50
    assert sorted(event for part in parts for events in plain(part) for event in events) == list(range(600))
    assert len(train) + len(validation) + len(test) == 200


def test_a_split_depends_on_the_seed_only() -> None:
    sessions = histories([2] * 50)

    assert plain(sessions.split(0.5, seed=3)[0]) == plain(sessions.split(0.5, seed=3)[0])
    assert plain(sessions.split(0.5, seed=3)[0]) != plain(sessions.split(0.5, seed=4)[0])
    with pytest.raises(InvalidSessions, match="at most 1"):
        sessions.split(0.9, 0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": np.array([1, 2, 61], dtype=np.int32)}, "from 1 to 60"),
        ({"item": np.array([0, 2, 3], dtype=np.int32)}, "from 1 to 60"),
        ({"engagement": np.array([0, 1, 1], dtype=np.int8)}, "0 is for padding"),
        ({"engagement": np.array([1, 1], dtype=np.int8)}, "3 values"),
        ({"cause": np.array([-1, 1, -1], dtype=np.int32)}, "earlier event"),
        ({"offsets": np.array([0, 4, 3], dtype=np.int64)}, "never decrease"),
        ({"region": np.array(["GB"])}, "one per history"),
    ],
)
def test_inconsistent_columns_are_rejected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSessions, match=message):
        replace(histories([1, 2]), **change)


def test_the_pseudonym_of_a_user_is_a_truncated_sha256() -> None:
    # printf "" | sha256sum
    assert user_hash("") == "e3b0c44298fc1c14"
    assert len(user_hash("somebody")) == 16
