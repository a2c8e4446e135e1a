"""The fixtures of the worker's tests serve here too."""

from __future__ import annotations

from tests.worker.conftest import bundle, bundle_dir, codec, settings

__all__ = ["bundle", "bundle_dir", "codec", "settings"]
