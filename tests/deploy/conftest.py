"""The image's contents, installed once for the tests of this folder."""

from __future__ import annotations

import pytest

from tests.deploy.image import Image, build


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What the image would ship, installed into a temporary folder."""
    return build(tmp_path_factory.mktemp("image"))
