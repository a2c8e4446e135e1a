"""What was read and is yet to be answered: the event loop puts it in, the thread that answers takes what is there.

The thread waits a moment from the first message on, so that a batch is worth its fixed cost; while it is at work the
next batch gathers by itself, so batches grow with the load and no faster than it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

Message = TypeVar("Message")


class Inbox(Generic[Message]):
    """Messages in the order they came, and how many batches were taken that are not finished.

    A batch holds ``most`` messages at most, and ends with the first that makes it ``most_bytes`` or more: a slate of
    500 items counts for more than one of 20. It is taken when full, or ``wait_s`` after its first message came.
    """

    def __init__(self, most: int, most_bytes: int, wait_s: float) -> None:
        self._most, self._most_bytes, self._wait_s = most, most_bytes, wait_s
        self._held: deque[tuple[Message, int, float]] = deque()
        self._bytes = 0
        self._unfinished = 0
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._held)

    @property
    def unfinished(self) -> int:
        """Batches taken and not yet finished."""
        return self._unfinished

    def put(self, message: Message, size: int) -> None:
        """Add a message of so many bytes."""
        with self._changed:
            self._held.append((message, size, time.monotonic()))
            self._bytes += size
            if len(self._held) == 1 or self._is_full():
                self._changed.notify_all()

    def take(self) -> list[Message]:
        """Wait for a batch and return it; it counts as unfinished until :meth:`finish` is called."""
        with self._changed:
            while not self._held or not self._is_full():
                left_s = self._held[0][2] + self._wait_s - time.monotonic() if self._held else None
                if left_s is not None and left_s <= 0:
                    break
                self._changed.wait(left_s)
            batch: list[Message] = []
            taken = 0
            while self._held and len(batch) < self._most and taken < self._most_bytes:
                message, size, _ = self._held.popleft()
                batch.append(message)
                taken += size
            self._bytes -= taken
            self._unfinished += 1
            return batch

    def finish(self) -> None:
        """Say that a batch is done with, whatever became of it."""
        with self._changed:
            self._unfinished -= 1

    def clear(self) -> None:
        """Forget what waits."""
        with self._changed:
            self._held.clear()
            self._bytes = 0

    def _is_full(self) -> bool:
        return len(self._held) >= self._most or self._bytes >= self._most_bytes
