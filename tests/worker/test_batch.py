"""A batch is answered slate by slate: a fault of a slate stays with that slate, a fault of the worker stops it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import structlog
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.bundle import Bundle
from models.data.synthetic import SyntheticSlates
from models.errors import BundleError
from schemas.codec import Codec, DecodedMessages, Headers
from schemas.events import EventName
from schemas.registry import RegistryUnavailable
from stream.agents import dead_letters
from stream.agents.batch import Answer, BatchWork, Received, refuse
from stream.agents.dead_letters import DeadLetter
from stream.agents.isolation import IsolatingExplainer
from stream.errors import DeliveryError, WorkerUnfit
from stream.explain.pipeline import Explained, Explainer, Rejected
from stream.kafka.delivery import Output, Receipt
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


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> dict[str, Any]:
    """The slate that a worker explains to find out whether it is healthy."""
    return dict(SyntheticSlates(bundle).slate(events=8, items=20))


@pytest.fixture(scope="module", autouse=True)
def plain_log() -> Iterator[None]:
    """Without structlog's tracebacks, which show all local variables and take seconds each."""
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()


class Faulty:
    """An explainer that fails on the slates for which ``fault`` returns an error, as the pipeline would fail."""

    def __init__(self, explainer: Explainer, fault: Callable[[str], Exception | None]) -> None:
        self._explainer = explainer
        self.fault = fault

    def run(self, impressions: pa.RecordBatch) -> Explained:
        errors = {row: self.fault(name) for row, name in enumerate(impressions.column("request_id").to_pylist())}
        for error in errors.values():
            if isinstance(error, MemoryError | OSError):
                raise copy(error)  # an error that is raised again keeps the traceback of each time
        sound = [row for row, error in errors.items() if error is None]
        explained = self._explainer.run(impressions.take(pa.array(sound, pa.int64())))
        rejected = {row: Rejected("score", str(error)) for row, error in errors.items() if error is not None}
        nothing = Explained(np.zeros(0, np.int64), rejected, *(explained.explanations[:0], explained.audits[:0]))
        return Explained.joined([(explained, sound), (nothing, range(impressions.num_rows))])


def letter_of(answer: Answer, place: int) -> Output:
    return answer.dead_letters[place].output("dead-letters")


def header(output: Output, name: str) -> str:
    return next(value for key, value in output.headers if key == name).decode()


def stages(answer: Answer) -> Counter[str]:
    return Counter(letter.stage for letter in answer.dead_letters.values())


def request_ids(codec: Codec, received: Sequence[Received]) -> list[str]:
    return [codec.decode("impression", each.value, each.headers)["request_id"] for each in received]


def test_each_slate_gets_an_explanation_and_an_audit_on_its_own_partition(
    explainer: Explainer, codec: Codec, settings: Settings, received: list[Received]
) -> None:
    answer = BatchWork(explainer, codec, settings, source_topic_id="id-1").answer(received)
    assert list(answer.slates) == list(range(6))
    assert not answer.dead_letters
    for place, slate in answer.slates.items():
        said, kept = slate.explanation, slate.audit
        explanation = codec.decode("explanation", said.value, said.headers)
        audit = codec.decode("audit", kept.value, kept.headers)
        assert said.topic == settings.topic("explanations")
        assert kept.topic == settings.topic("audit")
        assert said.key == kept.key == explanation["user_id_hash"].encode()
        assert said.partition == -1
        assert kept.partition == audit["source_partition"] == 3
        assert (audit["source_topic_id"], audit["source_offset"]) == ("id-1", 100 + place)
        assert audit["policy"] == explanation["policy"]
        assert slate.model_version == audit["model_version"] == explanation["model_version"]
        assert list(slate.items) == [(item["type"], item["status"], item["mismatch"]) for item in explanation["items"]]


def test_a_slate_that_asks_for_detail_gets_it_and_the_others_of_its_batch_do_not(
    explainer: Explainer, codec: Codec, settings: Settings, bundle: Bundle, received: list[Received]
) -> None:
    asking = codec.encode("impression", tiny_impression(bundle, seed=9) | {"detail": True}, "any")
    batch = [received[0], Received("recommendation-impressions", 3, 7, b"key", asking.value, asking.headers)]
    answer = BatchWork(explainer, codec, settings).answer([*batch, received[1]])
    said = [slate.explanation for slate in answer.slates.values()]
    told = [codec.decode("explanation", each.value, each.headers)["items"] for each in said]
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
    assert set(answer.slates) == {0, 2}
    assert set(answer.dead_letters) == {1}
    letter = letter_of(answer, 1)
    assert (letter.topic, letter.key, letter.value) == ("dead-letters", b"a key", value)
    assert letter.headers[0] == ("mine", b"stays")
    assert header(letter, "topic") == "recommendation-impressions"
    assert header(letter, "partition") == "1"
    assert header(letter, "offset") == "7"
    assert header(letter, "stage") == "decode"
    assert header(letter, "error")


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
    assert sorted([*answer.slates, *answer.dead_letters]) == list(range(len(batch)))


@pytest.mark.parametrize("error", [ZeroDivisionError("made to fail"), BundleError("the graph does not run on this")])
@pytest.mark.parametrize("poisoned", [{0}, {5}, {2, 3}, {0, 1, 2, 3, 4, 5}])
def test_a_slate_that_makes_the_whole_batch_fail_is_found_and_the_others_are_explained(
    explainer: Explainer, codec: Codec, settings: Settings, reference: dict[str, Any], received: list[Received],
    poisoned: set[int], error: Exception,
) -> None:  # fmt: skip
    poison = {request_ids(codec, received)[place] for place in poisoned}
    faulty = Faulty(explainer, lambda request_id: error if request_id in poison else None)
    answer = BatchWork(IsolatingExplainer(faulty, reference), codec, settings).answer(received)
    assert set(answer.slates) == set(range(6)) - poisoned
    assert stages(answer) == {"score": len(poisoned)}
    assert set(answer.dead_letters) == poisoned


@pytest.mark.parametrize("error", [MemoryError(), OSError("no file handle left"), BundleError("out of memory")])
def test_a_worker_that_breaks_answers_nothing(
    explainer: Explainer,
    codec: Codec,
    settings: Settings,
    reference: dict[str, Any],
    received: list[Received],
    error: Exception,
) -> None:
    faulty = Faulty(explainer, lambda _: None)
    work = BatchWork(IsolatingExplainer(faulty, reference), codec, settings)
    assert len(work.answer(received).slates) == 6
    faulty.fault = lambda _: error
    with pytest.raises((WorkerUnfit, type(error))):
        work.answer(received)


@pytest.mark.parametrize("error", [MemoryError(), OSError("no file handle left")])
def test_a_fault_that_no_slate_causes_makes_no_dead_letter_although_the_reference_slate_is_explained(
    explainer: Explainer,
    codec: Codec,
    settings: Settings,
    reference: dict[str, Any],
    received: list[Received],
    error: Exception,
) -> None:
    known = request_ids(codec, received)
    faulty = Faulty(explainer, lambda request_id: error if request_id in known else None)
    work = BatchWork(IsolatingExplainer(faulty, reference), codec, settings)
    with pytest.raises(type(error)):
        work.answer(received)


def test_a_slate_that_fails_once_and_not_again_is_explained(
    explainer: Explainer, codec: Codec, settings: Settings, reference: dict[str, Any], received: list[Received]
) -> None:
    failures = {request_ids(codec, received)[0]: 1}

    def fault(request_id: str) -> Exception | None:
        if failures.get(request_id, 0) == 0:
            return None
        failures[request_id] -= 1
        return BundleError("for a moment")

    work = BatchWork(IsolatingExplainer(Faulty(explainer, fault), reference), codec, settings)
    answer = work.answer(received[:1])
    assert set(answer.slates) == {0}


def test_a_worker_that_cannot_explain_its_reference_slate_does_not_start(
    explainer: Explainer, reference: dict[str, Any]
) -> None:
    with pytest.raises(WorkerUnfit, match="models check"):
        IsolatingExplainer(Faulty(explainer, lambda _: BundleError("no graph")), reference)


def test_a_bundles_reference_slate_has_the_scores_of_its_models(
    explainer: Explainer, reference: dict[str, Any]
) -> None:
    [explanation] = explainer.explain([reference])
    assert len(explanation["items"]) > 1
    assert {item["status"] for item in explanation["items"]} <= {"verified", "factual", "generic"}


def test_a_slate_of_which_the_broker_refuses_an_output_becomes_a_dead_letter(
    explainer: Explainer, codec: Codec, settings: Settings, received: list[Received]
) -> None:
    answer = BatchWork(explainer, codec, settings).answer(received)
    refuse(answer, received, 2, "the audit record (too large)")
    assert set(answer.slates) == {0, 1, 3, 4, 5}
    assert stages(answer) == {"deliver": 1}
    assert letter_of(answer, 2).value == received[2].value
    assert "the audit record (too large)" in header(letter_of(answer, 2), "error")


class Limited:
    """Dead letters of which the topic takes none with a value of more than ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: list[Output] = []

    def send(self, outputs: Sequence[Output]) -> Receipt:
        receipt = Receipt(len(outputs))
        for index, output in enumerate(outputs):
            fits = len(output.value or b"") <= self.limit
            self.taken += [output] if fits else []
            receipt.report(index, None if fits else KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        return receipt


def test_a_dead_letter_that_is_too_large_names_the_place_of_the_message() -> None:
    topic = Limited(100)
    messages = [Received("t", 1, offset, b"key", b"v" * size, [("h", b"v")]) for offset, size in ((7, 50), (8, 500))]
    dead_letters.deliver([DeadLetter("t", each, "decode", "garbage") for each in messages], topic, "dead-letters")
    whole, notice = topic.taken
    assert (whole.key, whole.value, whole.headers[0]) == (b"key", b"v" * 50, ("h", b"v"))
    assert (notice.key, notice.value) == (None, None)
    assert [name for name, _ in notice.headers] == ["topic", "partition", "offset", "stage", "error"]
    assert (header(notice, "partition"), header(notice, "offset")) == ("1", "8")
    assert "500 bytes" in header(notice, "error")


def test_a_topic_that_takes_not_even_a_notice_is_an_error() -> None:
    letter = DeadLetter("t", Received("t", 0, 0, None, b"v", []), "decode", "garbage")
    with pytest.raises(DeliveryError, match="even without key and value"):
        dead_letters.deliver([letter], Limited(-1), "dead-letters")


class AbsentRegistry(Codec):
    """A codec whose registry comes back after some calls."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def decode_batch(self, event: EventName, messages: Sequence[tuple[bytes | None, Headers]]) -> DecodedMessages:
        if self.failures:
            self.failures -= 1
            raise RegistryUnavailable("away")
        return super().decode_batch(event, messages)


def test_a_registry_that_is_away_for_a_moment_costs_no_slate(
    explainer: Explainer, settings: Settings, received: list[Received]
) -> None:
    answer = BatchWork(explainer, AbsentRegistry(2), settings).answer(received)
    assert len(answer.slates) == 6


def test_a_registry_that_stays_away_makes_no_dead_letters(
    explainer: Explainer, settings: Settings, received: list[Received]
) -> None:
    impatient = settings.model_copy(update={"delivery_timeout_s": 0.05})
    with pytest.raises(RegistryUnavailable):
        BatchWork(explainer, AbsentRegistry(10**9), impatient).answer(received)
