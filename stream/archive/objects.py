"""The interface of an object store, its errors, an in-memory implementation, and a wrapper that retries.

Keys are relative paths with ``/`` between their parts. An object becomes visible with its complete content or not at
all. :meth:`Store.put_if_absent` is the only operation in which two writers compete: exactly one of them succeeds.
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
    """An object with this key exists: another writer created it, or an earlier attempt of the caller did."""


class ObjectMissing(ArchiveError):
    """No object has this key."""


class StoreUnavailable(ArchiveError):
    """The store did not answer; a later attempt may succeed. Whether a write took effect is unknown."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The key of an object, its size in bytes, and the time of its last write in seconds since 1970."""

    key: str
    size: int
    modified_at_s: float


class Store(Protocol):
    """An object store as the archive uses it."""

    url: str

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create an object.

        Raises:
            ObjectExists: an object with this key exists.
            StoreUnavailable: whether the object was created is unknown.

        """
        ...

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:
        """Create an object whose key contains a hash of its content; do nothing if the same object exists.

        ``storage_class`` is an S3 storage class; None is the default of the bucket. Other stores ignore it.

        Raises:
            ArchiveError: an object with this key and other content exists.

        """
        ...

    def get(self, key: str) -> bytes:
        """Read an object.

        Raises:
            ObjectMissing: no object has this key.

        """
        ...

    def open(self, key: str) -> BinaryIO:
        """Open an object to read parts of it. Seeking transfers no data.

        Raises:
            ObjectMissing: no object has this key.

        """
        ...

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """List the objects whose keys begin with ``prefix`` and sort after ``after``, in the order of their keys.

        Raises:
            ArchiveError: the listing cannot be complete.

        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object; do nothing if no object has this key."""
        ...


class MemoryStore:
    """Objects in a dictionary, for tests and simulations. It keeps every promise of :class:`Store`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.url = "memory:"
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See :class:`Store`."""
        with self._lock:
            if key in self._objects:
                raise ObjectExists(f"{key} exists already in {self.url}")
            self._objects[key] = (bytes(data), self._clock())

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:  # noqa: ARG002 - memory has none
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
    """Repeats calls that raise :class:`StoreUnavailable`, with exponential backoff and jitter.

    The call is attempted ``attempts`` times; the last error is raised. Pauses are in seconds.
    """

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
        """The store that this one wraps."""
        return self._store

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See :class:`Store`. An earlier attempt whose answer was lost is recognised by its content."""
        unanswered = False

        def create() -> None:
            nonlocal unanswered
            try:
                self._store.put_if_absent(key, data)
            except ObjectExists:
                if not (unanswered and self._store.get(key) == data):
                    raise
            except StoreUnavailable:
                unanswered = True
                raise

        self._retry(create)

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:
        """See :class:`Store`."""
        self._retry(lambda: self._store.put(key, data, storage_class))

    def get(self, key: str) -> bytes:
        """See :class:`Store`."""
        return self._retry(lambda: self._store.get(key))

    def open(self, key: str) -> BinaryIO:
        """See :class:`Store`. Later reads from the file are not retried."""
        return self._retry(lambda: self._store.open(key))

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """See :class:`Store`."""
        return iter(self._retry(lambda: [*self._store.list(prefix, after)]))

    def delete(self, key: str) -> None:
        """See :class:`Store`."""
        self._retry(lambda: self._store.delete(key))

    def _retry(self, call: Callable[[], T]) -> T:
        pause_s = self._first_pause_s
        for _ in range(self._attempts - 1):
            try:
                return call()
            except StoreUnavailable:
                # Jitter keeps many writers from repeating their calls at the same moment.
                self._sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
                pause_s = min(2 * pause_s, self._longest_pause_s)
        return call()


def get_each(store: Store, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield keys and objects in the order of ``keys``, reading ahead in threads: S3 takes tens of milliseconds a read.

    Raises:
        ObjectMissing, StoreUnavailable: as :meth:`Store.get`, once the iteration reaches the key.

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
    """Implement :meth:`Store.put`: call ``create``, and accept that an object with the same content exists."""
    try:
        create()
    except ObjectExists:
        if store.get(key) != data:
            raise ArchiveError(
                f"{key} in {store.url} has other content than the hash in its key; run `whyrec archive verify`"
            ) from None
