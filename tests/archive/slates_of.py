"""Audit records for the archive's tests: small, valid, and recognisable by their source offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.columnar import from_records
from schemas.events import Audit
from stream.archive.rows.slates import Slates, to_slates

DAY_MS = 86_400_000
START_MS = 1_790_000_000_000


def audit(
    source_offset: int,
    *,
    partition: int = 0,
    items: int = 2,
    day: int = 0,
    region: str = "EU",
    topic_id: str = "id-1",
    user: bytes | None = None,
) -> Audit:
    return Audit(
        request_id=source_offset.to_bytes(16, "big"),
        timestamp_ms=START_MS + day * DAY_MS,
        user_id_hash=user or (source_offset % 7).to_bytes(8, "big"),
        region=region,
        model_version="m@1",
        policy="evidence",
        wording_hash=b"wordhash",
        source_topic_id=topic_id,
        source_partition=partition,
        source_offset=source_offset,
        computation_time_ms=0.5,
        history=["past-a", "past-b"],
        entries=[
            {
                "item_id": f"item-{source_offset}-{number}",
                "position": number + 1,
                "ranking_score": 0.25,
                "reranking_score": 0.5,
                "explanation_type": "watch_history",
                "status": "verified",
                "explanation_text_hash": bytes(8),
                "shap_top_3": [{"feature": "session_score", "value": 0.125}],
                "attention_top_2": [{"event": 1, "weight": 0.75}, {"event": 0, "weight": 0.25}],
                "cited": [1],
            }
            for number in range(items)
        ],
    )


def slates(records: Sequence[Audit | dict[str, Any]], first: int = 0) -> Slates:
    """The records as columns, at consecutive offsets of the audit partition."""
    return to_slates(from_records("audit", records), np.arange(first, first + len(records), dtype=np.int64))
