"""The Confluent wire format with a schema registry, and the commands that register and check schemas."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import Codec
from schemas.errors import UndecodableEvent
from schemas.events import EVENT_NAMES, EventName
from schemas.json_form import from_json
from schemas.registry import IncompatibleSchema, Registry, RegistryUnavailable, subject
from schemas.versions import VERSIONS, schema
from stream.kafka.topics import TOPICS
from tests.parts.process import free_port
from tests.parts.schema_registry import SchemaRegistry
from tests.strategies import EVENTS, same

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]
ROLES = [role for role in TOPICS if role not in ("dead_letters", "control")]


@pytest.fixture(scope="module")
def url(schema_registry: SchemaRegistry) -> str:
    return schema_registry.url


@pytest.fixture(scope="module")
def codec(url: str) -> Iterator[Codec]:
    with Registry(url) as registry:
        yield Codec(registry)


@pytest.fixture(scope="module")
def topics() -> dict[str, str]:
    """Topic names of this run, so that the tests can use an existing registry."""
    run = uuid.uuid4().hex[:8]
    return {event: f"test-{run}-{event}" for event in EVENT_NAMES}


@pytest.fixture
def topic() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": url}) as client:
        yield client


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    """A registry client without cached schemas, as in another process."""
    with Registry(url) as registry:
        yield registry


def golden(event: EventName) -> dict[str, Any]:
    return from_json(event, _golden(event, "json").read_bytes())


def _golden(event: EventName, suffix: str) -> Path:
    return GOLDEN / f"{event}.v{VERSIONS[event][-1]}.{suffix}"


def changed(event: EventName, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    other = copy.deepcopy(schema(event))
    change(other)
    return other


def with_field(**field: Any) -> Callable[[dict[str, Any]], None]:
    return lambda other: other["fields"].append(field)


@pytest.mark.parametrize("event", EVENT_NAMES)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_record_survives_the_confluent_format(
    codec: Codec, topics: dict[str, str], url: str, event: EventName, data: st.DataObject
) -> None:
    record = data.draw(EVENTS[event])
    encoded = codec.encode(event, record, topics[event])
    assert encoded.headers == []
    assert encoded.value[0] == 0
    assert same(codec.decode(event, encoded.value, encoded.headers), record)


@pytest.mark.parametrize("event", EVENT_NAMES)
def test_encoded_bytes_have_the_schema_id_of_the_registry(
    codec: Codec, client: SchemaRegistryClient, topics: dict[str, str], event: EventName
) -> None:
    encoded = codec.encode(event, golden(event), topics[event])
    latest = client.get_latest_version(subject(topics[event]))
    assert int.from_bytes(encoded.value[1:5], "big") == latest.schema_id
    assert encoded.value[5:] == _golden(event, "avro").read_bytes()


@pytest.mark.parametrize("event", EVENT_NAMES)
def test_another_process_learns_the_schema_from_the_registry(
    codec: Codec, registry: Registry, topics: dict[str, str], event: EventName
) -> None:
    encoded = codec.encode(event, golden(event), topics[event])
    assert same(Codec(registry).decode(event, encoded.value), golden(event))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, UndecodableEvent), (422, UndecodableEvent), (401, RegistryUnavailable), (429, RegistryUnavailable)],
)
def test_only_an_invalid_id_makes_a_message_undecodable(status: int, kind: type[Exception]) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Registry(f"http://127.0.0.1:{server.server_port}") as registry, pytest.raises(kind):
            Codec(registry).decode("impression", b"\x00\xff\xff\xff\xffrest")
        server.shutdown()


def test_confluents_serializer_and_ours_are_compatible(codec: Codec, client: SchemaRegistryClient, topic: str) -> None:
    at = SerializationContext(topic, MessageField.VALUE)
    theirs = AvroSerializer(client, json.dumps(schema("impression")))(golden("impression"), at)
    ours = codec.encode("impression", golden("impression"), topic).value
    assert same(codec.decode("impression", theirs), golden("impression"))
    assert same(AvroDeserializer(client)(ours, at), golden("impression"))


def test_an_event_of_a_newer_producer_is_read_without_its_new_field(
    codec: Codec, registry: Registry, topic: str
) -> None:
    newer = changed("impression", with_field(name="surface", type="string", default="home"))
    written = registry.id_of(topic, newer)
    body = Codec().encode("impression", golden("impression"), topic).value + b"\x06row"  # the new field stands last
    event = codec.decode("impression", b"\x00" + written.to_bytes(4, "big") + body)
    assert same(event, golden("impression"))


def test_an_unknown_id_is_undecodable(codec: Codec) -> None:
    with pytest.raises(UndecodableEvent, match="2000000000 is unknown to the registry"):
        codec.decode("impression", b"\x00" + (2_000_000_000).to_bytes(4, "big") + b"rest")


def test_an_event_of_another_kind_is_undecodable(codec: Codec, topics: dict[str, str]) -> None:
    explanation = codec.encode("explanation", golden("explanation"), topics["explanation"])
    with pytest.raises(UndecodableEvent, match="is of Explanation; expected impression"):
        codec.decode("impression", explanation.value)


def test_a_schema_that_is_not_avro_is_undecodable(codec: Codec, client: SchemaRegistryClient, topic: str) -> None:
    number = client.register_schema(
        subject(topic), Schema('{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}', "JSON")
    )
    with pytest.raises(UndecodableEvent, match="is JSON; expected an Avro schema"):
        codec.decode("impression", b"\x00" + number.to_bytes(4, "big") + b"{}")


def test_a_truncated_event_is_undecodable(codec: Codec, topics: dict[str, str]) -> None:
    encoded = codec.encode("impression", golden("impression"), topics["impression"]).value
    for end in range(len(encoded)):
        with pytest.raises(UndecodableEvent):
            codec.decode("impression", encoded[:end])


@pytest.mark.slow
def test_an_unreachable_registry_does_not_make_a_message_undecodable() -> None:
    with Registry(f"http://127.0.0.1:{free_port()}") as registry, pytest.raises(RegistryUnavailable):
        Codec(registry).decode("impression", b"\x00\x00\x00\x00\x01rest")


@pytest.mark.slow
def test_a_request_without_a_response_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            Registry(f"http://user:swordfish@{address}", timeout_s=0.1) as registry,
            pytest.raises(RegistryUnavailable, match=f"http://{address} did not answer") as raised,
        ):
            registry.schema_of(1)
    assert "swordfish" not in str(raised.value)
    assert "swordfish" not in repr(registry)


def test_register_then_check_passes(url: str, client: SchemaRegistryClient) -> None:
    names = _names()
    registered = _whyrec(url, names, "register")
    assert registered.returncode == 0, registered.stderr
    for role in ROLES:
        assert client.get_latest_version(subject(names[role])).version == 1
    assert subject(names["dead_letters"]) not in client.get_subjects()
    checked = _whyrec(url, names, "check")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count("FULL_TRANSITIVE") == len(ROLES)


def test_registering_twice_adds_no_version(url: str, client: SchemaRegistryClient) -> None:
    names = _names()
    assert [_whyrec(url, names, "register").returncode for _ in range(2)] == [0, 0]
    assert client.get_versions(subject(names["impressions"])) == [1]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda other: other["fields"][1].update(type="string"), id="another type"),
        pytest.param(with_field(name="surface", type="string"), id="a new field without default"),
        pytest.param(lambda other: other["fields"].pop(0), id="a field gone that had no default"),
    ],
)
def test_an_incompatible_schema_is_rejected_after_registration(
    url: str, registry: Registry, change: Callable[[dict[str, Any]], None], topic: str
) -> None:
    names = _names() | {"impressions": topic}
    assert _whyrec(url, names, "register").returncode == 0
    assert not registry.is_compatible(topic, changed("impression", change))
    with pytest.raises(IncompatibleSchema, match=subject(topic)):
        registry.id_of(topic, changed("impression", change))


def test_a_new_field_with_a_default_is_compatible(url: str, registry: Registry) -> None:
    names = _names()
    assert _whyrec(url, names, "register").returncode == 0
    newer = changed("audit", with_field(name="experiment", type="string", default=""))
    assert registry.is_compatible(names["audit"], newer)


def test_register_and_check_fail_for_a_foreign_schema_and_name_the_subject(
    url: str, registry: Registry, topic: str
) -> None:
    names = _names() | {"impressions": topic}
    registry.id_of(topic, changed("impression", lambda other: other["fields"][1].update(type="string")))
    registry.require_compatibility(topic)

    checked = _whyrec(url, names, "check")
    assert checked.returncode == 1
    (row,) = [line for line in checked.stdout.splitlines() if subject(topic) in line]
    assert "no" in row.split()

    registered = _whyrec(url, names, "register")
    assert registered.returncode == 1
    assert subject(topic) in " ".join(registered.stderr.split())
    assert "Traceback" not in registered.stderr


def test_check_reports_a_subject_without_compatibility_level(url: str, topic: str) -> None:
    names = _names() | {"impressions": topic}
    with SchemaRegistryClient({"url": url}) as client:
        client.register_schema(subject(topic), Schema(json.dumps(schema("impression")), "AVRO"))
        client.set_compatibility(subject(topic), "NONE")
    checked = _whyrec(url, names, "check")
    assert "whyrec schemas register" in " ".join(checked.stderr.split())


def test_without_a_registry_the_commands_name_the_setting() -> None:
    result = _whyrec(None, _names(), "check")
    assert result.returncode == 1
    assert "WHYREC_SCHEMA_REGISTRY_URL" in result.stderr


def _names() -> dict[str, str]:
    run = uuid.uuid4().hex[:12]
    return {role: f"test-{run}-{role}" for role in TOPICS}


def _whyrec(url: str | None, names: dict[str, str], command: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WHYREC_")}
    environment |= {f"WHYREC_{role.upper()}_TOPIC": name for role, name in names.items()} | {"COLUMNS": "200"}
    if url is not None:
        environment["WHYREC_SCHEMA_REGISTRY_URL"] = url
    return subprocess.run(
        [sys.executable, "-m", "stream.cli", "schemas", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
