"""Fixtures that lend the real parts to tests: each starts on first use, once per run, and stops with it.

An existing server is used instead where its variable is set: `WHYREC_TEST_BOOTSTRAP_SERVERS`,
`WHYREC_TEST_SCHEMA_REGISTRY_URL`, `WHYREC_TEST_S3_ENDPOINT_URL` (the last with the usual AWS variables). Where there is
neither, the tests that need the part are skipped with the reason.

A test that uses one of these fixtures has the marker `server`. Where a test asks for a part at run time, the marker is
set by hand and names the parts: `pytest.mark.server("kafka")`. A test without the marker cannot start a server.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import pytest

from tests.parts import compose_spec, process
from tests.parts import kafka as kafka_part
from tests.parts import s3_server as s3
from tests.parts import schema_registry as registry_part
from tests.parts.cache import PartUnavailable, cache_directory
from tests.parts.kafka import Kafka
from tests.parts.s3_server import S3Server
from tests.parts.schema_registry import SchemaRegistry

Part = TypeVar("Part", bound=AbstractContextManager[object])

FETCHED: dict[str, tuple[str, Callable[[], object], str]] = {
    "kafka": (kafka_part.KEPT, kafka_part.fetch, "WHYREC_TEST_BOOTSTRAP_SERVERS"),
    "schema_registry": (registry_part.KEPT, registry_part.fetch, "WHYREC_TEST_SCHEMA_REGISTRY_URL"),
    "s3_server": (s3.KEPT, s3.fetch, "WHYREC_TEST_S3_ENDPOINT_URL"),
    "services": (compose_spec.KEPT, compose_spec.fetch, ""),
}
"""The folder that each fixture's part is kept in, how it is fetched, and the variable that makes it needless."""

_BROKER = pytest.StashKey[Kafka]()


@dataclass(frozen=True)
class ExistingKafka:
    """A broker that is not ours to stop: tests that must take it away are skipped."""

    bootstrap: str
    running: bool = True

    def start(self) -> None:
        """It runs already."""

    def stop(self) -> NoReturn:
        pytest.skip("WHYREC_TEST_BOOTSTRAP_SERVERS names a broker that this test may not stop")

    kill = stop


@dataclass(frozen=True)
class ExistingSchemaRegistry:
    """A registry somebody else runs."""

    url: str


@dataclass(frozen=True)
class ExistingS3Server:
    """An S3 endpoint somebody else runs, with a bucket made for this run."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        return s3.environment(self.endpoint_url, self.access_key, self.secret_key)


def unavailable(reason: PartUnavailable) -> NoReturn:
    """Skip with the reason."""
    pytest.skip(str(reason))


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka | ExistingKafka]:
    """Apache Kafka: `.bootstrap`, and `.stop()`, `.kill()`, `.start()` for tests in which it goes away."""
    existing = os.environ.get("WHYREC_TEST_BOOTSTRAP_SERVERS")
    if existing:
        yield ExistingKafka(existing)
        return
    with _part(Kafka) as broker:
        request.config.stash[_BROKER] = broker
        yield broker
    del request.config.stash[_BROKER]


@pytest.fixture(scope="session")
def schema_registry() -> Iterator[SchemaRegistry | ExistingSchemaRegistry]:
    """A Confluent-compatible schema registry: `.url`."""
    existing = os.environ.get("WHYREC_TEST_SCHEMA_REGISTRY_URL")
    if existing:
        yield ExistingSchemaRegistry(existing)
        return
    with _part(SchemaRegistry) as registry:
        yield registry


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server | ExistingS3Server]:
    """An S3 server: `.endpoint_url`, `.access_key`, `.secret_key`, `.bucket`; `.environment` is for a child process."""
    endpoint = os.environ.get("WHYREC_TEST_S3_ENDPOINT_URL")
    if endpoint:
        try:
            keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        except KeyError as missing:
            pytest.fail(f"WHYREC_TEST_S3_ENDPOINT_URL is set, and so must be {missing}")
        existing = ExistingS3Server(endpoint, *keys, bucket=f"whyrec-test-{uuid.uuid4().hex[:12]}")
        s3.create_bucket(existing.environment, existing.bucket)
        yield existing
        return
    with _part(S3Server) as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server | ExistingS3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://bucket/prefix` with a fresh prefix, reachable through the AWS variables of this test's environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex[:12]}"


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the marker `server` to each test that asks for one of these fixtures."""
    for item in items:
        if _parts(item) and item.get_closest_marker("server") is None:
            item.add_marker("server")


def _parts(item: pytest.Item) -> set[str]:
    """Names of the parts that a test uses."""
    named = {str(name) for marker in item.iter_markers("server") for name in marker.args}
    return named | FETCHED.keys() & set(getattr(item, "fixturenames", ()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let only tests with the marker `server` start servers."""
    process.forbidden = None if item.get_closest_marker("server") else f"{item.nodeid} lacks the marker `server`"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch what the collected tests will need before the first begins, so that no test's time limit pays for it."""
    if session.config.option.collectonly:
        return
    needed = {name for item in session.items for name in _parts(item)}
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    for name, (kept, fetch, existing) in FETCHED.items():
        target = cache_directory() / kept
        if name in needed and not os.environ.get(existing) and not target.is_dir():
            if reporter is not None:
                reporter.write_line(f"fetching, once: {target}")
            try:
                fetch()
            except PartUnavailable:
                continue  # the tests that need it say so, each under its name


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    # A test that failed while the broker was away must not take the following ones along.
    broker = item.config.stash.get(_BROKER, None)
    if broker is not None and not broker.running:
        broker.start()


def _part(make: Callable[[], Part]) -> Part:
    try:
        return make()
    except PartUnavailable as reason:
        unavailable(reason)
