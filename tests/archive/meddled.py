"""A store in which something happens at a chosen call: a race is a number that a test can write down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from stream.archive.objects import ObjectInfo, Store


class MeddledStore:
    """Passes all calls on; just before the ``at``-th, counted from 0, ``deed`` is done, once."""

    def __init__(self, inner: Store, at: int, deed: Callable[[], object]) -> None:
        self.inner = inner
        self.url = inner.url
        self.calls = 0
        self._at = at
        self._deed = deed

    def put_if_absent(self, key: str, data: bytes) -> None:
        self._count()
        self.inner.put_if_absent(key, data)

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:
        self._count()
        self.inner.put(key, data, storage_class)

    def get(self, key: str) -> bytes:
        self._count()
        return self.inner.get(key)

    def open(self, key: str) -> BinaryIO:
        self._count()
        return self.inner.open(key)

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        self._count()
        return self.inner.list(prefix, after)

    def delete(self, key: str) -> None:
        self._count()
        self.inner.delete(key)

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self._at + 1:
            self._deed()
