"""Rewriting objects: compaction merges the objects of a day and sorts them by user; removal drops rows of one object.

Functions of this file take bytes and return bytes. Each object that is read must have the hash that the archive states.
Each object that is written is decoded again, and its rows must have the digest of the rows that were to be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stream.archive.log.commitlog import Chain, ObjectRef
from stream.archive.log.names import ObjectName, Place
from stream.archive.rows import partitioner, segment
from stream.archive.rows.content import content_digest
from stream.archive.rows.slates import SCHEMA
from stream.errors import ArchiveError

MAX_ROWS: Final = 2_000_000
"""Rows of a compacted object, at most. They are sorted in memory, where a row takes 0.75 kB: 1.5 GB at most."""

Bools = npt.NDArray[np.bool_]


class DamagedObject(ArchiveError):
    """An object is missing or differs from what the archive states about it. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A new object, its bytes, and the digest of its rows (:mod:`stream.archive.rows.content`)."""

    ref: ObjectRef
    data: bytes
    content: str


def checked(ref: ObjectRef, data: bytes) -> bytes:
    """Return the bytes of an object after comparing their SHA-256 with what the archive states.

    Raises:
        DamagedObject: the hashes differ.

    """
    found = hashlib.sha256(data).hexdigest()
    if found != ref.sha256:
        raise DamagedObject(f"{ref.key} has SHA-256 {found}, expected {ref.sha256}; run `whyrec archive verify`")
    return data


def table_of(ref: ObjectRef, data: bytes) -> pa.Table:
    """Read all columns of all rows of an object.

    Raises:
        DamagedObject: the bytes or the number of rows differ from what the archive states.

    """
    table = segment.read(checked(ref, data))
    if table.num_rows != ref.rows:
        raise DamagedObject(f"{ref.key} holds {table.num_rows} rows, expected {ref.rows}")
    return table


def groups(
    refs: Sequence[tuple[ObjectName, ObjectRef]], late: Collection[str] = (), *, max_rows: int = MAX_ROWS
) -> list[list[ObjectRef]]:
    """Choose the groups of objects to merge: each of one chain, in the order of the keys, at most ``max_rows`` rows.

    ``late`` are the keys of objects that were archived late. They are not merged with objects that were archived in
    time: a merged object expires with its youngest row, and would keep the other rows for too long.

    A compacted object stays as it is if it is the only one of its group, or has half of ``max_rows`` rows or more.
    """
    found: list[tuple[tuple[Chain, bool], list[tuple[ObjectName, ObjectRef]]]] = []
    candidates = [(name, ref) for name, ref in refs if name.number is None or ref.rows < max_rows // 2]

    def order(each: tuple[ObjectName, ObjectRef]) -> tuple[str, int, bool, str]:
        name, ref = each
        return name.chain.name, name.chain.partition, ref.key in late, ref.key

    for name, ref in sorted(candidates, key=order):
        kind = name.chain, ref.key in late
        rows = sum(other.rows for _, other in found[-1][1]) if found else 0
        if found and found[-1][0] == kind and rows + ref.rows <= max_rows:
            found[-1][1].append((name, ref))
        else:
            found.append((kind, [(name, ref)]))
    return [
        [ref for _, ref in group]
        for _, group in found
        if len(group) > 1 or any(name.number is None for name, _ in group)
    ]


def merged(tables: list[pa.Table], place: Place, chain: Chain, number: int) -> Rewritten:
    """Merge the rows of several objects into one for the hot tier, sorted by user, then request, then position.

    ``number`` is that of the change that will name the object. ``tables`` is emptied, so that the rows are in memory
    only once.
    """
    table = pa.concat_tables(tables)
    tables.clear()
    rows, content = table.num_rows, content_digest(table)
    modulus = partitioner.modulus(table["user_id_hash"], chain.partition)
    order = pa.array(_by_user(table))
    columns = dict(zip(table.schema.names, table.columns, strict=True))
    del table
    for name in list(columns):
        columns[name] = columns[name].combine_chunks().take(order)
    data = segment.write(pa.table(columns, schema=SCHEMA), segment.COMPACTED)
    columns.clear()
    return _rewritten(data, rows, ObjectName("", place, chain, None, number, ""), content, modulus)


def without(table: pa.Table, keep: Bools, name: ObjectName, number: int, modulus: int | None) -> Rewritten:
    """Write an object again with only the rows for which ``keep`` (bool [rows]) is true, in their order.

    ``modulus`` is the one that the object stated; it holds for the remaining users too. A modulus computed anew could
    disclose something about the users that were removed.
    """
    kept = table.filter(pa.array(keep))
    content = content_digest(kept)
    data = segment.write(kept, segment.FLUSHED if name.number is None else segment.COMPACTED)
    unnamed = ObjectName(name.tier, name.place, name.chain, None, number, "")
    return _rewritten(data, kept.num_rows, unnamed, content, modulus)


def rows_of(users: frozenset[str], table: pa.Table) -> Bools:
    """Say for each row whether it belongs to one of the users (hashes of 16 hexadecimal digits): bool [rows]."""
    wanted = pa.array([bytes.fromhex(user) for user in sorted(users)], pa.binary(8))
    return np.asarray(pc.is_in(table["user_id_hash"], value_set=wanted).to_numpy(), np.bool_)


def _rewritten(data: bytes, rows: int, unnamed: ObjectName, content: str, modulus: int | None) -> Rewritten:
    digest = hashlib.sha256(data).hexdigest()
    name = ObjectName(unnamed.tier, unnamed.place, unnamed.chain, None, unnamed.number, digest[:16])
    if content_digest(segment.read(data)) != content:
        raise DamagedObject(f"{name.key} was encoded with other rows than its sources have; nothing was changed")
    return Rewritten(ObjectRef(name.key, digest, len(data), rows, modulus), data, content)


def _by_user(table: pa.Table) -> npt.NDArray[np.int64]:
    user = _words(table["user_id_hash"], 1)
    request = _words(table["request_id"], 2)
    keys = (table["source_offset"].to_numpy(), table["position"].to_numpy(), request[:, 1], request[:, 0], user[:, 0])
    return np.lexsort(keys)


def _words(column: pa.ChunkedArray, words: int) -> npt.NDArray[np.uint64]:
    """Return fixed-size bytes as big-endian integers, which sort like the bytes: uint64 [rows, words]."""
    values = column.combine_chunks()
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    integers = np.frombuffer(values.buffers()[1], ">u8").reshape(-1, words)
    return integers[values.offset : values.offset + len(values)].astype(np.uint64)
