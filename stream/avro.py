"""Avro's primitives, read from arrays of bytes: what decoders of whole batches are compiled from.

Strict: what is not exactly as Avro 1.12 has it ("Binary Encoding") ends at BAD, and the codec, which can say what is
wrong, has the word.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from models.compiled import compiled

BAD: Final = -1
"""A place that no message has. Whatever is read from there is nothing and ends there, so it need be checked once."""


@compiled
def read_long(data: Any, at: int, end: int) -> Any:
    """Read a zigzag varint: the value, and where it ends."""
    value = np.uint64(0)
    if at == BAD:
        return 0, BAD
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = np.uint64(data[at])
        at += 1
        if shift == 63 and byte > np.uint64(1):
            break  # more than 64 bits
        value |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        if byte < np.uint64(0x80):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
    return 0, BAD


@compiled
def read_int(data: Any, at: int, end: int, low: int, high: int) -> Any:
    """Read a number of ``[low, high)``: it, and where it ends."""
    value, at = read_long(data, at, end)
    if value < low or value >= high:
        return 0, BAD
    return value, at


@compiled
def read_float_bits(data: Any, at: int, end: int) -> Any:
    """Read a float: its bits as int32, and where it ends."""
    if at == BAD or at + 4 > end:
        return 0, BAD
    bits = (
        np.uint32(data[at])
        | np.uint32(data[at + 1]) << np.uint32(8)
        | np.uint32(data[at + 2]) << np.uint32(16)
        | np.uint32(data[at + 3]) << np.uint32(24)
    )
    return np.int32(bits), at + 4


@compiled
def read_fixed(data: Any, at: int, end: int, out: Any) -> Any:
    """Copy as many bytes as ``out`` has; return where they end."""
    width = out.shape[0]
    if at == BAD or at + width > end:
        return BAD
    out[:] = data[at : at + width]
    return at + width


@compiled
def read_string(data: Any, at: int, end: int, place: Any) -> Any:
    """Note where a string begins and its length; return where it ends."""
    length, at = read_long(data, at, end)
    if at == BAD or length < 0 or length > end - at:
        return BAD
    place[0], place[1] = at, length
    return at + length


@compiled
def read_block(data: Any, at: int, end: int, smallest: int) -> Any:
    """How many items the next block of an array has (0: it is the last), and where they begin."""
    count, at = read_long(data, at, end)
    if count < 0:
        count = -count
        _, at = read_long(data, at, end)  # the block's length in bytes, for readers that skip it
    # The first comparison is of the one number whose opposite is itself.
    if at == BAD or count < 0 or count > (end - at) // smallest:
        return 0, BAD
    return count, at
