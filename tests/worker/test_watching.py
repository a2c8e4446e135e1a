"""Metrics, readiness and logs: what an operator sees of a worker."""

from __future__ import annotations

import io
import json
import logging
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from schemas.registry import Registry
from stream import logs
from stream.errors import ConfigurationError
from stream.metrics import Metrics, MetricsServer
from stream.settings import Settings


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_served_in_the_prometheus_format() -> None:
    metrics = Metrics()
    metrics.dead_letters.labels("decode").inc(3)
    with MetricsServer(metrics, lambda: True) as server:
        status, text = get(server, "/metrics")
    assert status == 200
    assert 'whyrec_dead_letters_total{stage="decode"} 3.0' in text


def test_a_worker_is_ready_only_when_it_says_so() -> None:
    ready = False
    with MetricsServer(Metrics(), lambda: ready) as server:
        assert get(server, "/ready")[0] == 503
        assert get(server, "/live")[0] == 200
        ready = True
        assert get(server, "/ready")[0] == 200
        assert get(server, "/else")[0] == 404


def test_a_port_that_is_taken_is_named_with_what_to_set() -> None:
    with (
        MetricsServer(Metrics(), lambda: True) as first,
        pytest.raises(ConfigurationError, match="WHYREC_METRICS_PORT"),
        MetricsServer(Metrics(), lambda: True, port=first.port),
    ):
        pass


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("restored_logging")
def test_our_logs_and_those_of_libraries_are_json_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(Settings(log_format="auto"))
    structlog.get_logger("whyrec.test").info("partitions assigned", count=4)
    logging.getLogger("another").warning("odd %s", "thing")
    logging.getLogger("aiokafka").info("chatter")
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (ours["event"], ours["count"], ours["level"]) == ("partitions assigned", 4, "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("odd thing", "another", "warning")
    assert ours["timestamp"].endswith("Z")


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_in_the_log_shows_no_values(
    monkeypatch: pytest.MonkeyPatch, log_format: Literal["json", "console"]
) -> None:
    def fail(password: str) -> None:
        raise ZeroDivisionError(f"{len(password)} characters")

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(Settings(log_format=log_format))
    try:
        fail("-".join(["swordfish"] * 2))
    except ZeroDivisionError as error:
        structlog.get_logger("whyrec.test").critical("giving up", exc_info=error)
    assert "ZeroDivisionError: 19 characters" in stream.getvalue()
    assert "swordfish-" not in stream.getvalue()


@pytest.mark.slow
def test_a_registry_shows_no_password() -> None:
    assert "swordfish" not in repr(Registry("http://127.0.0.1:1", "user:swordfish"))
