"""Impressions for a load that may last: encoded once, sent again under new names at new times.

Encoding every event anew would cost the load more than the worker spends on it. In the Avro bytes of an impression the
request id comes first and the time after it, so each event that is sent is its slate's bytes with these two replaced.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.codec import Codec
from schemas.events import Impression
from schemas.versions import schema
from stream.demo.traffic import Parcel

_ID_CHARACTERS = 36


@dataclass(frozen=True, slots=True)
class _Encoded:
    head: bytes
    """Framing and the length of the request id."""
    tail: bytes
    key: bytes
    headers: list[tuple[str, bytes]]
    items: int


class Parcels:
    """``count`` impressions at ``rate`` a second; when there are fewer slates, they come round again."""

    def __init__(self, slates: Sequence[Impression], count: int, rate: float, codec: Codec, topic: str) -> None:
        names = [field["name"] for field in schema("impression")["fields"]]
        if names[:2] != ["request_id", "timestamp_ms"]:
            raise ValueError(f"an impression begins with {', '.join(names[:2])}; patch other bytes here")
        self._count, self._rate = count, rate
        self._slates = [_encode(slate, codec, topic) for slate in slates]

    def __iter__(self) -> Iterator[Parcel]:
        """Make each parcel as it is asked for; their times run from the first one on."""
        now_ms = int(time.time() * 1000)
        for number in range(self._count):
            slate = self._slates[number % len(self._slates)]
            request_id = str(uuid.uuid4())
            moment = _varint(now_ms + int(number * 1000 / self._rate))
            value = b"".join((slate.head, request_id.encode(), moment, slate.tail))
            yield Parcel(request_id, slate.key, value, slate.headers, slate.items)


def _encode(slate: Impression, codec: Codec, topic: str) -> _Encoded:
    encoded = codec.encode("impression", slate, topic)
    begins = encoded.value.index(slate["request_id"].encode())
    ends = begins + _ID_CHARACTERS
    moment = _varint(slate["timestamp_ms"])
    if encoded.value[ends : ends + len(moment)] != moment:
        raise ValueError("the time of an impression does not follow its request id; patch other bytes here")
    return _Encoded(
        encoded.value[:begins],
        encoded.value[ends + len(moment) :],
        slate["user_id_hash"].encode(),
        encoded.headers,
        len(slate["items"]),
    )


def _varint(value: int) -> bytes:
    """Avro's zigzag varint of a number that is not negative."""
    value <<= 1
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
