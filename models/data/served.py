"""Histories of a recommender's users, from the impressions that it served.

The session of a slate is the history of its user at that time, so the session of the newest slate also says what the
user watched after the slates before it. One session is kept for each user, and events that the bundle does not know are
left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.bundle import Bundle
from models.data.sessions import NO_CAUSE, Sessions
from schemas.columnar import list_offsets


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest slate of a user: its time, its place, and the events of its session that the bundle knows."""

    shown_ms: int
    region: str
    locale: str
    item: NDArray[np.int32]
    engagement: NDArray[np.int8]
    timestamp_ms: NDArray[np.int64]


def histories(bundle: Bundle, batches: Iterable[pa.RecordBatch]) -> Sessions:
    """Take the session of each user's newest slate out of impressions, ``impression.avsc`` in Arrow.

    Slates of any model version count, since a session is what the user did. Of two slates of one time, the later one in
    the data is the newest. An event without a time has that of its slate.
    """
    newest: dict[str, _Newest] = {}
    for batch in batches:
        _gather(bundle, batch, newest)
    found = list(newest.values())
    lengths = [len(each.item) for each in found]
    return Sessions(
        item=np.concatenate([np.zeros(0, np.int32), *(each.item for each in found)]),
        engagement=np.concatenate([np.zeros(0, np.int8), *(each.engagement for each in found)]),
        timestamp_ms=np.concatenate([np.zeros(0, np.int64), *(each.timestamp_ms for each in found)]),
        cause=np.full(sum(lengths), NO_CAUSE, dtype=np.int32),
        offsets=np.cumsum([0, *lengths]).astype(np.int64),
        user_id_hash=np.array(list(newest), dtype=np.str_),
        region=np.array([each.region for each in found], dtype=np.str_),
        locale=np.array([each.locale for each in found], dtype=np.str_),
        catalog=bundle.catalog,
        engagements=bundle.engagements,
    )


def _gather(bundle: Bundle, batch: pa.RecordBatch, newest: dict[str, _Newest]) -> None:
    sessions = batch.column("session")
    events, offsets = sessions.flatten(), list_offsets(sessions)
    item_ids, words = events.field("item_id").dictionary_encode(), events.field("engagement").dictionary_encode()
    item = bundle.catalog.index(item_ids.dictionary.to_pylist())[item_ids.indices.to_numpy()]
    engagement = bundle.engagement_index(words.dictionary.to_pylist())[words.indices.to_numpy()]
    timed = events.field("timestamp_ms")
    untimed = timed.is_null().to_numpy(zero_copy_only=False)
    timestamp_ms = timed.fill_null(0).to_numpy()
    columns = (batch.column(name).to_pylist() for name in ("user_id_hash", "timestamp_ms", "region", "locale"))
    for row, (user, shown_ms, region, locale) in enumerate(zip(*columns, strict=True)):
        if user in newest and newest[user].shown_ms > shown_ms:
            continue
        session = np.arange(offsets[row], offsets[row + 1])
        session = session[(item[session] > 0) & (engagement[session] > 0)]
        newest[user] = _Newest(
            shown_ms,
            region,
            locale,
            item[session].astype(np.int32),
            engagement[session].astype(np.int8),
            np.where(untimed[session], shown_ms, timestamp_ms[session]).astype(np.int64),
        )
