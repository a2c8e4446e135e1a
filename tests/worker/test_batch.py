"""A batch is answered slate by slate: whatever is wrong with one stays with that one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.bundle import Bundle
from schemas.codec import Codec, Headers
from schemas.events import EventName
from schemas.registry import RegistryUnavailable
from stream.agents.batch import BatchWork, Received
from stream.explain.columns import Sheet
from stream.explain.pipeline import Answer, Explainer
from stream.kafka.delivery import Refused
from stream.settings import Settings
from tests.bundles import tiny_impression


@pytest.fixture(scope="module")
def explainer(bundle: Bundle) -> Explainer:
    return Explainer(bundle)


@pytest.fixture(scope="module")
def received(bundle: Bundle, codec: Codec) -> list[Received]:
    made = []
    for number in range(6):
        encoded = codec.encode("impression", tiny_impression(bundle, seed=number), "recommendation-impressions")
        made.append(Received("recommendation-impressions", 3, 100 + number, b"key", encoded.value, encoded.headers))
    return made


class Fragile:
    """An explainer that fails as a whole when certain slates are in the batch."""

    def __init__(self, explainer: Explainer, poison: set[str]) -> None:
        self._explainer = explainer
        self._poison = poison
        self.runs = 0

    def read(self, bodies: Sequence[bytes | memoryview | None]) -> Sheet:
        return self._explainer.read(bodies)

    def encode(self, impressions: Sequence[Mapping[str, Any]]) -> list[Answer]:
        self.runs += 1
        if any(each["request_id"] in self._poison for each in impressions):
            raise ZeroDivisionError("made to fail")
        return self._explainer.encode(impressions)


def header(output_headers: list[tuple[str, bytes]], name: str) -> str:
    return next(value for key, value in output_headers if key == name).decode()


def test_each_slate_gets_an_explanation_and_an_audit_on_its_own_partition(
    explainer: Explainer, codec: Codec, settings: Settings, received: list[Received]
) -> None:
    answer = BatchWork(explainer, codec, settings, source_topic_id="id-1").answer(received)
    assert answer.explained == 6
    assert not answer.dead
    for place, (said, kept) in enumerate(zip(answer.outputs[::2], answer.outputs[1::2], strict=True)):
        explanation = codec.decode("explanation", said.value, said.headers)
        audit = codec.decode("audit", kept.value, kept.headers)
        assert said.topic == settings.topic("explanations")
        assert kept.topic == settings.topic("audit")
        assert said.key == kept.key == explanation["user_id_hash"].encode()
        assert said.partition == -1
        assert kept.partition == audit["source_partition"] == 3
        assert (audit["source_topic_id"], audit["source_offset"]) == ("id-1", 100 + place)
        assert audit["policy"] == explanation["policy"]
        assert answer.owners[2 * place : 2 * place + 2] == [place, place]
    assert sum(answer.items.values()) == sum(
        len(codec.decode("explanation", said.value, said.headers)["items"]) for said in answer.outputs[::2]
    )


def test_a_slate_that_asks_for_detail_gets_it_and_the_others_of_its_batch_do_not(
    explainer: Explainer, codec: Codec, settings: Settings, bundle: Bundle, received: list[Received]
) -> None:
    asking = codec.encode("impression", tiny_impression(bundle, seed=9) | {"detail": True}, "any")
    batch = [received[0], Received("recommendation-impressions", 3, 7, b"key", asking.value, asking.headers)]
    answer = BatchWork(explainer, codec, settings).answer([*batch, received[1]])
    told = [codec.decode("explanation", said.value, said.headers)["items"] for said in answer.outputs[::2]]
    assert [all(item["detail"] is not None for item in items) for items in told] == [False, True, False]
    assert not any(item["detail"] for items in told[::2] for item in items)


@pytest.mark.parametrize(
    "value", [None, b"", b"\x00", b"garbage", b"{", b"\x00\x00\x00\x00\x07rest", b"{}", b'{"\\ud800": 1}']
)
def test_bytes_that_are_no_impression_become_a_dead_letter_with_the_same_bytes(
    explainer: Explainer, codec: Codec, settings: Settings, received: list[Received], value: bytes | None
) -> None:
    odd = Received("recommendation-impressions", 1, 7, b"a key", value, [("mine", b"stays")])
    answer = BatchWork(explainer, codec, settings).answer([received[0], odd, received[1]])
    assert answer.explained == 2
    assert answer.dead == {"decode": 1}
    letter = next(each for each in answer.outputs if each.topic == settings.topic("dead_letters"))
    assert (letter.key, letter.value) == (b"a key", value)
    assert letter.headers[0] == ("mine", b"stays")
    assert header(letter.headers, "topic") == "recommendation-impressions"
    assert header(letter.headers, "partition") == "1"
    assert header(letter.headers, "offset") == "7"
    assert header(letter.headers, "stage") == "decode"
    assert header(letter.headers, "error")


@hypothesis_settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_cut_or_flipped_every_slate_is_answered_exactly_once(
    data: st.DataObject, explainer: Explainer, codec: Codec, received: list[Received]
) -> None:
    settings = Settings()
    batch = []
    for each in data.draw(st.lists(st.sampled_from(received), max_size=5)):
        value = bytearray(each.value or b"")
        for place in data.draw(st.lists(st.integers(0, len(value) - 1), max_size=3)):
            value[place] ^= data.draw(st.integers(1, 255))
        cut = data.draw(st.integers(0, len(value)))
        batch.append(Received(each.topic, each.partition, each.offset, each.key, bytes(value[:cut]), each.headers))
    answer = BatchWork(explainer, codec, settings).answer(batch)
    spoken = [place for place, out in zip(answer.owners, answer.outputs, strict=True) if out.topic.endswith("ations")]
    buried = [place for place, out in zip(answer.owners, answer.outputs, strict=True) if out.topic.endswith("letters")]
    assert sorted(spoken + buried) == list(range(len(batch)))
    assert (answer.explained, answer.dead.total()) == (len(spoken), len(buried))


@pytest.mark.slow
@pytest.mark.parametrize("poisoned", [{0}, {5}, {2, 3}, {0, 1, 2, 3, 4, 5}])
def test_a_slate_that_makes_the_whole_batch_fail_is_found_and_the_others_explained(
    explainer: Explainer, codec: Codec, settings: Settings, received: list[Received], poisoned: set[int]
) -> None:
    chosen = [received[number] for number in poisoned]
    poison = {codec.decode("impression", each.value, each.headers)["request_id"] for each in chosen}
    answer = BatchWork(Fragile(explainer, poison), codec, settings).answer(received)
    assert answer.explained == 6 - len(poisoned)
    assert answer.dead == {"explain": len(poisoned)}
    letters = [place for place, out in zip(answer.owners, answer.outputs, strict=True) if out.topic.endswith("letters")]
    assert set(letters) == poisoned


def test_a_slate_whose_output_the_broker_refuses_is_buried_once(
    explainer: Explainer, codec: Codec, settings: Settings, received: list[Received]
) -> None:
    work = BatchWork(explainer, codec, settings)
    answer = work.answer(received)
    burial = work.bury_refused(received, answer, [Refused(4, "too large"), Refused(5, "too large")])
    assert [each.value for each in burial.outputs] == [received[2].value]
    assert burial.dead == {"deliver": 1}
    last = work.bury_without_original(received, burial)
    assert (last.outputs[0].key, last.outputs[0].value) == (None, None)
    assert received[2].headers
    assert not {name for name, _ in received[2].headers} & {name for name, _ in last.outputs[0].headers}
    assert f"{len(received[2].value or b'')} bytes" in header(last.outputs[0].headers, "error")
    assert header(last.outputs[0].headers, "offset") == "102"


class AbsentRegistry(Codec):
    """A codec whose registry comes back after some calls."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def newest_body(self, event: EventName, value: bytes | None, headers: Headers = None) -> memoryview | None:
        return None if self.failures else super().newest_body(event, value, headers)

    def decode(self, event: EventName, value: bytes | None, headers: Headers = None) -> dict[str, Any]:
        if self.failures:
            self.failures -= 1
            raise RegistryUnavailable("away")
        return super().decode(event, value, headers)


def test_a_registry_that_is_away_for_a_moment_costs_no_slate(
    explainer: Explainer, settings: Settings, received: list[Received]
) -> None:
    answer = BatchWork(explainer, AbsentRegistry(2), settings).answer(received)
    assert answer.explained == 6


def test_a_registry_that_stays_away_is_no_reason_to_bury_anything(
    explainer: Explainer, settings: Settings, received: list[Received]
) -> None:
    impatient = settings.model_copy(update={"delivery_timeout_s": 0.05})
    with pytest.raises(RegistryUnavailable):
        BatchWork(explainer, AbsentRegistry(10**9), impatient).answer(received)
