"""The columns' bytes are those of the records: one truth, two ways to write it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.bundle import Bundle
from schemas.codec import Codec
from stream.explain.encode import LAYOUT, Encoded
from stream.explain.layout import layout
from stream.explain.pipeline import Explained, Explainer, Rejected
from tests.bundles import tiny_impression

Record = dict[str, Any]

CODEC = Codec()


def agree(explainer: Explainer, slates: list[Record]) -> int:
    """Check every slate's bytes against the codec's of its records; how many came as bytes."""
    encoded = 0
    for record, answer in zip(explainer.run(slates), explainer.encode(slates), strict=True):
        if isinstance(answer, Rejected):
            assert answer == record
            continue
        assert isinstance(record, Explained)
        if isinstance(answer, Explained):
            continue
        encoded += 1
        said = CODEC.decode("explanation", answer.explanation, _headers("explanation"))
        expected: Record = {**record.explanation, "produced_at_ms": said["produced_at_ms"]}
        assert answer.explanation == CODEC.encode("explanation", expected, "").value
        body = answer.audit("some-topic", 11, 2**40)
        kept = CODEC.decode("audit", body, _headers("audit"))
        source = {"source_topic_id": "some-topic", "source_partition": 11, "source_offset": 2**40}
        took = {"computation_time_ms": kept["computation_time_ms"]}
        assert body == CODEC.encode("audit", record.audit | source | took, "").value
        assert list(answer.items) == [(item["type"], item["status"]) for item in record.explanation["items"]]
        assert answer.user_id_hash == record.explanation["user_id_hash"]
    return encoded


def _headers(event: Any) -> list[tuple[str, bytes]]:
    from schemas.codec import FINGERPRINT_HEADER
    from schemas.versions import schema_fingerprint

    return [(FINGERPRINT_HEADER, schema_fingerprint(event).encode())]


@pytest.mark.parametrize("policy", ["evidence", "attention"])
def test_bytes_from_columns_are_those_of_the_records(
    policy: str, explainer: Explainer, reference: Explainer, slates: list[Record]
) -> None:
    used = explainer if policy == "evidence" else reference
    assert agree(used, slates) == len(slates)
    assert agree(used, slates[:1]) == 1


def test_the_schemas_are_those_that_are_written() -> None:
    assert {event: layout(event) for event in LAYOUT} == LAYOUT


def test_a_batch_of_nothing_is_encoded_as_nothing(explainer: Explainer) -> None:
    assert explainer.encode([]) == []


def test_what_no_float_holds_is_left_to_the_records(explainer: Explainer, slates: list[Record]) -> None:
    odd = copy.deepcopy(slates[0])
    odd["items"][0]["item_features"][0] = 1e300
    answers = explainer.encode([slates[1], odd])
    assert all(isinstance(answer, Explained) for answer in answers)


def test_half_a_character_is_left_to_the_records(explainer: Explainer, slates: list[Record]) -> None:
    odd = copy.deepcopy(slates[0])
    odd["items"][0]["item_id"] = "\ud800"
    assert isinstance(explainer.encode([odd])[0], Explained)


def test_a_slate_that_asks_for_detail_gets_it_and_its_neighbours_stay_bytes(
    explainer: Explainer, slates: list[Record]
) -> None:
    wanting = {**slates[0], "detail": True}
    first, second = explainer.encode([wanting, slates[1]])
    assert isinstance(first, Explained)
    assert isinstance(second, Encoded)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_batch_is_encoded_as_its_records_are(data: st.DataObject, explainer: Explainer, bundle: Bundle) -> None:
    ids = st.sampled_from(bundle.catalog.item_ids) | st.text(max_size=80).filter(_writable)
    drawn = []
    for seed in data.draw(st.lists(st.integers(0, 10**6), max_size=4)):
        slate = tiny_impression(
            bundle, session=data.draw(st.integers(0, 60)), items=data.draw(st.integers(0, 12)), seed=seed
        )
        slate["locale"] = data.draw(st.sampled_from(["en", "de-AT", "fr", "xx"]))
        slate["timestamp_ms"] = data.draw(st.integers(315_532_800_000, slate["timestamp_ms"]))
        if data.draw(st.booleans()):
            slate["model_version"] = "another@1"
        for event in slate["session"]:
            if data.draw(st.integers(0, 9)) == 0:
                event["item_id"] = data.draw(ids)
        for item in slate["items"]:
            if data.draw(st.integers(0, 4)) == 0:
                item["item_id"] = data.draw(ids)
                item["position"] = data.draw(st.integers(1, 2**31 - 1))
                item["item_features"][0] = data.draw(st.sampled_from([math.nan, -math.nan, -0.0, 1e-40, 3.4e38]))
                item["reranking_score"] = data.draw(st.floats(width=32, allow_nan=False, allow_infinity=False))
        drawn.append(slate)
    agree(explainer, drawn)


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
