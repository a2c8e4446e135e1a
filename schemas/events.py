"""Typed records, shaped exactly like the Avro schemas beside them, and what an impression must fulfil to be explained.

Records are plain dictionaries (``TypedDict``): what fastavro reads is what the pipeline gets, with nothing in between.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, NotRequired, TypedDict, cast

from schemas.errors import InvalidEvent

EventName = Literal["impression", "explanation", "audit", "dead_letter"]
ExplanationType = Literal["watch_history", "category_match", "trending", "personalized"]
Status = Literal["verified", "factual", "generic", "model_mismatch"]
EngagementName = Literal["view", "like", "complete", "share", "skip"]
Basis = Literal["personal", "mixed", "popular"]
RecourseKind = Literal["history", "feature"]
Whose = Literal["own", "others"]

EVENT_NAMES: Final[tuple[EventName, ...]] = ("impression", "explanation", "audit", "dead_letter")
EXPLANATION_TYPES: Final[tuple[ExplanationType, ...]] = ("watch_history", "category_match", "trending", "personalized")
STATUSES: Final[tuple[Status, ...]] = ("verified", "factual", "generic", "model_mismatch")
ENGAGEMENTS: Final[tuple[EngagementName, ...]] = ("view", "like", "complete", "share", "skip")

MAX_SLATE_ITEMS: Final = 500
"""A longer slate is no slate a person saw; it is refused, so that one event cannot stall a worker."""

MAX_SESSION_EVENTS: Final = 1_000
"""The contract is 50. Up to this many are tolerated, and the newest used; more is refused."""

MAX_FUTURE_MS: Final = 24 * 3600 * 1000
"""A clock may be wrong by a day; further ahead the unit or the time zone is wrong, and the archive's date would be."""

EARLIEST_TIMESTAMP_MS: Final = 315_532_800_000
"""1980-01-01 UTC. A timestamp in seconds, read as milliseconds, lies in January 1970."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_USER_ID_HASH = re.compile(r"[0-9a-f]{16}")
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_LOCALE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")


class SessionEvent(TypedDict):
    """One past event of the user."""

    item_id: str
    engagement: EngagementName
    timestamp_ms: int


class SlateItem(TypedDict):
    """One item as it was shown."""

    item_id: str
    position: int
    ranking_score: float
    reranking_score: float
    item_features: list[float]


class Impression(TypedDict):
    """One slate as it was shown to one user (``impression.v2.avsc``); one of version 1 asks for no detail."""

    request_id: str
    timestamp_ms: int
    user_id_hash: str
    region: str
    locale: str
    feature_set: str
    model_version: str
    session: list[SessionEvent]
    user_features: list[float]
    items: list[SlateItem]
    detail: NotRequired[bool]


class Citation(TypedDict):
    """A past event that an explanation names, with what was measured when it was taken away."""

    item_id: str
    title: str
    event: int
    attention: float
    attribution: float
    score_drop: float
    rank: int
    rank_without: int


class FeatureContribution(TypedDict):
    """One feature's SHAP value on the re-ranker's raw score."""

    name: str
    display_name: str
    value: float
    contribution: float


class Evidence(TypedDict):
    """What the claim of an explanation rests on."""

    history: list[Citation]
    features: list[FeatureContribution]
    personal_share: float | None
    category_match: float | None
    residual: float | None
    basis: Basis | None


class FeatureLedger(TypedDict):
    """One feature of one item, with its SHAP value on the re-ranker's raw score."""

    name: str
    display_name: str
    owner: str
    unit: str
    value: float
    contribution: float
    sensitive: bool


class EventLedger(TypedDict):
    """One past event, and what its absence does to one item's session score."""

    event: int
    item_id: str
    title: str
    engagement: str
    age_s: int
    attention: float
    similarity: float | None
    effect: float


class Recourse(TypedDict):
    """What the user could do to see less of an item, confirmed by running the models again."""

    kind: RecourseKind
    events: list[int]
    item_ids: list[str]
    titles: list[str]
    feature: str | None
    rank: int
    rank_without: int
    off_slate: bool
    text: str


class SimilarMoment(TypedDict):
    """A past moment that resembles the present one, and what was watched next."""

    event: int
    similarity: float
    next_item_id: str
    next_title: str
    whose: Whose


class Detail(TypedDict):
    """The full ledger of one item.

    raw_score = base_value + the contributions of all features - residual, and the value of the feature session_score is
    session_score = the effects of all events + events_together.
    """

    base_value: float
    raw_score: float
    residual: float
    features: list[FeatureLedger]
    session_score: float
    events: list[EventLedger]
    events_together: float
    recourse: Recourse | None
    similar_moments: list[SimilarMoment]


class ItemExplanation(TypedDict):
    """Why one item was recommended."""

    item_id: str
    position: int
    type: ExplanationType
    status: Status
    text: str
    basis_text: str
    evidence: Evidence
    detail: Detail | None


class Explanation(TypedDict):
    """Why the items of one slate were recommended (``explanation.v2.avsc``)."""

    request_id: str
    timestamp_ms: int
    user_id_hash: str
    region: str
    locale: str
    model_version: str
    policy: str
    produced_at_ms: int
    items: list[ItemExplanation]


class ShapValue(TypedDict):
    """A feature's name and its SHAP value."""

    feature: str
    value: float


class AttentionWeight(TypedDict):
    """An index into the audit record's history and the attention it got."""

    event: int
    weight: float


class AuditEntry(TypedDict):
    """What was said about one impression."""

    item_id: str
    position: int
    ranking_score: float
    reranking_score: float
    explanation_type: ExplanationType
    status: Status
    explanation_text_hash: bytes
    shap_top_3: list[ShapValue]
    attention_top_2: list[AttentionWeight]
    cited: list[int]


class Audit(TypedDict):
    """What was said about one slate (``audit.v2.avsc``)."""

    request_id: bytes
    timestamp_ms: int
    user_id_hash: bytes
    region: str
    model_version: str
    policy: str
    wording_hash: bytes
    source_topic_id: str
    source_partition: int
    source_offset: int
    computation_time_ms: float
    history: list[str]
    entries: list[AuditEntry]


class DeadLetter(TypedDict):
    """A message that could not be explained (``dead_letter.v1.avsc``)."""

    topic: str
    partition: int
    offset: int
    stage: str
    error: str
    value: bytes


def validate_impression(record: Mapping[str, Any], *, now_ms: int | None = None) -> Impression:
    """Check what the Avro schema cannot say, and return the record as an impression.

    The record must already have the schema's shape (the codec sees to that for bytes and JSON). ``now_ms`` is the
    clock against which a timestamp in the future is judged, by default the machine's.

    Raises:
        InvalidEvent: naming the field, what was expected, what was got.

    """
    try:
        check_head(record, int(time.time() * 1000) if now_ms is None else now_ms)
        if len(record["session"]) > MAX_SESSION_EVENTS:
            raise InvalidEvent(
                f"session has {len(record['session'])} events; expected 50, {MAX_SESSION_EVENTS} at most"
            )
        _check_items(record["items"])
        if _has_infinity(record["user_features"]):
            raise InvalidEvent("user_features holds an infinite value; send NaN for a missing one")
        if not isinstance(detail := record.get("detail", False), bool):
            raise InvalidEvent(f"detail is {detail!r}; expected true or false")
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidEvent(f"not an impression: {type(error).__name__} {error}; see impression.v2.avsc") from error
    return cast("Impression", record)


def check_head(record: Mapping[str, Any], now_ms: int) -> None:
    """Check who and when, which is all of an impression but what it shows: see :func:`validate_impression`.

    Raises:
        InvalidEvent: naming the field, what was expected, what was got.

    """
    _expect(record, "request_id", _UUID, "a UUID such as 1b4e28ba-2fa1-41d2-883f-0016d3cca427")
    _expect(record, "user_id_hash", _USER_ID_HASH, "16 lower-case hexadecimal characters (SHA-256, truncated)")
    _expect(record, "region", _REGION, "1 to 32 letters, digits, '-' or '_' (it names a folder of the archive)")
    _expect(record, "locale", _LOCALE, "a BCP 47 tag such as en-US")
    timestamp_ms = record["timestamp_ms"]
    if timestamp_ms < EARLIEST_TIMESTAMP_MS:
        raise InvalidEvent(
            f"timestamp_ms is {timestamp_ms}, before 1980; expected milliseconds since 1970, not seconds"
        )
    if timestamp_ms > now_ms + MAX_FUTURE_MS:
        ahead_h = (timestamp_ms - now_ms) / 3_600_000
        raise InvalidEvent(
            f"timestamp_ms is {ahead_h:.0f} h ahead of the clock; expected UTC milliseconds, 24 h at most"
        )


def _check_items(items: list[Any]) -> None:
    if len(items) > MAX_SLATE_ITEMS:
        raise InvalidEvent(f"the slate has {len(items)} items; {MAX_SLATE_ITEMS} at most: send several events")
    seen: set[str] = set()
    for item in items:
        item_id = item["item_id"]
        if item_id in seen:
            raise InvalidEvent(f"item {item_id!r} stands twice in the slate; send each item once")
        seen.add(item_id)
        if item["position"] < 1:
            raise InvalidEvent(f"item {item_id!r} has position {item['position']}; positions count from 1")
        if not (math.isfinite(item["ranking_score"]) and math.isfinite(item["reranking_score"])):
            raise InvalidEvent(f"item {item_id!r} has a score that is no number; send the scores that ranked it")
        if _has_infinity(item["item_features"]):
            raise InvalidEvent(f"item_features of {item_id!r} hold an infinite value; send NaN for a missing one")


def _has_infinity(values: list[float]) -> bool:
    return math.inf in values or -math.inf in values


def _expect(record: Mapping[str, Any], field: str, pattern: re.Pattern[str], wanted: str) -> None:
    value = record[field]
    if not pattern.fullmatch(value):
        raise InvalidEvent(f"{field} is {value[:64]!r}; expected {wanted}")
