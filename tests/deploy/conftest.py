"""The compose file as its own parser reads it, and the image's contents: each made once for this folder's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.deploy.dockerfile import ROOT
from tests.deploy.image import Image, build
from tests.parts import compose_spec
from tests.parts.cache import PartUnavailable
from tests.parts.fixtures import unavailable

Services = dict[str, dict[str, Any]]

COMPOSE: Path = ROOT / "docker-compose.yml"


@pytest.fixture(scope="session")
def services() -> Services:
    """The services of docker-compose.yml, with variables, anchors and defaults resolved."""
    try:
        found: Services = compose_spec.parse(COMPOSE)["services"]
    except PartUnavailable as reason:
        unavailable(reason)
    return found


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What the image would ship, installed into a temporary folder."""
    return build(tmp_path_factory.mktemp("image"))
