"""Impressions straight from their bytes: what is said and what is refused is what the codec's records give."""

from __future__ import annotations

import copy
import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from fastavro import schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.bundle import Bundle
from schemas.codec import Codec
from schemas.errors import WhyrecError
from schemas.json_form import to_json
from schemas.versions import schema
from stream.agents.batch import Answer, BatchWork, Received
from stream.explain import pipeline
from stream.explain.avro import LAYOUT, Body, read
from stream.explain.columns import Fields, Sheet, fields_of
from stream.explain.layout import layout, require
from stream.explain.pipeline import Explainer
from stream.kafka.delivery import Output
from stream.settings import Settings
from tests import strategies
from tests.bundles import tiny_impression
from tests.explain.test_malformed import REJECTED, changed

Record = dict[str, Any]

CODEC = Codec()
POOL = 24


@pytest.fixture(scope="module")
def pool(bundle: Bundle) -> list[Record]:
    locales = ["en-US", "de-CH", "fr", "zh-Hant-TW", "xx"]
    return [
        tiny_impression(bundle, session=seed * 5 % 61, items=seed % 7, seed=seed, locale=locales[seed % len(locales)])
        for seed in range(POOL)
    ]


class Timeless(Explainer):
    """An explainer of which every answer is the same at any time."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, clock=lambda: 1.5)


class Reading(Timeless):
    """The same without the columns: every message is decoded by itself."""

    def read(self, bodies: Sequence[Body | None]) -> Sheet:
        return super().read([None] * len(bodies))


@pytest.fixture(scope="module")
def quick(bundle: Bundle) -> Timeless:
    return Timeless(bundle)


@pytest.fixture(scope="module")
def slow(bundle: Bundle) -> Reading:
    return Reading(bundle)


@pytest.fixture(scope="module", autouse=True)
def took_no_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_per_item_ms", lambda *_: 0.25)
        yield


def body(record: Record) -> bytes:
    return CODEC.encode("impression", record, "").value


def received(place: int, value: bytes, headers: Any = None) -> Received:
    framing = CODEC.encode("impression", EMPTY, "").headers if headers is None else headers
    return Received("recommendation-impressions", 1, place, b"key", value, framing)


EMPTY: Record = {
    "request_id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427", "timestamp_ms": 1_750_000_000_000,
    "user_id_hash": "0123456789abcdef", "region": "EU", "locale": "en", "feature_set": "none", "model_version": "no@1",
    "session": [], "user_features": [], "items": [],
}  # fmt: skip


def plain(answer: Answer) -> list[Any]:
    """All of an answer that can be compared; fastavro tells where in memory it found the end of a message."""

    def named(output: Output) -> Any:
        headers = re.sub(r"0x[0-9a-f]+", "0x", repr(output.headers))
        return output.topic, output.key, output.value, output.partition, headers

    slates = {
        place: (named(slate.explanation), named(slate.audit), list(slate.items))
        for place, slate in answer.slates.items()
    }
    letters = {place: named(letter.output("dead-letters")) for place, letter in answer.dead_letters.items()}
    return [list(slates), slates, letters]


def bits(fields: Fields) -> dict[str, Any]:
    """All columns, such that a NaN is equal to itself."""
    columns = {name: getattr(fields, name) for name in fields.__slots__ if name != "impressions"}
    return {
        name: (each.dtype, each.shape, each.tobytes()) if isinstance(each, np.ndarray) else each
        for name, each in columns.items()
    }


IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def slates(draw: st.DrawFn) -> Any:
    """Draw what is to be done to a slate of the pool, or another impression altogether."""
    return draw(st.integers(0, POOL - 1)), draw(st.none() | strategies.impressions), draw(st.randoms()), draw(IDS)


def made(drawn: Any, pool: list[Record]) -> Record:
    own, other, random, text = drawn
    if other is not None:
        return dict(other)
    record = copy.deepcopy(pool[own])
    for event in record["session"]:
        if random.random() < 0.1:
            event["item_id"] = text
    for number, item in enumerate(record["items"]):
        if random.random() < 0.2:
            item["item_id"] = f"{text}{number}"
            item["position"] = random.randrange(1, 2**31)
            item["item_features"][0] = random.choice([math.nan, -math.nan, -0.0, 1e-40, 3e38])
    if random.random() < 0.2:
        record["model_version"] = "another@1"
    if random.random() < 0.1:
        record["detail"] = True
    if random.random() < 0.2:
        REJECTED_AS_AVRO[random.choice(list(REJECTED_AS_AVRO))](record)
    return record


REJECTED_AS_AVRO = {
    case: change
    for case, change in REJECTED.items()
    if case not in {"no items at all", "a session of something else", "an event without its item", "501 items",
                    "a feature in words", "a score in words"}
}  # fmt: skip
"""Those that can be written."""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.lists(slates(), max_size=6))
def test_every_answer_is_that_of_the_records(
    drawn: list[Any], quick: Explainer, slow: Explainer, pool: list[Record]
) -> None:
    batch = []
    for place, each in enumerate(drawn):
        try:
            batch.append(received(place, body(made(each, pool))))
        except (WhyrecError, IndexError):  # nothing there that could be wrong
            batch.append(received(place, body(EMPTY)))
    answers = [BatchWork(each, CODEC, Settings()).answer(batch) for each in (quick, slow)]
    assert plain(answers[0]) == plain(answers[1])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damage_is_answered_as_the_codec_answers_it(
    data: st.DataObject, quick: Explainer, slow: Explainer, pool: list[Record]
) -> None:
    batch = []
    for place in range(data.draw(st.integers(1, 3))):
        value = bytearray(body(pool[data.draw(st.integers(0, POOL - 1))]))
        for _ in range(data.draw(st.integers(0, 3))):
            value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.just(len(value)) | st.integers(0, len(value)))
        batch.append(received(place, bytes(value[:cut]) + data.draw(st.binary(max_size=1))))
    answers = [BatchWork(each, CODEC, Settings()).answer(batch) for each in (quick, slow)]
    assert plain(answers[0]) == plain(answers[1])


def test_what_is_valid_is_read_as_columns_and_all_else_is_left_out(bundle: Bundle, pool: list[Record]) -> None:
    good = [record for record in pool if record["items"]]
    for change in REJECTED_AS_AVRO.values():
        bad = changed(next(each for each in good if len(each["items"]) > 1), change)
        assert read([body(good[0]), body(bad), None, body(good[1])], bundle).places == [0, 3]
    assert read([body(record) for record in pool], bundle).places == list(range(POOL))
    fewer = changed(good[0], lambda record: [item["item_features"].pop() for item in record["items"]])
    for odd in (fewer, pool[1] | {"detail": True}):
        assert read([body(odd)], bundle).places == []
    assert read([body(fewer | {"feature_set": "other"})], bundle).places == [0]


def test_columns_are_to_the_bit_those_of_the_records(bundle: Bundle, pool: list[Record]) -> None:
    bodies = [body(record) for record in pool] + [body(EMPTY)]
    bodies.insert(3, b"no impression")
    sheet = read(bodies, bundle)
    assert sheet.places == [place for place in range(len(bodies)) if place != 3]
    decoded = [CODEC.decode("impression", bodies[place], received(0, b"").headers) for place in sheet.places]
    assert bits(sheet.fields) == bits(fields_of(decoded, bundle))  # type: ignore[arg-type]
    for unread, record in zip(sheet, decoded, strict=True):
        assert {field: unread[field] for field in ("request_id", "locale", "timestamp_ms")} == {  # type: ignore[literal-required]
            field: record[field] for field in ("request_id", "locale", "timestamp_ms")
        }
        assert "items" not in unread, "read before it was asked for"
        assert unread["items"] is unread["items"]
        assert strategies.same(dict(unread), record)


def test_arrays_may_come_in_several_blocks_with_or_without_their_size(bundle: Bundle, pool: list[Record]) -> None:
    record = next(each for each in pool if len(each["items"]) > 2 and len(each["session"]) > 2)
    fields = {field["name"]: field["type"] for field in schema("impression")["fields"]}

    def written(kind: Any, value: Any) -> bytes:
        out = io.BytesIO()
        schemaless_writer(out, kind, value)
        return out.getvalue()

    def blocks(name: str, *, sized: bool) -> bytes:
        out = b""
        for part in (record[name][:2], record[name][2:]):
            content = b"".join(written(fields[name]["items"], each) for each in part)
            size = written("long", len(content)) if sized else b""
            out += written("long", -len(part) if sized else len(part)) + size + content
        return out + b"\0"

    def whole(**instead: bytes) -> bytes:
        values = record | {"detail": False}
        return b"".join(instead.get(name) or written(kind, values[name]) for name, kind in fields.items())

    assert whole() == body(record)
    expected = bits(read([whole()], bundle).fields)
    for sized in (False, True):
        parted = whole(session=blocks("session", sized=sized), items=blocks("items", sized=sized))
        assert bits(read([parted], bundle).fields) == expected
    assert not read([whole(user_features=blocks("user_features", sized=False))], bundle), "the codec reads these"
    assert not read([whole()[:-1] + b"\2"], bundle), "neither true nor false"


def test_other_versions_and_json_stand_in_their_places(quick: Explainer, slow: Explainer, pool: list[Record]) -> None:
    batch = [
        received(0, body(pool[1])),
        received(1, to_json(pool[2]).encode(), []),
        received(2, b"neither"),
        received(3, body(pool[3] | {"detail": True})),
        received(4, body(pool[4])),
        received(5, b"", [("avro-fingerprint", None)]),
    ]
    answers = [BatchWork(each, CODEC, Settings()).answer(batch) for each in (quick, slow)]
    assert plain(answers[0]) == plain(answers[1])
    assert list(answers[0].slates) == [0, 1, 3, 4]
    assert set(answers[0].dead_letters) == {2, 5}


def test_the_schema_is_the_one_that_is_read() -> None:
    assert layout("impression") == LAYOUT
    with pytest.raises(ImportError, match=r"not what here\.py was written for"):
        require("impression", f"{LAYOUT} more:string", "here.py")


def test_when_a_stage_fails_on_all_of_them_each_is_explained_alone(
    quick: Explainer, pool: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = quick.read([body(record) for record in pool[:3]])
    expected = quick.encode(sheet)
    whole = pipeline.word

    def fragile(findings: Any, *others: Any) -> Any:
        if len(findings.slates.impressions) > 1:
            raise ZeroDivisionError("made to fail")
        return whole(findings, *others)

    monkeypatch.setattr(pipeline, "word", fragile)
    assert quick.encode(sheet) == expected
