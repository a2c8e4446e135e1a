"""Objects rewritten: a day's into one, sorted by user; or one without some of its rows. Bytes in, bytes out.

Nothing is taken on trust: what is read must have the hash that the archive states, and what was written is read again
and must say the same as the rows that went in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
"""Rows of an object that is made here at most: sorted in memory, at 0.75 kB a row: 1.5 GB at most."""

Bools = npt.NDArray[np.bool_]


class DamagedObject(ArchiveError):
    """An object is not what the archive states; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A new object, its bytes, and the digest of what its rows say."""

    ref: ObjectRef
    data: bytes
    content: str


def checked(ref: ObjectRef, data: bytes) -> bytes:
    """Return an object's bytes if they are those that the archive states.

    Raises:
        DamagedObject: they are not.

    """
    found = hashlib.sha256(data).hexdigest()
    if found != ref.sha256:
        raise DamagedObject(f"{ref.key} has SHA-256 {found}, expected {ref.sha256}; run `whyrec archive verify`")
    return data


def table_of(ref: ObjectRef, data: bytes) -> pa.Table:
    """Read an object's rows, all columns.

    Raises:
        DamagedObject: other bytes or another number of rows than the archive states.

    """
    table = segment.read(checked(ref, data))
    if table.num_rows != ref.rows:
        raise DamagedObject(f"{ref.key} holds {table.num_rows} rows, expected {ref.rows}")
    return table


def groups(refs: Sequence[tuple[ObjectName, ObjectRef]]) -> list[list[ObjectRef]]:
    """Choose what is to become one object each: of one chain, in the order of the keys, at most ``MAX_ROWS`` rows.

    An object that a change made already is left alone if it is the only one of its group, or half full.
    """
    found: list[tuple[Chain, list[tuple[ObjectName, ObjectRef]]]] = []
    full = MAX_ROWS // 2
    waiting = [(name, ref) for name, ref in refs if name.number is None or ref.rows < full]
    for name, ref in sorted(waiting, key=lambda each: (each[0].chain.name, each[0].chain.partition, each[1].key)):
        rows = sum(other.rows for _, other in found[-1][1]) if found else 0
        if found and found[-1][0] == name.chain and rows + ref.rows <= MAX_ROWS:
            found[-1][1].append((name, ref))
        else:
            found.append((name.chain, [(name, ref)]))
    return [
        [ref for _, ref in group]
        for _, group in found
        if len(group) > 1 or any(name.number is None for name, _ in group)
    ]


def merged(tables: list[pa.Table], place: Place, chain: Chain, number: int) -> Rewritten:
    """Put the rows of several objects into one for the hot tier, sorted by user, then request, then position.

    ``tables`` is empty afterwards: that many rows are held only once.
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
    """Write an object's rows again in their order, only those for which ``keep`` (bool [rows]) is true.

    What it stated of its users is true of those that are left. A new statement could say something about the others.
    """
    kept = table.filter(pa.array(keep))
    content = content_digest(kept)
    data = segment.write(kept, segment.FLUSHED if name.number is None else segment.COMPACTED)
    unnamed = ObjectName(name.tier, name.place, name.chain, None, number, "")
    return _rewritten(data, kept.num_rows, unnamed, content, modulus)


def rows_of(users: frozenset[str], table: pa.Table) -> Bools:
    """Say of each row whether it is one of these users' (hashes, 16 hexadecimal characters): bool [rows]."""
    wanted = pa.array([bytes.fromhex(user) for user in sorted(users)], pa.binary(8))
    return np.asarray(pc.is_in(table["user_id_hash"], value_set=wanted).to_numpy(), np.bool_)


def _rewritten(data: bytes, rows: int, unnamed: ObjectName, content: str, modulus: int | None) -> Rewritten:
    digest = hashlib.sha256(data).hexdigest()
    name = ObjectName(unnamed.tier, unnamed.place, unnamed.chain, None, unnamed.number, digest[:16])
    if content_digest(segment.read(data)) != content:
        raise DamagedObject(f"{name.key} would not say what the rows that it was made of say; nothing was changed")
    return Rewritten(ObjectRef(name.key, digest, len(data), rows, modulus), data, content)


def _by_user(table: pa.Table) -> npt.NDArray[np.int64]:
    user = _words(table["user_id_hash"], 1)
    request = _words(table["request_id"], 2)
    keys = (table["source_offset"].to_numpy(), table["position"].to_numpy(), request[:, 1], request[:, 0], user[:, 0])
    return np.lexsort(keys)


def _words(column: pa.ChunkedArray, words: int) -> npt.NDArray[np.uint64]:
    """Return fixed-size bytes as big-endian numbers, which sort as the bytes do: uint64 [rows, words]."""
    values = column.combine_chunks()
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    whole = np.frombuffer(values.buffers()[1], ">u8").reshape(-1, words)
    return whole[values.offset : values.offset + len(values)].astype(np.uint64)
