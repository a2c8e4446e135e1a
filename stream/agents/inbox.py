"""The inbox of messages that were read and not yet answered: the event loop puts, the answering thread takes batches.

The thread waits a moment after the first message, so that a batch is worth its fixed cost. While the thread answers a
batch, the next one gathers, so the size of batches follows the load.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

Message = TypeVar("Message")


class Inbox(Generic[Message]):
    """Messages in the order of arrival, and the number of batches that are taken and not finished.

    A batch holds at most ``most`` messages, and ends with the message that makes it ``most_bytes`` or more, since a
    slate of 500 items is more work than a slate of 20. A batch is taken when it is full, or ``wait_s`` seconds after
    its first message arrived.
    """

    def __init__(self, most: int, most_bytes: int, wait_s: float) -> None:
        self._most, self._most_bytes, self._wait_s = most, most_bytes, wait_s
        self._held: deque[tuple[Message, int, float]] = deque()
        self._bytes = 0
        self._unfinished = 0
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Return the number of messages that wait."""
        return len(self._held)

    @property
    def unfinished(self) -> int:
        """The number of batches that are taken and not finished."""
        return self._unfinished

    def put(self, message: Message, size: int) -> None:
        """Add a message of so many bytes."""
        with self._changed:
            self._held.append((message, size, time.monotonic()))
            self._bytes += size
            if len(self._held) == 1 or self._is_full():
                self._changed.notify_all()

    def take(self) -> list[Message]:
        """Wait for a batch and return it. The batch is unfinished until :meth:`finish` is called."""
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
        """Note that a batch is finished, with or without success."""
        with self._changed:
            self._unfinished -= 1

    def clear(self) -> None:
        """Drop the messages that wait."""
        with self._changed:
            self._held.clear()
            self._bytes = 0

    def _is_full(self) -> bool:
        return len(self._held) >= self._most or self._bytes >= self._most_bytes
