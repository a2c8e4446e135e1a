"""A digest of rows that depends neither on their order nor on how they are stored. Pure.

The rows are sorted by their identity: source partition and offset, position, then item and source topic. For each
column the SHA-256 of its name and its values in this order is computed. Numbers and fixed-size bytes are hashed as they
are in memory; strings and lists as their lengths, then their content; structs field by field; nulls as a bit map. The
digest is the SHA-256 over the hashes of the columns, in the order of their names. A column that has only nulls is left
out, so rows that were archived before a column existed have the same digest with the column and without it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_IDENTITY: Final = ("source_partition", "source_offset", "position")


def content_digest(table: pa.Table) -> str:
    """Return the digest of rows, a table with the columns of a segment: SHA-256, hexadecimal."""
    order = pa.array(_by_identity(table))
    total = hashlib.sha256(f"{table.num_rows} rows".encode())
    for name in sorted(table.schema.names):
        column = table[name]
        if column.null_count == len(column):
            continue
        # One column at a time: a sorted copy of the table would take its memory a second time.
        values = column.combine_chunks().take(order)
        hashed = hashlib.sha256(name.encode() + b"\0")
        _hash(values, hashed)
        total.update(hashed.digest())
    return total.hexdigest()


def _by_identity(table: pa.Table) -> npt.NDArray[np.int64]:
    partition, offset, position = (table[name].to_numpy() for name in _IDENTITY)
    order = np.lexsort((position, offset, partition))
    same = np.ones(max(len(order) - 1, 0), np.bool_)
    for values in (partition, offset, position):
        ordered = values[order]
        same &= ordered[1:] == ordered[:-1]
    if same.any():
        # Two items at one position, or two topics of one name. This is rare, and sorting strings is slow.
        strings = [table[name] for name in ("item_id", "source_topic_id") if name in table.schema.names]
        order = np.lexsort((*map(_ranks, strings), position, offset, partition))
    return order


def _ranks(strings: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    coded = pc.fill_null(strings, "").combine_chunks().dictionary_encode()
    return np.asarray(pc.rank(coded.dictionary).to_numpy()[coded.indices.to_numpy()])


def _hash(values: pa.Array, into: Any) -> None:
    """Feed the values of an array to a hash. Equal values give equal bytes, also from a slice of a larger array."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    into.update(f"{len(values)} values\0".encode())
    if values.null_count:
        into.update(np.packbits(values.is_null().to_numpy(zero_copy_only=False)))
        values = values.drop_null()
    kind = values.type
    if pa.types.is_list(kind):
        into.update(np.diff(_edges(values)))
        _hash(values.flatten(), into)
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            _hash(values.field(index), into)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        edges = _edges(values)
        into.update(np.diff(edges))
        _feed(values.buffers()[2], edges[0], edges[-1], into)
    else:
        width = kind.bit_width // 8
        _feed(values.buffers()[1], values.offset * width, (values.offset + len(values)) * width, into)


def _feed(buffer: pa.Buffer | None, first: int, following: int, into: Any) -> None:
    if buffer is not None and following > first:
        into.update(memoryview(buffer)[first:following])


def _edges(values: pa.Array) -> npt.NDArray[np.int32]:
    if not len(values):
        return np.zeros(1, np.int32)
    return np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
