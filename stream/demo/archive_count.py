"""Counts of the archived rows of one audit topic, from the commit entries of the archive."""

from __future__ import annotations

from stream.archive.log import commitlog
from stream.archive.objects import Store


class ArchiveCount:
    """The rows archived so far. Each commit entry is read once."""

    def __init__(self, store: Store, audit_topic: str) -> None:
        self._store = store
        self._prefix = f"{commitlog.COMMITS}{audit_topic}/"
        self._seen: set[str] = set()
        self.rows = 0
        self.repeats = 0
        self.objects: list[str] = []

    def refresh(self) -> int:
        """Read the new commit entries and return the number of rows in all entries."""
        for info in self._store.list(self._prefix):
            if info.key in self._seen:
                continue
            entry = commitlog.decode(self._store.get(info.key))
            self._seen.add(info.key)
            self.rows += entry.rows
            self.repeats += entry.repeats
            self.objects += [ref.key for ref in entry.objects]
        return self.rows
