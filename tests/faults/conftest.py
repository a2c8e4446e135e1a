"""The small bundle that the explaining workers load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles import tiny_bundle


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))
