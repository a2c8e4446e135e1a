"""The partition in which Kafka puts a user, and which users an object can therefore hold. Pure.

Impressions are keyed by ``user_id_hash``, and an audit record is in the partition of its impression. Kafka's default
partitioner puts a key in partition ``murmur2(key) mod N`` of N. The archive cannot know that every producer used it, or
what N was. But compaction reads all rows of an object and can check: if ``murmur2(user) - partition`` is a multiple of
some N for every user of the object, then a user for whom it is not has no row there. The largest such N, the *modulus*,
is the greatest common divisor of these differences. For a topic that grew from 16 partitions to 24 it is 8, and still
valid.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

K_ANONYMOUS: Final = 50
"""Users that an object must have for a modulus to be stated, at least. With fewer, the divisor would disclose something
about them rather than about the topic, and a change is kept after they are erased."""

_SEED: Final = np.uint32(0x9747B28C)
_MIX: Final = np.uint32(0x5BD1E995)
_POSITIVE: Final = np.uint32(0x7FFFFFFF)
_HEX: Final = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)


def murmur2(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Hash keys of one length like Kafka's Java client (murmur2, 32 bits): uint8 [n, length] to uint32 [n]."""
    count, length = keys.shape
    aligned = length - length % 4
    found = np.full(count, _SEED ^ np.uint32(length), np.uint32)
    for word in np.ascontiguousarray(keys[:, :aligned]).view("<u4").T:
        mixed = word * _MIX
        mixed ^= mixed >> 24
        found = found * _MIX ^ mixed * _MIX
    for index in reversed(range(aligned, length)):
        found ^= keys[:, index].astype(np.uint32) << 8 * (index - aligned)
    if aligned < length:
        found *= _MIX
    found ^= found >> 13
    found *= _MIX
    found ^= found >> 15
    return found


def numbers(users: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the hash whose remainder modulo the number of partitions is the partition: uint8 [n, 8] to int64 [n]."""
    return (murmur2(_HEX[users].reshape(len(users), 16)) & _POSITIVE).astype(np.int64)


def modulus(users: pa.ChunkedArray, partition: int) -> int | None:
    """Return the modulus of a column of users in a partition.

    None if it is 1, which excludes nobody, or if there are fewer than ``K_ANONYMOUS`` users.
    """
    distinct = pc.unique(users)
    if len(distinct) < K_ANONYMOUS:
        return None
    divisor = common_divisor(distinct, partition)
    return divisor if divisor > 1 else None


def common_divisor(users: pa.ChunkedArray | pa.Array, partition: int) -> int:
    """Return the greatest common divisor of ``numbers(users) - partition``; 0 if all differences are 0."""
    distinct = pc.unique(users)
    hashed = np.frombuffer(b"".join(distinct.to_pylist()), np.uint8).reshape(-1, 8)
    return int(np.gcd.reduce(numbers(hashed) - partition)) if len(hashed) else 0


def can_hold(user: str, partition: int, modulus: int | None) -> bool:
    """Say whether an object of a partition with this modulus can have rows of a user (16 hexadecimal digits)."""
    return modulus is None or (_number(user) - partition) % modulus == 0


@lru_cache(maxsize=1)
def _number(user: str) -> int:
    return int(numbers(np.frombuffer(bytes.fromhex(user), np.uint8).reshape(1, 8))[0])
