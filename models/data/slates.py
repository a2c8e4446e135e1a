"""A simulated recommender: impression events made from histories with the models of a bundle.

The session model scores the history, the best unseen items are the candidates, their features are computed, and the
re-ranker's scores decide the positions. The scores in an event are those of the bundle, so that the bundle reproduces
them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.data.sessions import ENGAGEMENT_NAMES, Sessions
from models.reranker.candidates import top_unseen
from models.reranker.features import FEATURE_SET, FEATURES, Moments, compute, matrix
from models.reranker.itemlog import ItemLog
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel
from schemas.errors import WhyrecError
from schemas.events import Impression, SessionEvent, SlateItem

MAX_SESSION = 50


class UnfitBundle(WhyrecError):
    """The bundle is valid, but does not fit the histories from which slates are to be made."""


def impressions(
    bundle: Bundle,
    sessions: Sessions,
    *,
    items: int = 20,
    held_out: int = 1,
    log: Sessions | None = None,
    seed: int = 0,
    batch: int = 64,
) -> Iterator[Impression]:
    """Yield one impression event for each history with more than `held_out` events, in the order of the histories.

    The timestamp of a slate is the time of the first held-out event; `moved_to` changes it.

    Args:
        bundle: its catalogue must be that of `sessions`, its features must be those computed here.
        sessions: complete histories.
        items: number of items per slate; fewer if the catalogue has fewer unseen items.
        held_out: number of newest events that are hidden from the recommender.
        log: the histories from which item statistics are computed, by default `sessions`.
        seed: of the request ids; nothing else is random.
        batch: number of histories scored together.

    Raises:
        UnfitBundle: the bundle has another catalogue or another feature list, or `items` or `held_out` is below 1.

    """
    if items < 1 or held_out < 1:
        raise UnfitBundle(f"expected at least 1 item per slate and 1 event held out, got {items} and {held_out}")
    _check(bundle, sessions)
    sessions = sessions.select(sessions.lengths > held_out)
    return _impressions(bundle, sessions, items, held_out, ItemLog.of(sessions if log is None else log), seed, batch)


def _impressions(
    bundle: Bundle, sessions: Sessions, items: int, held_out: int, log: ItemLog, seed: int, batch: int
) -> Iterator[Impression]:
    model, reranker = SessionModel(bundle), Reranker.load(bundle)
    length = min(MAX_SESSION, bundle.manifest.max_length)
    engagement_code = engagement_codes(bundle)
    count = min(items, len(bundle.catalog) - length)
    rng = np.random.default_rng([seed, 13])
    history = sessions.without_last(held_out)
    now_ms = sessions.timestamp_ms[sessions.offsets[1:] - held_out]
    for start in range(0, len(sessions), batch):
        rows = np.arange(start, min(start + batch, len(sessions)))
        part = history.select(rows)
        moments = Moments.of(part, now_ms[rows], log, length)
        vectors = model.run(moments.items, engagement_code[moments.engagements], without=False).vector
        chosen, session_score = top_unseen(vectors, bundle.item_vectors, moments.items, count)
        user, item = compute(log, moments, chosen)
        score = reranker.score(matrix(user, item, session_score)).reshape(chosen.shape).astype(np.float32)
        order = np.argsort(-score, axis=1, kind="stable")
        session_events = _session_events(moments, bundle)
        user_lists = user.tolist()
        for row in range(len(rows)):
            placed = order[row]
            yield {
                "request_id": str(uuid.UUID(bytes=rng.bytes(16), version=4)),
                "timestamp_ms": int(moments.now_ms[row]),
                "user_id_hash": str(part.user_id_hash[row]),
                "region": str(part.region[row]),
                "locale": str(part.locale[row]),
                "feature_set": bundle.manifest.feature_set,
                "model_version": bundle.model_version,
                "session": session_events[row],
                "user_features": user_lists[row],
                "items": [
                    SlateItem(
                        item_id=bundle.catalog.item_ids[index - 1],
                        position=position,
                        ranking_score=ranking,
                        reranking_score=reranking,
                        item_features=features,
                    )
                    for position, (index, ranking, reranking, features) in enumerate(
                        zip(
                            chosen[row, placed].tolist(),
                            session_score[row, placed].tolist(),
                            score[row, placed].tolist(),
                            item[row, placed].tolist(),
                            strict=True,
                        ),
                        start=1,
                    )
                ],
            }


def moved_to(impression: Impression, timestamp_ms: int) -> Impression:
    """Return the slate with its session shifted to another time; time differences, and so features, stay the same."""
    shift = timestamp_ms - impression["timestamp_ms"]
    moved = impression.copy()
    moved["timestamp_ms"] = timestamp_ms
    moved["session"] = [
        {
            "item_id": event["item_id"],
            "engagement": event["engagement"],
            "timestamp_ms": None if event["timestamp_ms"] is None else event["timestamp_ms"] + shift,
        }
        for event in impression["session"]
    ]
    return moved


def _session_events(moments: Moments, bundle: Bundle) -> list[list[SessionEvent]]:
    item_ids = bundle.catalog.item_ids
    return [
        [
            {"item_id": item_ids[index - 1], "engagement": ENGAGEMENT_NAMES[code - 1], "timestamp_ms": timestamp_ms}
            for index, code, timestamp_ms in zip(items, codes, times, strict=True)
            if index
        ]
        for items, codes, times in zip(
            moments.items.tolist(), moments.engagements.tolist(), moments.timestamps_ms.tolist(), strict=True
        )
    ]


def engagement_codes(bundle: Bundle) -> NDArray[np.int64]:
    """Map the engagement codes of Sessions to those of the bundle's session model: int64 [6]; 0 is padding in both."""
    known = bundle.manifest.engagement_names
    missing = [name for name in ENGAGEMENT_NAMES if name not in known]
    if missing:
        raise UnfitBundle(
            f"expected a session model for the engagements {', '.join(ENGAGEMENT_NAMES)}, got one for "
            f"{', '.join(known)}: add {', '.join(missing)} to the manifest and train the model with them"
        )
    return np.array([0, *(known.index(name) + 1 for name in ENGAGEMENT_NAMES)], dtype=np.int64)


def require_same_catalog(bundle: Bundle, sessions: Sessions) -> None:
    """Check that a bundle and histories have the same items with the same indices.

    Raises:
        UnfitBundle: the items differ.

    """
    if bundle.catalog.item_ids != sessions.catalog.item_ids:
        raise UnfitBundle(
            f"expected histories of the {len(bundle.catalog)} items of {bundle.model_version}, got histories of "
            f"{len(sessions.catalog)} other items: choose a bundle trained on this source (whyrec models train), or "
            "the source on which the bundle was trained"
        )


def _check(bundle: Bundle, sessions: Sessions) -> None:
    require_same_catalog(bundle, sessions)
    if [(each.name, each.owner) for each in bundle.features] != [(each.name, each.owner) for each in FEATURES]:
        raise UnfitBundle(
            f"expected a bundle with the feature set {FEATURE_SET}, got {bundle.manifest.feature_set}: use the "
            "impressions of the recommender that serves this bundle"
        )
