"""Stores over which the contract tests run: in memory, a local folder, and a real S3 server."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from stream.archive.objects import Store
from stream.archive.s3 import S3Options
from stream.archive.store import open_store


@pytest.fixture(params=["memory", "local", pytest.param("s3", marks=pytest.mark.server("s3_server"))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "memory":
        return open_store("memory:")
    if request.param == "local":
        return open_store(str(tmp_path / "archive"))
    return open_s3(request)


def open_s3(request: pytest.FixtureRequest) -> Store:
    server = request.getfixturevalue("s3_server")
    options = S3Options(server.endpoint_url, server.access_key, server.secret_key)
    return open_store(f"s3://{server.bucket}/{uuid.uuid4().hex}", options)
