"""Impressions in plain Avro straight to columns, without an object for each event and item.

This reads the newest impression schema and nothing else, and it is strict: what is not exactly what that schema says,
or is no impression that can be explained, or asks for detail, is left out. The codec and the checks of
``schemas.events``, which can say what is wrong, then have the word. Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.catalog import Catalog
from models.compiled import compiled
from schemas.codec import read_newest
from schemas.errors import InvalidEvent
from schemas.events import ENGAGEMENTS, MAX_SESSION_EVENTS, MAX_SLATE_ITEMS, Impression, check_head
from stream.avro import BAD, read_block, read_float_bits, read_int, read_long, read_string
from stream.explain.columns import Bools, Fields, Ints, Sheet, features, is_foreign
from stream.explain.ids import all_differ, find, table_of
from stream.explain.layout import require

LAYOUT: Final = (
    "request_id:string timestamp_ms:long user_id_hash:string region:string locale:string feature_set:string "
    "model_version:string session:array<item_id:string engagement:enum timestamp_ms:long> user_features:array<float> "
    "items:array<item_id:string position:int ranking_score:float reranking_score:float item_features:array<float>> "
    "detail:boolean"
)
"""What is read, in its order. The schema must say the same."""

require("impression", LAYOUT, "stream/explain/avro.py")

Body = bytes | memoryview

_TEXTS: Final = ("request_id", "user_id_hash", "region", "locale", "feature_set", "model_version")

_SMALLEST_EVENT: Final = 3
"""Bytes of an event whose item has no name: how many a message can have at most follows from its length."""

_SMALLEST_ITEM: Final = 11
"""The same of an item without name and features."""

# Kernels read numbers of this file only.
_ENGAGEMENTS = len(ENGAGEMENTS)
_MOST_EVENTS = MAX_SESSION_EVENTS
_MOST_ITEMS = MAX_SLATE_ITEMS
_INT_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class _Messages:
    """S messages with E events and T items in all, and where in `whole` their parts are.

    slate int64 [S, 6]: time, numbers of events and items, where the user's features begin and how many they are, how
    many each item has (-1 where there is none). head int64 [S, 6, 2]: where each of its texts begins and how long it
    is. event int64 [E, 4]: the same of its item, the engagement, and the item's index in the catalogue, 0 where it is
    unknown. item int64 [T, 5]: the same, position, where its features begin, and its index. score int32 [T, 2]: the
    bits of both.
    """

    whole: bytes
    slate: Ints
    head: Ints
    event: Ints
    item: Ints
    score: npt.NDArray[np.int32]

    @classmethod
    def found_in(cls, bodies: Sequence[Body], catalog: Catalog) -> tuple[_Messages, list[bool]]:
        """Find those that are exactly what the schema says, and say which they are."""
        whole = b"".join(bodies)
        ends = np.cumsum([len(body) for body in bodies], dtype=np.int64)
        starts = ends - np.array([len(body) for body in bodies], dtype=np.int64)
        slate = np.zeros((len(bodies), 6), np.int64)
        head = np.zeros((len(bodies), len(_TEXTS), 2), np.int64)
        event = np.empty((len(whole) // _SMALLEST_EVENT + 1, 4), np.int64)
        item = np.empty((len(whole) // _SMALLEST_ITEM + 1, 5), np.int64)
        score = np.empty((len(item), 2), np.int32)
        good = np.zeros(len(bodies), np.bool_)
        data = np.frombuffer(whole, np.uint8)
        _walk(data, starts, ends, good, slate, head, event, item, score)
        slate, head = slate[good], head[good]
        events, items = slate[:, 1:3].sum(axis=0).tolist()
        event, item = event[:events], item[:items]
        table = table_of(catalog)
        find(data, event, *table)
        find(data, item, *table)
        return cls(whole, slate, head, event, item, score[:items]), good.tolist()

    def only(self, kept: Bools) -> _Messages:
        """Leave out all but some."""
        if kept.all():
            return self
        event, item = np.repeat(kept, self.slate[:, 1]), np.repeat(kept, self.slate[:, 2])
        return _Messages(
            self.whole, self.slate[kept], self.head[kept], self.event[event], self.item[item], self.score[item]
        )

    def heads(self) -> Iterator[list[str] | None]:
        """Yield the texts of each head; None where one is not UTF-8."""
        pieces = self._pieces(self.head.reshape(-1, 2))
        for first in range(0, len(pieces), len(_TEXTS)):
            try:
                yield [*map(bytes.decode, pieces[first : first + len(_TEXTS)])]
            except UnicodeDecodeError:
                yield None

    def sound(self) -> Bools:
        """Whether each item stands once in its slate, and all ids are UTF-8, bool [S]; those of the catalogue are."""
        sound = np.ones(len(self.slate), np.bool_)
        # A column of one row counts as contiguous, which would be compiled once more.
        all_differ(np.frombuffer(self.whole, np.uint8), self.item, self.slate[:, 2].copy(), sound)
        for places, counts in ((self.event, self.slate[:, 1]), (self.item, self.slate[:, 2])):
            rows = np.flatnonzero(places[:, -1] == 0)
            slates = np.searchsorted(np.cumsum(counts), rows, side="right").tolist()
            for slate, piece in zip(slates, self._pieces(places[rows]), strict=True):
                try:
                    piece.decode()
                except UnicodeDecodeError:
                    sound[slate] = False
        return sound

    def unknown(self, places: Ints) -> dict[int, str]:
        """Name those ids, of events or items, that the catalogue lacks, by their row."""
        rows = np.flatnonzero(places[:, -1] == 0)
        return dict(zip(rows.tolist(), map(bytes.decode, self._pieces(places[rows])), strict=True))

    def _pieces(self, places: Ints) -> list[bytes]:
        # Two lists of numbers, for a list of pairs is work for the garbage collector.
        starts, ends = places[:, 0], places[:, 0] + places[:, 1]
        return [self.whole[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def floats(self, starts: Ints, count: int) -> npt.NDArray[np.float32]:
        """Read `count` floats from each of some places, float32 [len(starts), count]."""
        out = np.empty((len(starts), 4 * count), np.uint8)
        _gather(np.frombuffer(self.whole, np.uint8), starts, out)
        return out.view("<f4")


class Unread(dict[str, Any]):
    """An impression of which the head is there, and the rest is read from its bytes when any of it is asked for."""

    __slots__ = ("_body",)

    def __init__(self, body: Body, texts: Sequence[str], timestamp_ms: int) -> None:
        super().__init__(zip(_TEXTS, texts, strict=True), timestamp_ms=timestamp_ms, detail=False)
        self._body = body

    def __missing__(self, field: str) -> Any:
        whole = read_newest("impression", self._body)
        self.update(whole)
        return whole[field]


def read(bodies: Sequence[Body | None], bundle: Bundle) -> Sheet:
    """Read Avro bodies of the newest impression schema. ``None``, and what the codec had better read, is left out."""
    sent = [(place, body) for place, body in enumerate(bodies) if body is not None]
    found, good = _Messages.found_in([body for _, body in sent], bundle.catalog)
    now_ms, users, items = int(time.time() * 1000), len(bundle.owned("user")), len(bundle.owned("item"))
    kept = np.zeros(len(found.slate), np.bool_)
    places, impressions, foreign = [], [], []
    each = zip(compress(sent, good), found.slate.tolist(), found.heads(), found.sound().tolist(), strict=True)
    for number, ((place, body), slate, texts, sound) in enumerate(each):
        if texts is None or not sound:
            continue
        impression = cast("Impression", Unread(body, texts, slate[0]))
        other = is_foreign(impression, bundle)
        fits = other or (slate[4] == users and slate[5] in (items, -1))
        if fits and _head_is_sound(impression, now_ms):
            kept[number] = True
            places.append(place)
            impressions.append(impression)
            foreign.append(other)
    return Sheet(places, _fields(found.only(kept), impressions, np.array(foreign, np.bool_), bundle))


def _head_is_sound(impression: Impression, now_ms: int) -> bool:
    try:
        check_head(impression, now_ms)
    except InvalidEvent:
        return False
    return True


def _fields(
    found: _Messages,
    impressions: Sequence[Impression],
    foreign: Bools,
    bundle: Bundle,
) -> Fields:
    events, items = found.slate[:, 1], found.slate[:, 2]
    code = {name: index for index, name in enumerate(bundle.manifest.engagements, start=1)}
    ranking_score, reranking_score = found.score.view(np.float32).astype(np.float64).T
    user = found.floats(found.slate[~foreign, 3], len(bundle.owned("user")))
    features_of_items = found.floats(found.item[np.repeat(~foreign, items), 3], len(bundle.owned("item")))
    return Fields(
        impressions=impressions,
        foreign=foreign,
        events=events,
        items=items,
        event_item=found.event[:, -1].copy(),
        unknown_events=found.unknown(found.event),
        engagement=np.array([code.get(name, 0) for name in ENGAGEMENTS], dtype=np.int64)[found.event[:, 2]],
        item=found.item[:, -1].copy(),
        unknown_items=found.unknown(found.item),
        position=found.item[:, 2],
        ranking_score=ranking_score,
        reranking_score=reranking_score,
        features=features(foreign, items, user, features_of_items, ranking_score, bundle),
    )


@compiled
def _gather(data: Any, starts: Any, out: Any) -> None:
    for number in range(starts.shape[0]):
        for place in range(out.shape[1]):
            out[number, place] = data[starts[number] + place]


@compiled
def _floats(data: Any, at: int, end: int) -> Any:
    """Pass over an array of floats: where they begin, how many they are, and where the array ends."""
    count, at = read_block(data, at, end, 4)
    if count == 0:
        return at, 0, at
    start = at
    for _ in range(count):
        if data[at + 3] & 0x7F == 0x7F and data[at + 2] == 0x80 and data[at + 1] == 0 and data[at] == 0:
            return start, count, BAD  # infinite
        at += 4
    more, at = read_block(data, at, end, 4)
    return start, count, at if more == 0 else BAD  # in several blocks: left to the codec


@compiled
def _score(data: Any, at: int, end: int) -> Any:
    """Read a float that is a number: its bits as int32, and where it ends."""
    bits, at = read_float_bits(data, at, end)
    return bits, at if bits & 0x7F800000 != 0x7F800000 else BAD


@compiled
def _head(data: Any, at: int, end: int, slate: Any, head: Any) -> Any:
    """Read a slate up to its session; return where that begins."""
    at = read_string(data, at, end, head[0])
    slate[0], at = read_long(data, at, end)
    for place in range(1, head.shape[0]):
        at = read_string(data, at, end, head[place])
    return at


@compiled
def _walk(
    data: Any, starts: Any, ends: Any, good: Any, slate: Any, head: Any, event: Any, item: Any, score: Any
) -> None:
    """Read all messages; what is found in one that is not good is overwritten by the next."""
    events = items = 0
    for number in range(starts.shape[0]):
        end = ends[number]
        at = _head(data, starts[number], end, slate[number], head[number])
        past = shown = 0
        count, at = read_block(data, at, end, _SMALLEST_EVENT)
        while count > 0:
            for place in range(events + past, events + past + count):
                at = read_string(data, at, end, event[place])
                event[place, 2], at = read_int(data, at, end, 0, _ENGAGEMENTS)
                _, at = read_long(data, at, end)
            past += count
            count, at = read_block(data, at, end, _SMALLEST_EVENT)
        slate[number, 3], slate[number, 4], at = _floats(data, at, end)
        slate[number, 5] = -1
        count, at = read_block(data, at, end, _SMALLEST_ITEM)
        while count > 0:
            for place in range(items + shown, items + shown + count):
                at = read_string(data, at, end, item[place])
                item[place, 2], at = read_int(data, at, end, 1, _INT_LIMIT)
                score[place, 0], at = _score(data, at, end)
                score[place, 1], at = _score(data, at, end)
                item[place, 3], width, at = _floats(data, at, end)
                if slate[number, 5] not in (-1, width):
                    at = BAD
                slate[number, 5] = width
            shown += count
            count, at = read_block(data, at, end, _SMALLEST_ITEM)
        # Last comes whether detail is asked for.
        if at + 1 == end and at != BAD and data[at] == 0 and past <= _MOST_EVENTS and shown <= _MOST_ITEMS:
            good[number] = True
            slate[number, 1], slate[number, 2] = past, shown
            events += past
            items += shown
