"""A replay as plain values, for JSON."""

from __future__ import annotations

from typing import Any

from stream.replay.compare import Replayed


def document(replayed: Replayed, topic: str) -> dict[str, Any]:
    """Return the replay as plain values: hashes as hexadecimal text, NaN for an unknown number.

    topic is the name of the impressions topic. The document names every feature, the sensitive ones too: it serves
    investigations and the data subject's own request.
    """
    source = replayed.archived.source
    return {
        "request_id": replayed.impression["request_id"],
        "source": {
            "topic": topic,
            "topic_id": source.topic_id,
            "partition": source.partition,
            "offset": source.offset,
        },
        "model_version": replayed.model_version,
        "policy": replayed.policy,
        "locale": replayed.impression["locale"],
        "proven": replayed.proven,
        "items": [
            {
                "item_id": item.item_id,
                "position": item.position,
                "verdict": item.verdict,
                "differing": list(item.differing),
                "archived_text_hash": item.archived_hash,
                "text_hash": item.hash,
                "text": None if item.explanation is None else item.explanation["text"],
                "detail": item.detail,
            }
            for item in replayed.items
        ],
        "attention": {"events": replayed.heads.events, "layers": replayed.heads.weights},
    }
