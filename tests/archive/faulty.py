"""A store that dies or goes away at a chosen call: a crash is a number that a test can write down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Literal

from stream.archive.objects import ObjectInfo, Store, StoreUnavailable

Moment = Literal["before", "after"]


class Crash(BaseException):
    """The process died here; nothing catches it."""


class FaultyStore:
    """Counts the calls that write; the ``at``-th dies (or, with ``dies`` false, is answered by an error) ``moment`` it.

    ``at`` counts from 0; None is no fault. The fault happens once; :meth:`arm` sets the next one.
    """

    def __init__(self, inner: Store, at: int | None = None, moment: Moment = "before", *, dies: bool = True) -> None:
        self.inner = inner
        self.url = inner.url
        self.arm(at, moment, dies=dies)

    def arm(self, at: int | None, moment: Moment, *, dies: bool) -> None:
        """Count anew, and fail at another call."""
        self.writes = 0
        self._at: int | None = at
        self._moment: Moment = moment
        self._dies = dies

    def put_if_absent(self, key: str, data: bytes) -> None:
        self._fault("before")
        self.inner.put_if_absent(key, data)
        self._fault("after")

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:
        self._fault("before")
        self.inner.put(key, data, storage_class)
        self._fault("after")

    def get(self, key: str) -> bytes:
        return self.inner.get(key)

    def open(self, key: str) -> BinaryIO:
        return self.inner.open(key)

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(prefix, after)

    def delete(self, key: str) -> None:
        self._fault("before")
        self.inner.delete(key)
        self._fault("after")

    def _fault(self, moment: Moment) -> None:
        if moment == "before":
            self.writes += 1
        if self._at is not None and self.writes == self._at + 1 and moment == self._moment:
            self._at = None
            raise Crash if self._dies else StoreUnavailable("no answer")
