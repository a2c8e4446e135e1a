"""What the archive asks of a place to keep objects: five calls, their errors, and a store in memory.

Keys are relative, ``/`` between their parts. A key appears with its whole content or not at all, and
:meth:`Store.put_if_absent` is the one operation that two writers may race for.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol, TypeVar

from stream.errors import ArchiveError

T = TypeVar("T")

_READS_AT_ONCE: Final = 8
_READS_AHEAD: Final = 32


class ObjectExists(ArchiveError):
    """The key is taken; whoever asked lost a race, or won it earlier and never heard."""


class ObjectMissing(ArchiveError):
    """No object has this key."""


class StoreUnavailable(ArchiveError):
    """The store did not do it, and may when asked again; whether the write happened is unknown."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A key, its size in bytes, and when it was last written (seconds since 1970)."""

    key: str
    size: int
    modified_at_s: float


class Store(Protocol):
    """What the archive asks of a place to keep objects."""

    url: str

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create an object.

        Raises:
            ObjectExists: the key is taken.
            StoreUnavailable: unknown whether it was created.

        """
        ...

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:
        """Create an object whose key names its content; no error if it is there already.

        ``storage_class`` is S3's name for how it is kept and paid for, by default the bucket's; other stores have one.

        Raises:
            ArchiveError: the key is taken by other content.

        """
        ...

    def get(self, key: str) -> bytes:
        """Read an object.

        Raises:
            ObjectMissing: no such key.

        """
        ...

    def open(self, key: str) -> BinaryIO:
        """Open an object to read parts of it; seeking is cheap.

        Raises:
            ObjectMissing: no such key.

        """
        ...

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """List the objects below a prefix whose keys sort after ``after``, in the order of their keys."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; no error if there is none."""
        ...


class MemoryStore:
    """Objects in a dictionary, for tests and simulations; as strict as the real ones."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.url = "memory:"
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See :class:`Store`."""
        with self._lock:
            if key in self._objects:
                raise ObjectExists(f"{key} is taken")
            self._objects[key] = (bytes(data), self._clock())

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:  # noqa: ARG002 - it has one class
        """See :class:`Store`."""
        put_named_by_content(self, lambda: self.put_if_absent(key, data), key, data)

    def get(self, key: str) -> bytes:
        """See :class:`Store`."""
        try:
            return self._objects[key][0]
        except KeyError:
            raise ObjectMissing(f"{key} does not exist in {self.url}") from None

    def open(self, key: str) -> BinaryIO:
        """See :class:`Store`."""
        return io.BytesIO(self.get(key))

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """See :class:`Store`."""
        with self._lock:
            found = [
                ObjectInfo(key, len(data), at)
                for key, (data, at) in self._objects.items()
                if key.startswith(prefix) and key > after
            ]
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, key: str) -> None:
        """See :class:`Store`."""
        with self._lock:
            self._objects.pop(key, None)


class Retrying:
    """Asks again, with exponential backoff and jitter, while the store beneath says that it is unavailable."""

    def __init__(
        self,
        store: Store,
        *,
        attempts: int = 5,
        first_pause_s: float = 0.1,
        longest_pause_s: float = 5.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self.url = store.url
        self._attempts = attempts
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._sleep = sleep

    @property
    def inner(self) -> Store:
        """The store beneath."""
        return self._store

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See :class:`Store`. An earlier try of ours that succeeded unheard is recognised by its content."""
        unheard = False

        def create() -> None:
            nonlocal unheard
            try:
                self._store.put_if_absent(key, data)
            except ObjectExists:
                if not (unheard and self._store.get(key) == data):
                    raise
            except StoreUnavailable:
                unheard = True
                raise

        self._again(create)

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:
        """See :class:`Store`."""
        self._again(lambda: self._store.put(key, data, storage_class))

    def get(self, key: str) -> bytes:
        """See :class:`Store`."""
        return self._again(lambda: self._store.get(key))

    def open(self, key: str) -> BinaryIO:
        """See :class:`Store`; what is read from the file later is not retried."""
        return self._again(lambda: self._store.open(key))

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """See :class:`Store`."""
        return iter(self._again(lambda: [*self._store.list(prefix, after)]))

    def delete(self, key: str) -> None:
        """See :class:`Store`."""
        self._again(lambda: self._store.delete(key))

    def _again(self, call: Callable[[], T]) -> T:
        pause_s = self._first_pause_s
        for _ in range(self._attempts - 1):
            try:
                return call()
            except StoreUnavailable:
                # Jitter, so that many writers do not come back at once.
                self._sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
                pause_s = min(2 * pause_s, self._longest_pause_s)
        return call()


def get_each(store: Store, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Read objects in the order of the keys, some of them ahead: S3 takes tens of milliseconds for each.

    Raises:
        ObjectMissing, StoreUnavailable: as :meth:`Store.get` does, when it comes to that key.

    """
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        ahead: deque[tuple[str, Future[bytes]]] = deque()
        for key in keys:
            ahead.append((key, pool.submit(store.get, key)))
            if len(ahead) == _READS_AHEAD:
                first, read = ahead.popleft()
                yield first, read.result()
        for first, read in ahead:
            yield first, read.result()


def put_named_by_content(store: Store, create: Callable[[], None], key: str, data: bytes) -> None:
    """Do what :meth:`Store.put` promises: ``create`` the object, or find that it is there already."""
    try:
        create()
    except ObjectExists:
        if store.get(key) != data:
            raise ArchiveError(
                f"{key} in {store.url} holds other content than its name says; run `whyrec archive verify`"
            ) from None
