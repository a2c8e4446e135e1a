"""Registers the fixtures that start real servers and the rule for skipped tests; sets the limits of random examples."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Files of tests run side by side: threads of PyTorch or LightGBM beyond one each would only wait for each other.
# Set before either is imported; the workers that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.parts.fixtures", "tests.skips"]

# A slow example is a slow machine, not a defect: speed is measured in bench/.
settings.register_profile("whyrec", deadline=None)
settings.load_profile("whyrec")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: begun last, one of them would run while all other jobs are idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("server")}
    items.sort(key=lambda item: item.path not in slow)
