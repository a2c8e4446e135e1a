"""An object so large that it goes up in parts: it appears whole or not at all, and only once."""

from __future__ import annotations

import random
import uuid
from functools import partial

import pytest

from stream.archive.objects import ObjectExists, ObjectMissing, StoreUnavailable
from stream.archive.s3 import S3Options, S3Store
from tests.faults.proxy import Mood, Proxy
from tests.parts.s3_server import S3Server

PART = 5 * 2**20
"""The least that S3 takes; s3fs itself uploads in parts of 50 MiB, from 100 MiB on."""


@pytest.mark.parametrize(
    ("mood", "line"),
    [("cutting", b"partNumber=2"), ("failing", b"partNumber=3"), ("unavailable", b"POST ")],
)
def test_an_upload_that_fails_in_the_middle_leaves_nothing(s3_server: S3Server, mood: Mood, line: bytes) -> None:
    data = random.Random(3).randbytes(2 * PART + 1)
    with Proxy(int(s3_server.endpoint_url.rpartition(":")[2])) as proxy:
        options = S3Options(proxy.endpoint_url, s3_server.access_key, s3_server.secret_key)
        store = S3Store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}", options)
        store._fs.pipe_file = partial(store._fs.pipe_file, chunksize=PART)
        proxy.mood, proxy.only = mood, line
        with pytest.raises(StoreUnavailable):
            store.put_if_absent("large", data)
        assert proxy.hits >= 1
        proxy.mood = "well"
        assert list(store.list("")) == []
        with pytest.raises(ObjectMissing):
            store.get("large")
        store.put_if_absent("large", data)
        assert store.get("large") == data
        with pytest.raises(ObjectExists):
            store.put_if_absent("large", data[::-1])
        assert store.get("large") == data
        store.delete("large")
