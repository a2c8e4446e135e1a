"""In which partition Kafka puts a user, and whether the rows of an object agree. Pure.

Impressions are keyed by ``user_id_hash``, and audit records lie in the partition of their impression. Kafka's own
partitioner puts a key in partition ``murmur2(key) mod N`` of N. Nobody can promise the archive that every producer used
it, or what N was. But whoever has all rows of an object at hand can see it: if each user's number differs from the
partition's by a multiple of some N, then no user for whom that is not so has a row there. The greatest such N is the
greatest common divisor of the differences. Where a topic grew from 16 partitions to 24, that is 8, and as true.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

K_ANONYMOUS: Final = 50
"""Users that an object must hold at least. Of fewer, the divisor says something about them, not about the topic; and
what a change says is kept after they are erased."""

_SEED: Final = np.uint32(0x9747B28C)
_MIX: Final = np.uint32(0x5BD1E995)
_POSITIVE: Final = np.uint32(0x7FFFFFFF)
_HEX: Final = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)


def murmur2(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Hash keys of one length as Kafka's Java client does: uint8 [n, length] to uint32 [n]."""
    count, length = keys.shape
    whole = length - length % 4
    found = np.full(count, _SEED ^ np.uint32(length), np.uint32)
    for word in np.ascontiguousarray(keys[:, :whole]).view("<u4").T:
        mixed = word * _MIX
        mixed ^= mixed >> 24
        found = found * _MIX ^ mixed * _MIX
    for place in reversed(range(whole, length)):
        found ^= keys[:, place].astype(np.uint32) << 8 * (place - whole)
    if whole < length:
        found *= _MIX
    found ^= found >> 13
    found *= _MIX
    found ^= found >> 15
    return found


def numbers(users: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return what the partition is taken from, modulo their number: users as bytes, uint8 [n, 8], to int64 [n]."""
    return (murmur2(_HEX[users].reshape(len(users), 16)) & _POSITIVE).astype(np.int64)


def modulus(users: pa.ChunkedArray, partition: int) -> int | None:
    """Return the greatest number modulo which all users of a column are in a partition.

    None if there is none but 1, which says nothing, or if the users are fewer than ``K_ANONYMOUS``.
    """
    distinct = pc.unique(users)
    if len(distinct) < K_ANONYMOUS:
        return None
    divisor = common_divisor(distinct, partition)
    return divisor if divisor > 1 else None


def common_divisor(users: pa.ChunkedArray | pa.Array, partition: int) -> int:
    """Return the greatest common divisor of what the users' numbers differ from a partition's by; 0 if by nothing."""
    distinct = pc.unique(users)
    hashed = np.frombuffer(b"".join(distinct.to_pylist()), np.uint8).reshape(-1, 8)
    return int(np.gcd.reduce(numbers(hashed) - partition)) if len(hashed) else 0


def can_hold(user: str, partition: int, modulus: int | None) -> bool:
    """Say whether an object of a partition can hold rows of a user (16 hexadecimal digits), if its change is right."""
    return modulus is None or (_number(user) - partition) % modulus == 0


@lru_cache(maxsize=1)
def _number(user: str) -> int:
    return int(numbers(np.frombuffer(bytes.fromhex(user), np.uint8).reshape(1, 8))[0])
