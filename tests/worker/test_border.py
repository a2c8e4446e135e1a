"""The private parts of Faust, mode and aiokafka that stream/kafka/border.py relies on, in the installed versions.

A test that fails here after an upgrade names what has moved. Look for its new place, change border.py, and run the
other tests of this folder, which check the behaviour.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator, NoGroupCoordinator
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from mode.services import Service, WaitResults
from mode.threads import QueueServiceThread

from stream.kafka.app import WorkerApp, WorkerConsumer
from stream.kafka.border import BorderApp, BorderConsumer
from stream.metrics import Metrics
from stream.settings import Settings

ROOT = Path(__file__).parents[2]
INSTALLED = ", ".join(f"{name} {version(name)}" for name in ("faust-streaming", "mode-streaming", "aiokafka"))


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def moved(what: str) -> str:
    return f"{what}: not so any more in {INSTALLED}; adapt stream/kafka/border.py"


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        (AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
        (AIOKafkaConsumerThread, "_ensure_consumer", ["self"]),
        (Consumer, "_new_consumer_thread", ["self"]),
        (faust.App, "_new_transport", ["self"]),
        (faust.App, "_create_directories", ["self"]),
        (QueueServiceThread, "call_thread", ["self", "fun", "args", "kwargs"]),
        (Service, "wait_first", ["self", "coros", "timeout"]),
        (WaitResults, "__new__", ["_cls", "done", "results", "stopped"]),
        (AIOKafkaConsumer, "commit", ["self", "offsets"]),
        (OffsetAndMetadata, "__new__", ["_cls", "offset", "metadata"]),
        (TopicPartition, "__new__", ["_cls", "topic", "partition"]),
        (GroupCoordinator, "check_errors", ["self"]),
        (NoGroupCoordinator, "check_errors", ["self"]),
        (FaustConsumer, "perform_seek", ["self"]),
        (FaustConsumer, "on_partitions_revoked", ["self", "revoked"]),
        (FaustConsumer, "commit", ["self", "topics", "start_new_transaction"]),
    ],
    ids=lambda value: getattr(value, "__name__", None) or (value if isinstance(value, str) else ""),
)
def test_methods_that_are_called_or_overridden_take_the_arguments_they_took(
    owner: type, name: str, expected: list[str]
) -> None:
    method = inspect.getattr_static(owner, name, None)
    assert method is not None, moved(f"{owner.__name__} has a method {name}")
    found = parameters(getattr(owner, name))
    assert found == expected, moved(f"{owner.__name__}.{name} takes {expected}, and now takes {found}")


@pytest.mark.parametrize(
    ("method", "uses"),
    [
        (AIOKafkaConsumer.start, "fetch_min_bytes=self._fetch_min_bytes"),
        (AIOKafkaConsumer.start, "fetch_max_wait_ms=self._fetch_max_wait_ms"),
        (AIOKafkaConsumer.start, "isolation_level=self._isolation_level"),
        (FaustConsumer.getmany, "tp in self._buffered_partitions"),
        (FaustConsumer.seek, "self._read_offset["),
        (FaustConsumer.perform_seek, "self._committed_offset.update("),
        (FaustConsumer._drain_messages, "await self.wait_first("),
        (faust.App.on_first_start, "self._create_directories()"),
    ],
)
def test_what_is_set_or_overridden_is_still_read_by_the_library(method: Callable[..., Any], uses: str) -> None:
    """A value that the library no longer reads would have no effect, and nothing else would say so."""
    found = uses in inspect.getsource(method)
    assert found, moved(f"{method.__qualname__} contains `{uses}`")


@pytest.fixture
def app() -> Iterator[WorkerApp]:
    async def make() -> WorkerApp:
        made = WorkerApp(Settings(), Metrics())
        made.finalize()
        return made

    with asyncio.Runner() as runner:
        yield runner.run(make())


@pytest.mark.parametrize(
    ("name", "kind"), [("_buffered_partitions", set), ("_read_offset", dict), ("_committed_offset", dict)]
)
def test_a_consumer_holds_the_state_that_is_read_and_changed(app: WorkerApp, name: str, kind: type) -> None:
    assert isinstance(app.consumer, WorkerConsumer), moved("App._new_transport decides the class of the consumer")
    assert isinstance(getattr(app.consumer, name, None), kind), moved(f"Consumer.{name} is a {kind.__name__}")


def test_a_consumer_has_a_thread_of_the_class_that_sets_the_fetches(app: WorkerApp) -> None:
    thread = app.consumer._thread
    assert isinstance(thread, AIOKafkaConsumerThread), moved("ThreadDelegateConsumer._thread is the consumer's thread")
    assert type(thread).__module__ == "stream.kafka.border", moved("Consumer._new_consumer_thread makes that thread")


def test_aiokafkas_consumer_is_made_with_the_fetches_of_the_settings() -> None:
    settings = Settings(fetch_min_bytes=12_345, fetch_max_wait_ms=67)

    async def story() -> None:
        made = WorkerApp(settings, Metrics())
        made.finalize()
        consumer = made.consumer._thread._create_worker_consumer(made.transport)
        try:
            assert consumer._coordinator is None, moved("AIOKafkaConsumer._coordinator is None before the start")
            assert (consumer._fetch_min_bytes, consumer._fetch_max_wait_ms) == (12_345, 67)
            assert consumer._isolation_level == "read_committed"
        finally:
            await consumer.stop()

    asyncio.run(story())


class Thread:
    """The consumer's thread, with aiokafka's consumer inside it."""

    def __init__(self) -> None:
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self._coordinator: Any = None

    def _ensure_consumer(self) -> Thread:
        return self

    async def call_thread(self, method: Callable[..., Any], *arguments: Any) -> None:
        await method(*arguments)

    async def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        self.committed |= offsets


def test_offsets_are_committed_for_partitions_that_are_assigned_and_no_others(
    app: WorkerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = Thread()
    monkeypatch.setattr(app.consumer, "_thread", thread)
    monkeypatch.setattr(app.consumer, "assignment", lambda: {TP("audit", 0)})
    asyncio.run(app.consumer.commit_offsets({TP("audit", 0): 7, TP("audit", 1): 9}))
    assert thread.committed == {TopicPartition("audit", 0): OffsetAndMetadata(7, "")}


def test_the_error_that_ended_the_group_membership_is_raised(app: WorkerApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError("not a member")

    thread = Thread()
    monkeypatch.setattr(app.consumer, "_thread", thread)
    app.consumer.check_group()
    thread._coordinator = SimpleNamespace(check_errors=refuse)
    with pytest.raises(PermissionError, match="not a member"):
        app.consumer.check_group()


def test_the_transport_takes_the_class_of_its_consumer_from_an_attribute() -> None:
    assert Transport.Consumer is Consumer, moved("Transport.Consumer is the class of the consumer")
    assert BorderApp.consumer_class is BorderConsumer


def test_no_other_file_touches_what_the_libraries_keep_private() -> None:
    """Ruff's rule against private names (SLF001) is switched off for border.py alone."""
    allowed = {"KafkaError._"}  # confluent-kafka publishes its own error codes under such names
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "stream").rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if "SLF001" in line and not any(each in line for each in allowed)
    ]
    assert not found
