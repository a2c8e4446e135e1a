from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest
import s3fs
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from tests.parts import cache
from tests.parts.fixtures import ExistingKafka, ExistingS3Server, ExistingSchemaRegistry
from tests.parts.kafka import Kafka
from tests.parts.process import ServerFailed, ServerProcess
from tests.parts.s3_server import S3Server
from tests.parts.schema_registry import SchemaRegistry


def test_kafka_keeps_address_and_data_through_a_crash(kafka: Kafka | ExistingKafka) -> None:
    topic = f"crash-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all", "log_level": 0})

    producer.produce(topic, b"before")
    assert producer.flush(30) == 0
    kafka.kill()
    assert not kafka.running
    producer.produce(topic, b"while away")
    kafka.start()
    assert producer.flush(60) == 0

    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    seen: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(seen) < 2 and time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            seen.append(message.value())
    consumer.close()
    assert seen == [b"before", b"while away"]


def test_schema_registry_gives_back_what_was_registered(
    schema_registry: SchemaRegistry | ExistingSchemaRegistry,
) -> None:
    with SchemaRegistryClient({"url": schema_registry.url}) as client:
        schema = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}'
        subject = f"r-{uuid.uuid4().hex[:8]}"
        number = client.register_schema(subject, Schema(schema, "AVRO"))
        assert client.get_schema(number).schema_str is not None
        assert subject in client.get_subjects()


def test_s3_server_refuses_a_second_put_if_absent(s3_server: S3Server | ExistingS3Server, s3_url: str) -> None:
    store = s3fs.S3FileSystem(
        endpoint_url=s3_server.endpoint_url,
        key=s3_server.access_key,
        secret=s3_server.secret_key,
        skip_instance_cache=True,
    )
    store.pipe_file(f"{s3_url}/a b/c=d", b"first", mode="create")
    with pytest.raises(FileExistsError):
        store.pipe_file(f"{s3_url}/a b/c=d", b"second", mode="create")
    assert store.cat_file(f"{s3_url}/a b/c=d") == b"first"


def test_each_test_gets_its_own_prefix(s3_url: str, tmp_path: Path) -> None:
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    assert not store.exists(s3_url)


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, pathlib\n"
        "from tests.parts.process import ServerProcess\n"
        f"directory = pathlib.Path({str(tmp_path)!r})\n"
        "server = ServerProcess('sleeper', ['sleep', '600'], ready=lambda: True, directory=directory)\n"
        "server.start()\n"
        "print(server._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and psutil.pid_exists(pid):
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.server
def test_a_server_that_fails_says_its_last_words(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no such luck; exit 3"]
    server = ServerProcess("broken", command, ready=lambda: False, directory=tmp_path)
    with pytest.raises(ServerFailed, match=r"status 3.*\n.*no such luck"):
        server.start()


def test_a_part_is_fetched_once_even_by_two_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHYREC_TEST_CACHE", str(tmp_path))
    calls: list[int] = []

    def fill(folder: Path) -> None:
        calls.append(1)
        time.sleep(0.2)
        (folder / "part.jar").write_bytes(b"jar")

    results: list[Path] = []
    runs = [threading.Thread(target=lambda: results.append(cache.kept("part-1", fill))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert calls == [1]
    assert results == [tmp_path / "part-1"] * 2
    assert (tmp_path / "part-1" / "part.jar").read_bytes() == b"jar"


def test_a_failed_fetch_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHYREC_TEST_CACHE", str(tmp_path))

    def fill(folder: Path) -> None:
        (folder / "half").write_bytes(b"h")
        raise cache.PartUnavailable("the line went dead")

    with pytest.raises(cache.PartUnavailable, match="the line went dead"):
        cache.kept("part-1", fill)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "outcome"), [("", "2 skipped"), ("true", r"1 skipped.* 1 error")])
def test_in_ci_a_skip_fails_unless_its_reason_is_listed(ci: str, outcome: str, tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(
        "import pytest\n"
        "def test_needs(kafka): pass\n"
        "def test_lacks_data(): pytest.skip('no copy of MovieLens 100K')\n"  # which CI may lack
    )
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['tests.parts.fixtures', 'tests.skips']\n")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PATH": str(tmp_path), "CI": ci, "PYTHONPATH": str(root)}
    environment.pop("WHYREC_TEST_BOOTSTRAP_SERVERS", None)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-ra",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False).stdout
    assert "`java` is not on the PATH" in said
    assert re.search(outcome, said)
