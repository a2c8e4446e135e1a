"""The topics of the service: the events on each, their direction and their retention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from schemas.events import EventName

TopicRole = Literal["impressions", "explanations", "audit", "dead_letters", "control"]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic by its default name.

    event is the schema of its messages, None for JSON outside the schema registry. retention_ms is how long the broker
    keeps a message, -1 for no limit. A compacted topic keeps the latest message of each key. partitions is None where
    the settings say how many.
    """

    name: str
    event: EventName | None
    direction: Literal["in", "out", "internal"]
    retention_ms: int
    doc: str
    compacted: bool = False
    partitions: int | None = None


TOPICS: Final[dict[TopicRole, Topic]] = {
    "impressions": Topic(
        "recommendation-impressions", "impression", "in", 7 * DAY_MS, "one event per slate shown, keyed by user"
    ),
    "explanations": Topic(
        "recommendation-explanations", "explanation", "out", 3 * DAY_MS, "one event per impression event, keyed by user"
    ),
    "audit": Topic(
        "explanation-audit",
        "audit",
        "internal",
        7 * DAY_MS,
        "one record per slate, on the partition number of its impression",
    ),
    "dead_letters": Topic(
        "explanation-dead-letters",
        "dead_letter",
        "out",
        14 * DAY_MS,
        "messages that cannot be processed; headers say where and why",
    ),
    "control": Topic(
        "whyrec-model-versions",
        None,
        "in",
        -1,
        "which model versions are held ready; whyrec models promote writes it, workers with bundles_url read it",
        compacted=True,
        partitions=1,
    ),
}
