"""Erasure: every row of one user taken out of both tiers, but for what is held.

Each object that holds such rows is written again without them. The chain says that so many rows were erased, when, by
whom and under which case, and proves that all other rows are the same; it does not say whose they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream.archive.aging import compact
from stream.archive.aging.stock import Stock, Warehouse
from stream.archive.log.commitlog import ObjectRef
from stream.archive.log.names import ObjectName, Place
from stream.archive.objects import Store
from stream.archive.reading import reader
from stream.errors import ConfigurationError

_USER = re.compile(r"[0-9a-f]{16}")
_COLUMN: Final = "user_id_hash"


@dataclass(frozen=True, slots=True)
class Affected:
    """An object that holds rows of the user, and how many; ``held``: a legal hold keeps them."""

    place: Place
    name: ObjectName
    ref: ObjectRef
    rows: int
    held: bool


def require_user(user: str) -> str:
    """Return a user's hash if it is one.

    Raises:
        ConfigurationError: it is not.

    """
    if _USER.fullmatch(user) is None:
        raise ConfigurationError(f"user {user!r}: expected a user_id_hash, 16 hexadecimal digits in lower case")
    return user


def require_case(case: str, user: str) -> str:
    """Return the case's name if it does not give away whose it is: it is kept for ever.

    Raises:
        ConfigurationError: it holds the user's hash.

    """
    if user in case.lower():
        raise ConfigurationError(
            "--case is kept for ever; it must not hold the user's hash: name a file number instead"
        )
    return case


def affected(warehouse: Warehouse, stock: Stock, user: str) -> list[Affected]:
    """Find the objects of a place that hold rows of a user; reads the row groups that can, one column of them."""
    held = warehouse.holds()
    keeps = held.whole(stock.place) or user in held.users(stock.place)
    found: list[Affected] = []
    for name, ref in stock.live:
        rows = rows_of_user(warehouse.store, ref, user)
        if rows:
            found.append(Affected(stock.place, name, ref, rows, keeps))
    return found


def erase(warehouse: Warehouse, stock: Stock, user: str, *, case: str) -> Iterator[Affected]:
    """Erase a user's rows at a place, unless they are held, and tell each object, once that is recorded.

    What changes removed is deleted at once, whatever reader may have listed it, and whoever removed it.

    Raises:
        DamagedObject: an object is not what the archive states; those told before are done.
        Contended, ArchiveChanged: another task was first; run again.
        ArchiveError: the store does not answer.

    """
    for each in affected(warehouse, stock, user):
        # Looked at again before each change: a hold made a moment ago counts.
        held = warehouse.holds()
        if held.whole(stock.place) or user in held.users(stock.place):
            yield replace(each, held=True)
            continue
        table = compact.table_of(each.ref, warehouse.get(each.ref))
        keep = ~compact.rows_of(frozenset([user]), table)
        _, stock = warehouse.withdraw(stock, each.name, each.ref, table, keep, "erased", held, case=case)
        yield replace(each, held=False)
    warehouse.clear(stock, 0)


def rows_of_user(store: Store, ref: ObjectRef, user: str) -> int:
    """Count a user's rows in an object; only row groups whose minimum and maximum allow for them are read."""
    wanted = bytes.fromhex(user)
    with reader.opened(store, ref) as file:
        parquet = pq.ParquetFile(file)
        place = parquet.schema.names.index(_COLUMN)
        groups: list[int] = []
        for number in range(parquet.metadata.num_row_groups):
            statistics = parquet.metadata.row_group(number).column(place).statistics
            if statistics is None or not statistics.has_min_max or statistics.min <= wanted <= statistics.max:
                groups.append(number)
        if not groups:
            return 0
        column = parquet.read_row_groups(groups, columns=[_COLUMN])[_COLUMN]
        return int(pc.sum(pc.equal(column, wanted)).as_py() or 0)
