"""The forty features once more, one event at a time in plain Python: slow, and easy to check by reading."""

from __future__ import annotations

import itertools
import math
from statistics import mean

from models.data.sessions import COMPLETE, LIKE, SHARE, SKIP, VIEW, Sessions

DAY_MS = 86_400_000
NAN = math.nan
ENGAGED = {LIKE, COMPLETE, SHARE}

# item, engagement, time, region, history it belongs to
Event = tuple[int, int, int, str, int]
Past = list[tuple[int, int, int]]


def log_before(sessions: Sessions, now_ms: int) -> list[Event]:
    midnight = now_ms // DAY_MS * DAY_MS
    return [
        (int(item), int(code), int(time), str(sessions.region[owner]), int(owner))
        for item, code, time, owner in zip(
            sessions.item, sessions.engagement, sessions.timestamp_ms, sessions.owner, strict=True
        )
        if time < midnight
    ]


def percentile(value: float, among: list[float]) -> float:
    return 100 * mean([(other < value) + 0.5 * (other == value) for other in among])


def share(count: float, total: float) -> float:
    return 100 * count / total if total else NAN


def user_features(sessions: Sessions, past: Past, now_ms: int, region: str) -> list[float]:
    if not past:
        return [0.0, *[NAN] * 13, 0.0, 0.0, *[NAN] * 4]
    events = log_before(sessions, now_ms)
    codes = [code for _, code, _ in past]
    kinds = [int(sessions.catalog.category_codes[item]) for item, _, _ in past]
    parts = [kinds.count(kind) / len(kinds) for kind in sorted(set(kinds))]
    evenness = -sum(p * math.log(p) for p in parts) / math.log(len(parts)) if len(parts) > 1 else 0.0
    hours = [(now_ms - time) / 3_600_000 for _, _, time in past]
    gaps = sorted(sooner - later for sooner, later in itertools.pairwise(hours))
    fame = [popularity(sessions, events, item, region) for item, _, _ in past]
    switches = [left != right for left, right in itertools.pairwise(kinds)]
    return [
        len(past),
        len(parts),
        evenness,
        100 * max(parts),
        *(share(codes.count(code), len(codes)) for code in (VIEW, LIKE, COMPLETE, SHARE, SKIP)),
        100 * mean(code in ENGAGED for code in codes[-5:]),
        100 * mean(code == SKIP for code in codes[-5:]),
        float(codes[-1] in ENGAGED),
        hours[-1],
        max(hours) / 24,
        sum(hour <= 24 for hour in hours),
        sum(hour <= 7 * 24 for hour in hours),
        gaps[(len(gaps) - 1) // 2] if gaps else NAN,
        mean(fame),
        100 * mean(value < 50 for value in fame),
        100 * mean(switches) if switches else NAN,
    ]


def popularity(sessions: Sessions, events: list[Event], item: int, region: str) -> float:
    plays = [sum(each == other and where == region for each, _, _, where, _ in events) for other in items(sessions)]
    return percentile(plays[item - 1], [float(count) for count in plays])


def items(sessions: Sessions) -> range:
    return range(1, len(sessions.catalog) + 1)


def item_features(sessions: Sessions, past: Past, now_ms: int, region: str, item: int) -> list[float]:
    events = log_before(sessions, now_ms)
    fame = popularity(sessions, events, item, region)
    usual = mean(popularity(sessions, events, seen, region) for seen, _, _ in past) if past else NAN
    return [
        fame,
        *_reception(sessions, events, now_ms, region, item),
        *_category(sessions, events, past, item),
        *_follows(sessions, events, past, item),
        abs(fame - usual),
    ]


def _reception(sessions: Sessions, events: list[Event], now_ms: int, region: str, item: int) -> list[float]:
    today = now_ms // DAY_MS
    category = sessions.catalog.category_codes
    plays = {each: [event for event in events if event[0] == each] for each in items(sessions)}

    def days_ago(event: Event) -> int:
        return today - event[2] // DAY_MS

    def growth(each: int) -> float | None:
        here = [days_ago(event) for event in plays[each] if event[3] == region]
        late, early = sum(ago <= 7 for ago in here), sum(7 < ago <= 28 for ago in here)
        return 3 * (late + 1) / (early + 3) if late + early >= 3 else None

    grown = growth(item)
    every_growth = [value for value in map(growth, items(sessions)) if value is not None]
    week = {each: [event for event in plays[each] if days_ago(event) <= 7] for each in items(sessions)}
    peers = [each for each in items(sessions) if category[each] == category[item]]
    own = plays[item]

    def rate(code: int) -> float:
        if not own:
            return NAN
        average = sum(event[1] == code for event in events) / len(events)
        return 100 * (sum(event[1] == code for event in own) + 5 * average) / (len(own) + 5)

    return [
        NAN if grown is None else percentile(grown, every_growth),
        percentile(len(week[item]), [float(len(week[each])) for each in items(sessions)]),
        percentile(len(own), [float(len(plays[each])) for each in peers]),
        *(rate(code) for code in (COMPLETE, LIKE, SHARE, SKIP)),
        max(days_ago(event) for event in own) if own else NAN,
        len({event[2] // DAY_MS for event in week[item]}),
    ]


def _category(sessions: Sessions, events: list[Event], past: Past, item: int) -> list[float]:
    category = sessions.catalog.category_codes
    same = [code for seen, code, _ in past if category[seen] == category[item]]
    latest = past[-5:]
    ago = [place for place, (seen, _, _) in enumerate(reversed(past)) if category[seen] == category[item]]
    everyone = sum(category[event[0]] == category[item] for event in events) / len(events) if events else NAN
    own = share(len(same), len(past))
    return [
        own,
        share(sum(category[seen] == category[item] for seen, _, _ in latest), len(latest)),
        share(sum(code in ENGAGED for code in same), len(same)),
        share(same.count(SKIP), len(same)),
        ago[0] if ago else NAN,
        own / 100 / everyone if everyone > 0 else NAN,
    ]


def _follows(sessions: Sessions, events: list[Event], past: Past, item: int) -> list[float]:
    def rate(lead: int) -> float:
        count = 0
        for owner in range(len(sessions)):
            story = range(sessions.offsets[owner], sessions.offsets[owner + 1])
            for place in story:
                for later in range(place + 1, min(place + 4, story.stop)):
                    pair = (int(sessions.item[place]), int(sessions.item[later])) == (lead, item)
                    known = any(event[2] == sessions.timestamp_ms[later] and event[4] == owner for event in events)
                    count += pair and known and int(sessions.engagement[later]) != SKIP
        return 100 * count / (sum(event[0] == lead for event in events) + 5)

    leads = [(rate(seen), code) for seen, code, _ in past[-10:]]
    pleasing = [value for value, code in leads if code in ENGAGED]
    return [
        max(value for value, _ in leads) if leads else NAN,
        leads[-1][0] if leads else NAN,
        max(pleasing) if pleasing else NAN,
    ]
