"""Features equal a plain reference implementation, use no later events, and describe no personal traits."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.catalog import Catalog
from models.data.sessions import Sessions
from models.reranker.features import FEATURES, ITEM_FEATURES, USER_FEATURES, Moments, compute, matrix
from models.reranker.itemlog import ItemLog, percentile
from tests.reranker import plain

ITEMS = 9
DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS + 5_000_000


def small_log(seed: int, users: int = 14) -> Sessions:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 13, users)
    # Six weeks, so that there are recent, earlier and older events; a few are later than NOW_MS.
    times = [np.sort(NOW_MS + random.integers(-45 * DAY_MS, 3 * DAY_MS, length)) for length in lengths]
    events = int(lengths.sum())
    return Sessions(
        item=random.integers(1, ITEMS, events).astype(np.int32),  # the last item is never watched
        engagement=random.integers(1, 6, events).astype(np.int8),
        timestamp_ms=np.concatenate(times),
        cause=np.full(events, -1, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        user_id_hash=np.array([f"{number:016x}" for number in range(users)]),
        region=random.choice(["DE", "GB"], users),
        locale=np.full(users, "en-GB"),
        catalog=Catalog(
            tuple(f"i{number}" for number in range(ITEMS)),
            tuple(f"Title {number}" for number in range(ITEMS)),
            tuple(("Crime", "Nature", "Space")[number % 3] for number in range(ITEMS)),
            np.linspace(0, 100, ITEMS + 1, dtype=np.float32),
        ),
    )


def until(log: Sessions, time_ms: int) -> Sessions:
    before = log.timestamp_ms < time_ms
    return log.first(np.bincount(log.owner[before], minlength=len(log)))


def of(log: Sessions, history: Sessions, now_ms: int = NOW_MS) -> tuple[np.ndarray, np.ndarray]:
    indexed = ItemLog.of(log)
    moments = Moments.of(history, np.full(len(history), now_ms), indexed, 50)
    candidates = np.tile(np.arange(1, ITEMS + 1), (len(history), 1))
    return compute(indexed, moments, candidates)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_features_equal_the_reference_implementation(seed: int) -> None:
    log = small_log(seed)
    history = until(log, NOW_MS)
    user, item = of(log, history)

    for row in range(0, len(history), 3):
        span = slice(history.offsets[row], history.offsets[row + 1])
        columns = (history.item[span], history.engagement[span], history.timestamp_ms[span])
        past = list(zip(*(column.tolist() for column in columns), strict=True))
        region = str(history.region[row])
        expected = plain.user_features(log, past, NOW_MS, region)
        for feature, got, want in zip(USER_FEATURES, user[row], expected, strict=True):
            assert got == pytest.approx(want, rel=1e-5, abs=1e-5, nan_ok=True), feature.name
        for candidate in (1, 5, ITEMS):
            expected = plain.item_features(log, past, NOW_MS, region, candidate)
            for feature, got, want in zip(ITEM_FEATURES, item[row, candidate - 1], expected, strict=True):
                assert got == pytest.approx(want, rel=1e-5, abs=1e-5, nan_ok=True), feature.name


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_features_do_not_depend_on_later_events(seed: int) -> None:
    log = small_log(seed)
    midnight = NOW_MS // DAY_MS * DAY_MS
    history = until(log, midnight)
    random = np.random.default_rng(seed)
    later = log.timestamp_ms >= midnight
    other = replace(
        log,
        item=np.where(later, random.integers(1, ITEMS + 1, len(later)), log.item).astype(np.int32),
        engagement=np.where(later, random.integers(1, 6, len(later)), log.engagement).astype(np.int8),
    )

    for one, two in zip(of(log, history), of(other, history), strict=True):
        np.testing.assert_array_equal(one, two)


def test_features_that_need_events_are_nan_for_an_empty_history() -> None:
    log = small_log(1)
    user, item = of(log, log.first(0))
    named = dict(zip([feature.name for feature in USER_FEATURES], user[0], strict=True))

    assert named["history_length"] == named["events_last_week"] == 0
    assert all(np.isnan(value) for name, value in named.items() if name not in {
        "history_length", "events_last_day", "events_last_week",
    })  # fmt: skip
    by_name = dict(zip([feature.name for feature in ITEM_FEATURES], item[0, 0], strict=True))
    assert np.isfinite(by_name["popularity_percentile"])
    assert np.isnan(by_name["category_share"])
    assert np.isnan(by_name["follow_rate"])
    assert not np.isinf(user).any()
    assert not np.isinf(item).any()


def test_a_region_missing_in_the_log_has_features() -> None:
    log = small_log(2)
    elsewhere = replace(log.first(5), region=np.full(len(log), "JP"))
    _, item = of(log, elsewhere)

    assert (item[:, :, 0] == 50).all(), "without plays, all items are equally popular"
    assert np.isnan(item[:, :, 1]).all(), "without plays, the trend is undefined"


def test_the_feature_list_fits_the_event_contract() -> None:
    assert len(USER_FEATURES) == len(ITEM_FEATURES) == 20
    assert [feature.owner for feature in FEATURES] == ["user"] * 20 + ["item"] * 20 + ["session"]
    assert FEATURES[-1].name == "session_score"
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == 41
    assert {"trend_percentile", "popularity_percentile"} <= set(names)
    assert len({feature.display_name for feature in FEATURES}) == 41
    assert sum(feature.is_category for feature in FEATURES) == 6
    assert not [feature for feature in FEATURES if not re.fullmatch(r"[A-Z][a-z' ]+", feature.display_name)]


def test_no_feature_is_a_personal_trait() -> None:
    words = {word for feature in FEATURES for word in f"{feature.name}_{feature.display_name}".lower().split("_")}

    assert not words & {"age", "gender", "sex", "occupation", "zip", "income", "locale", "language"}


def test_a_row_has_user_features_then_item_features_then_session_score() -> None:
    user = np.arange(40, dtype=np.float32).reshape(2, 20)
    item = 100 + np.arange(120, dtype=np.float32).reshape(2, 3, 20)
    score = np.array([[1.5, 2.5, 3.5], [4.5, 5.5, np.nan]], dtype=np.float32)
    rows = matrix(user, item, score)

    assert rows.shape == (6, 41)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows[4], [*user[1], *item[1, 1], 5.5])
    assert np.isnan(rows[5, -1])


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_percentiles_keep_order_ties_and_mean(values: list[int]) -> None:
    ranked = percentile(np.array(values), np.ones(len(values), dtype=np.bool_))

    assert ranked.mean() == pytest.approx(50)
    for left, right in itertools.pairwise(values):
        order = (left > right) - (left < right)
        assert np.sign(ranked[values.index(left)] - ranked[values.index(right)]) == order
    assert [round(value, 6) for value in ranked] == [round(plain.percentile(value, values), 6) for value in values]
