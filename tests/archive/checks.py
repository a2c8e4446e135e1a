"""What must hold of an archive whatever happened to its writers."""

from __future__ import annotations

import time
from collections.abc import Callable

from stream.archive.log import commitlog
from stream.archive.objects import Store
from stream.archive.proof.facts import facts_of, rows_by_user
from stream.archive.proof.findings import Verdict
from stream.archive.proof.verify import verify
from stream.archive.reading import reader

PATIENCE_S = 90.0


def verdict_of(store: Store, now_ms: int | None = None, age_s: float = 0.0) -> Verdict:
    """The verifier's word, rows included; every object is ``age_s`` old."""
    stored = {info.key: age_s for info in store.list("") if not info.key.startswith(commitlog.COMMITS)}
    holds, changes = list(reader.raw_holds(store)), list(reader.raw_changes(store))
    look = facts_of(store, deep=True)
    count = rows_by_user(store)
    return verify(
        reader.raw_entries(store), look, stored, changes=changes, holds=holds, now_ms=now_ms, count_rows=count
    )


def archived_items(store: Store) -> list[tuple[int, int, str]]:
    """Every archived (source partition, source offset, item), sorted, repeats included."""
    columns = ["source_partition", "source_offset", "item_id"]
    table = reader.rows(store, reader.objects(store), columns).read_all()
    return sorted(zip(*(table[column].to_pylist() for column in columns), strict=True))


def items_of(partition: int, source_offsets: range | list[int], items: int = 2) -> list[tuple[int, int, str]]:
    """What :func:`archived_items` gives for the records of :func:`tests.archive.slates_of.audit`."""
    return [(partition, offset, f"item-{offset}-{number}") for offset in source_offsets for number in range(items)]


class Watch:
    """Counts what the entries say is archived, reading each entry once: cheap enough to ask over and over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[str, int] = {}

    def rows(self) -> int:
        """Rows archived so far."""
        for info in self._store.list(commitlog.COMMITS):
            if info.key not in self._rows:
                self._rows[info.key] = commitlog.decode(self._store.get(info.key)).rows
        return sum(self._rows.values())

    def has(self, rows: int) -> bool:
        """Wait until so many rows are archived; False if they never are."""
        return eventually(lambda: self.rows() >= rows)


def eventually(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Wait until something holds; False if it never does."""
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up:
        if holds():
            return True
        time.sleep(0.1)
    return holds()
