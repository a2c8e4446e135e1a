"""Registers the fixtures that start real servers; see tests/parts."""

from __future__ import annotations

pytest_plugins = ["tests.parts.fixtures"]
