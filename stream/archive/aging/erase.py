"""Erasure: all rows of one user are removed from both tiers, except held rows.

Each object with such rows is written again without them. The change log records how many rows were erased, when, by
whom and under which case, and proves that all other rows are unchanged. It does not record whose rows they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream.archive.aging import compact
from stream.archive.aging.maintenance import Inventory, Maintenance
from stream.archive.log.commitlog import ObjectRef
from stream.archive.log.holds import Holds
from stream.archive.log.names import ObjectName, Place
from stream.archive.objects import Store
from stream.archive.reading import reader
from stream.errors import ConfigurationError

_USER = re.compile(r"[0-9a-f]{16}")
_COLUMN: Final = "user_id_hash"


@dataclass(frozen=True, slots=True)
class Affected:
    """An object with rows of the user, and their number; ``held`` if a legal hold keeps them."""

    place: Place
    name: ObjectName
    ref: ObjectRef
    rows: int
    held: bool


def require_user(user: str) -> str:
    """Return ``user`` if it has the form of a user's hash.

    Raises:
        ConfigurationError: it has another form.

    """
    if _USER.fullmatch(user) is None:
        raise ConfigurationError(f"user {user!r}: expected a user_id_hash, 16 hexadecimal digits in lower case")
    return user


def require_case(case: str, user: str) -> str:
    """Return ``case`` if it does not identify the user; the archive keeps it for ever.

    Raises:
        ConfigurationError: it contains the user's hash.

    """
    if user in case.lower():
        raise ConfigurationError(
            "--case is kept for ever and must not contain the user's hash; name a file number instead"
        )
    return case


def affected(maintenance: Maintenance, inventory: Inventory, user: str) -> list[Affected]:
    """Find the objects of a place that have rows of a user. Reads one column of the row groups that can have them."""
    held = _is_held(maintenance.holds(), inventory.place, user)
    found: list[Affected] = []
    for name, ref in inventory.live:
        rows = rows_of_user(maintenance.store, ref, user)
        if rows:
            found.append(Affected(inventory.place, name, ref, rows, held))
    return found


def erase(maintenance: Maintenance, inventory: Inventory, user: str, *, case: str) -> Iterator[Affected]:
    """Erase a user's rows at a place, unless they are held; yield each object once its change is committed.

    All objects that changes removed are deleted at once, even where a reader has listed them.

    Raises:
        DamagedObject: an object differs from what the archive states; the objects yielded before are done.
        Contended, ArchiveChanged: another task committed a change first; run again.
        ArchiveError: the store does not answer.

    """
    for each in affected(maintenance, inventory, user):
        # Holds are read again before each change, so that a hold made during the erasure counts.
        known = maintenance.holds()
        if _is_held(known, inventory.place, user):
            yield replace(each, held=True)
            continue
        table = compact.table_of(each.ref, maintenance.read(each.ref))
        keep = ~compact.rows_of(frozenset([user]), table)
        _, inventory = maintenance.remove_rows(inventory, each.name, each.ref, table, keep, "erased", known, case=case)
        yield replace(each, held=False)
    maintenance.delete_removed(inventory, 0)


def rows_of_user(store: Store, ref: ObjectRef, user: str) -> int:
    """Count a user's rows in an object. Only row groups whose minimum and maximum admit the user are read."""
    wanted = bytes.fromhex(user)
    with reader.opened(store, ref) as file:
        parquet = pq.ParquetFile(file)
        index = parquet.schema.names.index(_COLUMN)
        groups: list[int] = []
        for number in range(parquet.metadata.num_row_groups):
            statistics = parquet.metadata.row_group(number).column(index).statistics
            if statistics is None or not statistics.has_min_max or statistics.min <= wanted <= statistics.max:
                groups.append(number)
        if not groups:
            return 0
        column = parquet.read_row_groups(groups, columns=[_COLUMN])[_COLUMN]
        return int(pc.sum(pc.equal(column, wanted)).as_py() or 0)


def _is_held(known: Holds, place: Place, user: str) -> bool:
    return known.hold_everything(place) or user in known.held_users(place)
