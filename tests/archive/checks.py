"""What must hold of an archive whatever happened to its writers."""

from __future__ import annotations

from stream.archive import commitlog, reader
from stream.archive.objects import Store
from stream.archive.verify import Verdict, verify


def verdict_of(store: Store) -> Verdict:
    """The verifier's word, rows included."""
    stored = {info.key: 0.0 for info in store.list("") if not info.key.startswith(commitlog.COMMITS)}
    return verify(reader.raw_entries(store), reader.facts_of(store, deep=True), stored)


def archived_items(store: Store) -> list[tuple[int, int, str]]:
    """Every archived (source partition, source offset, item), sorted, repeats included."""
    columns = ["source_partition", "source_offset", "item_id"]
    table = reader.rows(store, reader.objects(store), columns).read_all()
    return sorted(zip(*(table[column].to_pylist() for column in columns), strict=True))


def items_of(partition: int, source_offsets: range | list[int], items: int = 2) -> list[tuple[int, int, str]]:
    """What :func:`archived_items` gives for the records of :func:`tests.archive.slates_of.audit`."""
    return [(partition, offset, f"item-{offset}-{number}") for offset in source_offsets for number in range(items)]
