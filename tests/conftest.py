"""Registers the fixtures that start real servers (see tests/parts), and how long a random example may take."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["tests.parts.fixtures"]

# A slow example is a slow machine, not a defect: speed is measured in bench/.
settings.register_profile("whyrec", deadline=None)
settings.load_profile("whyrec")
