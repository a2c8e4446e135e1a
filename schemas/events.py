"""Typed records, shaped exactly like the Avro schemas beside them: plain dictionaries, as fastavro reads them."""

from __future__ import annotations

from typing import Final, Literal, NotRequired, TypedDict

EventName = Literal["impression", "explanation", "audit", "dead_letter"]
ExplanationType = Literal["watch_history", "category_match", "trending", "personalized"]
Status = Literal["verified", "factual", "generic", "model_mismatch"]
Basis = Literal["personal", "mixed", "popular"]
RecourseKind = Literal["history", "feature"]
Whose = Literal["own", "others"]

EVENT_NAMES: Final[tuple[EventName, ...]] = ("impression", "explanation", "audit", "dead_letter")
EXPLANATION_TYPES: Final[tuple[ExplanationType, ...]] = ("watch_history", "category_match", "trending", "personalized")
STATUSES: Final[tuple[Status, ...]] = ("verified", "factual", "generic", "model_mismatch")
MISMATCHES: Final = (
    "other_model",
    "other_features",
    "unknown_item",
    "empty_session",
    "unknown_event",
    "ranking_score",
    "history_features",
    "reranking_score",
    "other_items",
)
"""Why an item has the status model_mismatch: another model version, or another list of features, served its slate; the
catalogue lacks it; nobody knows what an empty session scores; its ranking score differs, and an event of the session is
unknown, or none is; its features do not derive from its session; its re-ranking score differs; most items of its slate
differ, so that its own scores agree by chance."""


class SessionEvent(TypedDict):
    """One past event of the user: what was done with an item, in the words of the bundle, and when, if known."""

    item_id: str
    engagement: NotRequired[str]
    timestamp_ms: NotRequired[int | None]


class SlateItem(TypedDict):
    """One item as it was shown."""

    item_id: str
    position: int
    ranking_score: float
    reranking_score: NotRequired[float | None]
    item_features: list[float]


class Impression(TypedDict):
    """One slate as it was shown to one user (``impression.v3.avsc``)."""

    request_id: str
    timestamp_ms: int
    user_id_hash: str
    region: str
    locale: str
    feature_set: str
    model_version: str
    session: list[SessionEvent]
    user_features: list[float]
    context_features: NotRequired[list[float]]
    items: list[SlateItem]
    detail: NotRequired[bool]


class Citation(TypedDict):
    """A past event that an explanation names, with what was measured when it was taken away."""

    item_id: str
    title: str
    event: int
    attention: float | None
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
    age_s: int | None
    attention: float | None
    similarity: float | None
    effect: float | None


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


class FeatureContrast(TypedDict):
    """By how much a feature's contribution to one item exceeds that to another."""

    name: str
    display_name: str
    difference: float


class EventContrast(TypedDict):
    """By how much an event's effect on one item exceeds that on another."""

    event: int
    item_id: str
    title: str
    difference: float


class Contrast(TypedDict):
    """What sets an item apart from another item of its slate: differences of scores, contributions and effects."""

    item_id: str
    raw_score: float
    session_score: float
    features: list[FeatureContrast]
    events: list[EventContrast]


class Detail(TypedDict):
    """The full ledger of one item.

    raw_score = base_value + the contributions of all features - residual; the session model's score, a feature of the
    re-ranker, is session_score = the effects of all events + events_together.
    """

    base_value: float
    raw_score: float
    residual: float
    features: list[FeatureLedger]
    session_score: float
    events: list[EventLedger]
    events_together: float | None
    recourse: Recourse | None
    similar_moments: list[SimilarMoment]
    contrast: Contrast | None


class ItemExplanation(TypedDict):
    """Why one item was recommended."""

    item_id: str
    position: int
    type: ExplanationType
    status: Status
    mismatch: str | None
    text: str
    basis_text: str
    evidence: Evidence
    detail: Detail | None


class Explanation(TypedDict):
    """Why the items of one slate were recommended (``explanation.v3.avsc``)."""

    request_id: str
    timestamp_ms: int
    user_id_hash: str
    region: str
    locale: str
    model_version: str
    policy: str
    produced_at_ms: int
    ablations: list[str]
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
    """What was said about one slate (``audit.v3.avsc``)."""

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
    ablations: str
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
