"""What an impression must fulfil to be explained, beyond what its Avro schema says: rules over a whole batch."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columnar import list_offsets

MAX_SLATE_ITEMS: Final = 500
"""Items of a slate; a longer slate was shown to nobody, and one event must not occupy a worker for long."""

MAX_SESSION_EVENTS: Final = 1_000
"""Events of a session. The session model reads the newest, as many as its bundle says."""

MAX_FUTURE_MS: Final = 24 * 3600 * 1000
"""How far a producer's clock may be ahead. A larger difference is a wrong unit or a wrong time zone."""

EARLIEST_TIMESTAMP_MS: Final = 315_532_800_000
"""1980-01-01 UTC. A timestamp in seconds, read as milliseconds, lies in January 1970."""

_PATTERNS: Final = {
    "request_id": (
        re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
        "a UUID such as 1b4e28ba-2fa1-41d2-883f-0016d3cca427",
    ),
    "user_id_hash": (re.compile(r"[0-9a-f]{16}"), "16 lower-case hexadecimal characters (SHA-256, truncated)"),
    "region": (
        re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"),
        "1 to 32 letters, digits, '-' or '_' (it names a folder of the archive)",
    ),
    "locale": (re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*"), "a BCP 47 tag such as en-US"),
}

_ITEM_FAULTS: Final = (
    "item {item_id!r} stands twice in the slate; send each item once",
    "item {item_id!r} has position {position}; positions count from 1",
    "item {item_id!r} has a score that is no number; send the scores that ranked it",
    "item_features of {item_id!r} hold an infinite value; send NaN for a missing one",
)


def faults(batch: pa.RecordBatch, now_ms: int) -> dict[int, str]:
    """Say of each impression that cannot be explained why, by its row; of several faults the first.

    ``now_ms``: the clock against which a timestamp in the future is judged, in milliseconds since 1970.
    """
    found: dict[int, str] = {}
    for name, (pattern, wanted) in _PATTERNS.items():
        for row, value in enumerate(batch.column(name).to_pylist()):
            if not pattern.fullmatch(value):
                found.setdefault(row, f"{name} is {value[:64]!r}; expected {wanted}")
    _judge_timestamps(batch.column("timestamp_ms").to_numpy(), now_ms, found)
    for row, events in enumerate(np.diff(list_offsets(batch.column("session"))).tolist()):
        if events > MAX_SESSION_EVENTS:
            found.setdefault(row, f"session has {events} events; send the newest {MAX_SESSION_EVENTS} at most")
    _judge_items(batch.column("items"), found)
    for name in ("user_features", "context_features"):
        for row in np.flatnonzero(_any_infinite(batch.column(name))).tolist():
            found.setdefault(row, f"{name} holds an infinite value; send NaN for a missing one")
    return found


def _judge_timestamps(timestamp_ms: npt.NDArray[np.int64], now_ms: int, found: dict[int, str]) -> None:
    for row in np.flatnonzero(timestamp_ms < EARLIEST_TIMESTAMP_MS).tolist():
        found.setdefault(
            row,
            f"timestamp_ms is {timestamp_ms[row]}, before 1980; expected milliseconds since 1970, not seconds",
        )
    for row in np.flatnonzero(timestamp_ms > now_ms + MAX_FUTURE_MS).tolist():
        ahead_h = (int(timestamp_ms[row]) - now_ms) / 3_600_000
        found.setdefault(
            row, f"timestamp_ms is {ahead_h:.0f} h ahead of the clock; expected UTC milliseconds, 24 h at most"
        )


def _judge_items(slates: pa.ListArray, found: dict[int, str]) -> None:
    offsets, items = list_offsets(slates), slates.flatten()
    sizes = np.diff(offsets)
    for row in np.flatnonzero(sizes > MAX_SLATE_ITEMS).tolist():
        found.setdefault(row, f"the slate has {sizes[row]} items; {MAX_SLATE_ITEMS} at most: send several events")
    slate = np.repeat(np.arange(len(sizes)), sizes)
    position = items.field("position").to_numpy()
    reranking = items.field("reranking_score")
    scores = [items.field("ranking_score").to_numpy(), reranking.to_numpy(zero_copy_only=False)]
    if reranking.null_count:
        scores[1] = np.where(reranking.is_null().to_numpy(zero_copy_only=False), 0.0, scores[1])
    item_faults = np.stack(
        [
            _is_repeated(slate, items.field("item_id")),
            position < 1,
            ~(np.isfinite(scores[0]) & np.isfinite(scores[1])),
            _any_infinite(items.field("item_features")),
        ]
    )
    for place in np.flatnonzero(item_faults.any(axis=0)).tolist():
        sentence = _ITEM_FAULTS[int(item_faults[:, place].argmax())]
        item_id = items.field("item_id")[place].as_py()
        found.setdefault(int(slate[place]), sentence.format(item_id=item_id, position=position[place]))


def _is_repeated(slate: npt.NDArray[np.int64], item_id: pa.StringArray) -> npt.NDArray[np.bool_]:
    """Whether an earlier item of the slate has the same id, bool [T]."""
    coded = item_id.dictionary_encode()
    keys = slate * max(1, len(coded.dictionary)) + coded.indices.to_numpy()
    repeated = np.ones(len(keys), np.bool_)
    repeated[np.unique(keys, return_index=True)[1]] = False
    return repeated


def _any_infinite(lists: pa.ListArray) -> npt.NDArray[np.bool_]:
    """Whether a list of numbers holds an infinite one, bool [len(lists)]."""
    infinite = np.isinf(lists.flatten().to_numpy())
    found = np.zeros(len(lists), np.bool_)
    if infinite.any():
        offsets = list_offsets(lists)
        found[np.searchsorted(offsets, np.flatnonzero(infinite), side="right") - 1] = True
    return found
