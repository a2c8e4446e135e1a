"""Impressions that are not as they should be, each with what must become of it."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from schemas.codec import FINGERPRINT_HEADER, Codec
from schemas.json_form import to_json

Record = dict[str, Any]
Message = tuple[bytes | None, list[tuple[str, bytes]]]

DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True)
class Case:
    """A message and its defined outcome: a stage of the dead letters, or "explained" with what is then true of it."""

    make: Callable[[Record, Codec, str], Message]
    outcome: str
    error: str = ""
    holds: Callable[[Record, Record], bool] = lambda _sent, _explanation: True
    sent_twice: bool = False


def _avro(change: Callable[[Record], Any], outcome: str, error: str = "", **rest: Any) -> Case:
    def make(record: Record, codec: Codec, topic: str) -> Message:
        changed = copy.deepcopy(record)
        change(changed)
        encoded = codec.encode("impression", changed, topic)
        return encoded.value, encoded.headers

    return Case(make, outcome, error, **rest)


def _json(change: Callable[[Record], Any], outcome: str, error: str = "", **rest: Any) -> Case:
    def make(record: Record, _codec: Codec, _topic: str) -> Message:
        changed = json.loads(to_json(record))
        change(changed)
        return json.dumps(changed).encode(), []

    return Case(make, outcome, error, **rest)


def _truncated(record: Record, codec: Codec, topic: str) -> Message:
    encoded = codec.encode("impression", record, topic)
    return encoded.value[: len(encoded.value) // 2], encoded.headers


def _overlong(record: Record, codec: Codec, topic: str) -> Message:
    encoded = codec.encode("impression", record, topic)
    return encoded.value + b"\x00", encoded.headers


def _unknown_fingerprint(record: Record, _codec: Codec, topic: str) -> Message:
    return Codec().encode("impression", record, topic).value, [(FINGERPRINT_HEADER, b"0123456789abcdef")]


def _items(record: Record, count: int) -> list[Record]:
    one = record["items"][0]
    return [{**one, "item_id": f"x{number}", "position": number + 1} for number in range(count)]


def _history(record: Record, count: int) -> list[Record]:
    return [dict(record["session"][number % len(record["session"])]) for number in range(count)]


def _statuses(explanation: Record) -> list[str]:
    return [item["status"] for item in explanation["items"]]


CASES: Final[dict[str, Case]] = {
    # Bytes
    "nothing at all": Case(lambda *_: (None, []), "decode", "no value"),
    "an empty value": Case(lambda *_: (b"", []), "decode", "no value"),
    "noise": Case(lambda *_: (b"\xff\xfe\xfd", []), "decode", "expected"),
    "truncated Avro": Case(_truncated, "decode", "truncated"),
    "Avro with bytes after its end": Case(_overlong, "decode", "follow"),
    "a schema id that nobody registered": Case(
        lambda *_: (b"\x00" + (99_999).to_bytes(4, "big") + b"body", []), "decode", "registry"
    ),
    "a schema id cut short": Case(lambda *_: (b"\x00\x00", []), "decode"),
    "an unknown fingerprint": Case(_unknown_fingerprint, "decode", "fingerprint"),
    # JSON
    "JSON as it should be": _json(lambda _: None, "explained"),
    "JSON with null for a missing feature": _json(lambda r: r["user_features"].__setitem__(0, None), "explained"),
    "JSON without a field": _json(lambda r: r.pop("region"), "decode", "does not fit"),
    "JSON with a field too many": _json(lambda r: r.update(colour="red"), "decode", "colour"),
    "JSON with a field too many in an item": _json(lambda r: r["items"][0].update(colour="red"), "decode"),
    "JSON with words for a number": _json(lambda r: r.update(timestamp_ms="today"), "decode"),
    "JSON with a date instead of milliseconds": _json(
        lambda r: r.update(timestamp_ms="2026-01-01T00:00:00+02:00"), "decode"
    ),
    "JSON cut short": Case(lambda r, *_: (to_json(r).encode()[:100], []), "decode", "not JSON"),
    # Features
    "features that are missing": _avro(
        lambda r: r.update(user_features=[math.nan] * len(r["user_features"])), "explained"
    ),
    "a feature that is infinite": _avro(lambda r: r["user_features"].__setitem__(0, math.inf), "validate", "infinite"),
    "an item's feature that is minus infinity": _avro(
        lambda r: r["items"][0]["item_features"].__setitem__(0, -math.inf), "validate", "infinite"
    ),
    "one feature too many": _avro(lambda r: r["user_features"].append(1.0), "validate", "20"),
    "a score that is no number": _avro(lambda r: r["items"][0].update(ranking_score=math.nan), "validate", "score"),
    # Session
    "an empty session": _avro(
        lambda r: r.update(session=[]),
        "explained",
        holds=lambda _, e: all(item["type"] != "watch_history" for item in e["items"]),
    ),
    "a session of 60 events": _avro(lambda r: r.update(session=_history(r, 60)), "explained"),
    "a session of 1001 events": _avro(lambda r: r.update(session=_history(r, 1001)), "validate", "1001"),
    "a session of items nobody knows": _avro(
        lambda r: [event.update(item_id="gone") for event in r["session"]],
        "explained",
        holds=lambda _, e: not any(item["evidence"]["history"] for item in e["items"]),
    ),
    # Slate
    "a slate of nothing": _avro(lambda r: r.update(items=[]), "explained", holds=lambda _, e: e["items"] == []),
    "a slate of one": _avro(lambda r: r.update(items=r["items"][:1]), "explained"),
    "a slate of 500": _avro(lambda r: r.update(items=_items(r, 500)), "explained"),
    "a slate of 501": _avro(lambda r: r.update(items=_items(r, 501)), "validate", "501"),
    "an item nobody knows": _avro(
        lambda r: r["items"][0].update(item_id="gone"),
        "explained",
        holds=lambda _, e: _statuses(e)[0] == "model_mismatch" and len(set(_statuses(e))) > 1,
    ),
    "an item that stands twice": _avro(lambda r: r["items"].append(r["items"][0]), "validate", "twice"),
    "scores of another model": _avro(
        lambda r: [item.update(ranking_score=item["ranking_score"] + 1) for item in r["items"]],
        "explained",
        holds=lambda _, e: set(_statuses(e)) == {"model_mismatch"},
    ),
    "another model's name": _avro(
        lambda r: r.update(model_version="other@1"),
        "explained",
        holds=lambda _, e: set(_statuses(e)) == {"model_mismatch"},
    ),
    # Head
    "a request id sent twice": _avro(lambda _: None, "explained", sent_twice=True),
    "a request id that is none": _avro(lambda r: r.update(request_id="42"), "validate", "request_id"),
    "a user in clear": _avro(lambda r: r.update(user_id_hash="jane@example.org"), "validate", "user_id_hash"),
    "a region with a slash": _avro(lambda r: r.update(region="a/b"), "validate", "region"),
    "a region of dots": _avro(lambda r: r.update(region=".."), "validate", "region"),
    "no region": _avro(lambda r: r.update(region=""), "validate", "region"),
    "a locale nobody worded": _avro(lambda r: r.update(locale="tlh"), "explained"),
    "a locale that is none": _avro(lambda r: r.update(locale="?"), "validate", "locale"),
    "a timestamp in the far future": _avro(
        lambda r: r.update(timestamp_ms=int(time.time() * 1000) + 40 * 365 * DAY_MS), "validate", "ahead"
    ),
    "a timestamp in microseconds": _avro(
        lambda r: r.update(timestamp_ms=r["timestamp_ms"] * 1000), "validate", "ahead"
    ),
    "a timestamp in seconds": _avro(lambda r: r.update(timestamp_ms=r["timestamp_ms"] // 1000), "validate", "seconds"),
    "a timestamp before 1970": _avro(lambda r: r.update(timestamp_ms=-1), "validate", "1980"),
}
