"""A bundle, a codec, and a bus of either kind: every test that takes `bus` runs on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.bundle import Bundle
from schemas.codec import Codec
from stream.settings import Settings
from tests.bundles import tiny_bundle
from tests.worker.bus import Bus, embedded_bus, kafka_bus


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    return Bundle.load(bundle_dir)


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec()


@pytest.fixture
def settings(bundle_dir: Path, tmp_path: Path) -> Settings:
    return Settings(bundle_dir=bundle_dir, archive_url=str(tmp_path / "archive"), delivery_timeout_s=10)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.server("kafka"))])
def bus(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Bus]:
    if request.param == "embedded":
        with embedded_bus(settings) as found:
            yield found
    else:
        with kafka_bus(settings, request.getfixturevalue("kafka").bootstrap) as found:
            yield found
