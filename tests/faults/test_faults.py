"""A short part of the faults; `make faults` runs all of them, hundreds of times."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.faults.scene import Scene, scene
from tests.faults.stories import STORIES, Stage
from tests.parts.kafka import Kafka
from tests.parts.s3_server import S3Server

SHORT = {
    "kill -9 at each step of the sink, S3": 4,
    "kill -9 at each step of explaining": 3,
    "four workers join, leave and die": 4,
    "S3 answers 503 to everything": 1,
    "S3's answers are lost": 1,
    "disk full": 1,
    "exceptions in the agents": 2,
}
"""Runs of each, the same every time."""


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with Proxy(int(s3_server.endpoint_url.rpartition(":")[2])) as made:
        yield made


@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost_and_nothing_comes_twice(
    name: str, kafka: Kafka, s3_server: S3Server, proxy: Proxy, bundle_dir: Path, tmp_path: Path
) -> None:
    told = STORIES[name]
    stage = Stage(kafka, proxy, random.Random(name))
    server = None if told.where == "folder" else s3_server
    endpoint = proxy.endpoint_url if told.where == "proxy" else None
    with scene(kafka.bootstrap, tmp_path, bundle_dir, server, endpoint) as made:
        result = made.result(told.story(made, stage, SHORT[name]))
    assert result.runs >= 1
    assert result.expected > 0
    assert (result.lost, result.twice, result.findings) == (0, 0, ())


def test_the_count_would_notice_a_loss_and_a_repeat(kafka: Kafka, bundle_dir: Path, tmp_path: Path) -> None:
    with scene(kafka.bootstrap, tmp_path, bundle_dir) as made:
        worker = made.worker("sink")
        worker.start()
        made.send_audits(4)
        assert made.archived()
        lost, twice = _doctored(made)
    assert (lost, twice) == (1, 1)


def _doctored(made: Scene) -> tuple[int, int]:
    made.expected.append((0, 99, "item-99-0"))
    made.expected.remove((0, 0, "item-0-0"))
    made.archived = lambda *_: True  # type: ignore[method-assign]
    result = made.result(1)
    return result.lost, result.twice
