"""Whatever arrives, each message has its outcome: an explanation or a dead letter, and the worker goes on.

All cases run through one worker, good impressions between them: once as plain Avro on the embedded broker, once in the
Confluent wire format with a schema registry, on Apache Kafka, into an archive on S3.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from models.bundle import Bundle
from schemas.codec import Codec
from schemas.registry import Registry
from stream.settings import Settings
from tests.bundles import tiny_impression
from tests.end_to_end.malformed import CASES
from tests.worker.bus import Bus, Sent, embedded_bus, kafka_bus
from tests.worker.running import archived, running, until_archived

pytestmark = pytest.mark.slow

Place = tuple[int, int]


@dataclass
class Answers:
    """What was sent where, and all that came of it."""

    sent: dict[str, list[tuple[Sent, bytes | None, dict[str, Any]]]]
    letters: dict[Place, Message]
    explanations: dict[str, list[dict[str, Any]]]
    audits: dict[Place, list[dict[str, Any]]]
    rows: dict[Place, int]
    exit_status: int


@pytest.fixture(
    scope="module",
    params=[
        "plain Avro, embedded broker, folder",
        pytest.param("registry, Kafka, S3", marks=pytest.mark.server("kafka", "schema_registry", "s3_server")),
    ],
)
def answers(
    request: pytest.FixtureRequest, bundle: Bundle, bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Answers]:
    folder = tmp_path_factory.mktemp("malformed")
    settings = Settings(bundle_dir=bundle_dir, archive_url=str(folder / "archive"))
    if request.param.startswith("plain"):
        with embedded_bus(settings) as bus:
            yield _run(bus, Codec(), bundle, folder / "log")
        return
    kafka, registry, s3 = (request.getfixturevalue(name) for name in ("kafka", "schema_registry", "s3_server"))
    settings = settings.model_copy(
        update={"archive_url": f"s3://{s3.bucket}/{uuid.uuid4().hex[:12]}", "schema_registry_url": registry.url}
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        kafka_bus(settings, kafka.bootstrap) as bus,
        Registry(registry.url) as client,
    ):
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        yield _run(bus, Codec(client), bundle, folder / "log", schema_registry_url=registry.url)


def _run(bus: Bus, codec: Codec, bundle: Bundle, log: Path, **changes: str) -> Answers:
    topic = bus.settings.topic("impressions")
    sent: dict[str, list[tuple[Sent, bytes | None, dict[str, Any]]]] = defaultdict(list)
    base = tiny_impression(bundle, items=6, seed=5)
    with running(bus.settings, log, **changes) as worker:
        for number, (name, case) in enumerate(CASES.items()):
            record = base | {"request_id": str(uuid.uuid5(uuid.NAMESPACE_OID, name))}
            value, headers = case.make(record, codec, topic)
            for _ in range(1 + case.sent_twice):
                sent[name].append((bus.send(value, key=b"a key", headers=headers), value, record))
            good = base | {"request_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"good {number}"))}
            encoded = codec.encode("impression", good, topic)
            sent["good"].append((bus.send(encoded.value, headers=encoded.headers), encoded.value, good))
        total = sum(map(len, sent.values()))
        with bus.reader("explanations", "dead_letters") as reader:
            outputs = reader.until(lambda got: len(got) >= total)
        with bus.reader("audit") as reader:
            explained = [m for m in outputs if m.topic() == bus.settings.topic("explanations")]
            audit_messages = reader.until(lambda got: len(got) >= len(explained))
        audited = [codec.decode("audit", m.value(), m.headers() or ()) for m in audit_messages]
        until_archived(bus.settings, sum(len(audit["entries"]) for audit in audited))
        exit_status = worker.stop()

    letters = {
        (int(headers["partition"]), int(headers["offset"])): message
        for message in outputs
        if message.topic() == bus.settings.topic("dead_letters")
        for headers in [dict(message.headers() or ())]
    }
    explanations: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for message in explained:
        explanation = codec.decode("explanation", message.value(), message.headers() or ())
        explanations[explanation["request_id"]].append(explanation)
    audits: dict[Place, list[dict[str, Any]]] = defaultdict(list)
    for audit in audited:
        audits[audit["source_partition"], audit["source_offset"]].append(audit)
    rows: dict[Place, int] = defaultdict(int)
    for table in archived(bus.settings):
        for partition, offset in zip(
            table["source_partition"].to_pylist(), table["source_offset"].to_pylist(), strict=True
        ):
            rows[partition, offset] += 1
    return Answers(sent, letters, explanations, audits, rows, exit_status)


@pytest.mark.parametrize("name", CASES)
def test_a_message_has_its_outcome(name: str, answers: Answers) -> None:
    case = CASES[name]
    for place, value, record in answers.sent[name]:
        at = (place.partition, place.offset)
        if case.outcome == "explained":
            assert at not in answers.letters, dict(answers.letters[at].headers() or ()).get("error")
            explanations = answers.explanations[record["request_id"]]
            assert len(explanations) == len(answers.sent[name])
            assert all(case.holds(record, explanation) for explanation in explanations)
            [audit] = answers.audits[at]
            assert len(audit["entries"]) == len(explanations[0]["items"]) == answers.rows[at]
        else:
            letter = answers.letters[at]
            headers = dict(letter.headers() or ())
            assert headers["stage"].decode() == case.outcome, headers["error"]
            assert case.error in headers["error"].decode()
            assert (letter.key(), letter.value()) == (b"a key", value)
            assert at not in answers.audits
            assert at not in answers.rows
            assert record["request_id"] not in answers.explanations


def test_what_lies_between_is_explained_and_archived_as_if_nothing_had_happened(answers: Answers) -> None:
    for place, _, record in answers.sent["good"]:
        [explanation] = answers.explanations[record["request_id"]]
        assert "model_mismatch" not in {item["status"] for item in explanation["items"]}
        assert answers.rows[place.partition, place.offset] == len(record["items"])
    assert answers.exit_status == 0
