"""Which partition a user is in: Kafka's own arithmetic, and what an object's rows say of it whoever wrote them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from confluent_kafka import Message, Producer
from hypothesis import given
from hypothesis import strategies as st

from stream.archive.rows.partitioner import K_ANONYMOUS, can_hold, common_divisor, modulus, murmur2, numbers
from stream.kafka.embedded import PARTITIONS, EmbeddedBroker

users = st.binary(min_size=8, max_size=8)


def column(*values: bytes) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.binary(8))])


def drawn(count: int, seed: int = 1) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 8), dtype=np.uint8)


def of(rows: npt.NDArray[np.uint8]) -> pa.ChunkedArray:
    return column(*(row.tobytes() for row in rows))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_the_java_client(key: bytes, expected: int) -> None:
    """The vectors of Kafka's own test, as Java's signed numbers."""
    twice = np.frombuffer(key * 2, np.uint8).reshape(2, len(key))
    assert murmur2(twice).view(np.int32).tolist() == [expected, expected]


def by_hand(key: bytes) -> int:
    """Murmur2 of one key, as it is told: word by word, in whole numbers."""
    whole, mix, found = len(key) // 4 * 4, 0x5BD1E995, 0x9747B28C ^ len(key)
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * mix % 2**32
        found = (found * mix ^ (word ^ word >> 24) * mix) % 2**32
    if key[whole:]:
        found = (found ^ int.from_bytes(key[whole:], "little")) * mix % 2**32
    found = (found ^ found >> 13) * mix % 2**32
    return found ^ found >> 15


@given(st.integers(0, 20).flatmap(lambda length: st.lists(st.binary(min_size=length, max_size=length), min_size=1)))
def test_the_hash_of_many_keys_at_once_is_that_of_each(keys: list[bytes]) -> None:
    together = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), len(keys[0]))
    assert murmur2(together).tolist() == [by_hand(key) for key in keys]


def test_a_producer_puts_users_where_we_say() -> None:
    there: dict[str, int] = {}

    def note(error: object, message: Message) -> None:
        assert error is None
        there[message.key().decode()] = message.partition()

    hashes = drawn(200)
    with EmbeddedBroker(["impressions"]) as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "partitioner": "murmur2_random"})
        for row in hashes:
            producer.produce("impressions", b"", row.tobytes().hex().encode(), on_delivery=note)
        assert producer.flush(30) == 0
    ours = dict(zip((row.tobytes().hex() for row in hashes), (numbers(hashes) % PARTITIONS).tolist(), strict=True))
    assert there == ours
    assert set(there.values()) == set(range(PARTITIONS))


def test_the_partitions_of_a_topic_keyed_by_user_are_seen_in_the_rows() -> None:
    hashes = drawn(6_000)
    for partitions in (2, 7, 32):
        for partition in (0, partitions - 1):
            here = hashes[numbers(hashes) % partitions == partition]
            assert modulus(of(here), partition) == partitions


def test_a_topic_that_grew_leaves_what_both_numbers_share() -> None:
    hashes = drawn(6_000)
    before, after = (hashes[numbers(hashes) % partitions == 10] for partitions in (16, 24))
    assert modulus(of(np.concatenate([before, after])), 10) == math.gcd(16, 24)


def test_rows_that_are_not_keyed_by_user_say_nothing() -> None:
    assert modulus(of(drawn(500)), 3) is None


def test_too_few_users_say_nothing_that_could_lead_to_them() -> None:
    hashes = drawn(6_000)
    here = hashes[numbers(hashes) % 32 == 5]
    few = of(np.repeat(here[: K_ANONYMOUS - 1], 3, axis=0))
    assert modulus(few, 5) is None
    assert modulus(of(here[:K_ANONYMOUS]), 5) is not None


@given(st.lists(users, max_size=9), users, st.integers(0, 40), st.integers(2, 2**31))
def test_no_user_of_the_rows_is_ever_ruled_out(
    rows: list[bytes], other: bytes, partition: int, any_number: int
) -> None:
    divisor = common_divisor(column(*rows), partition)
    for stated in {divisor, math.gcd(divisor, any_number)} - {0, 1}:
        assert all(can_hold(row.hex(), partition, stated) for row in rows)
        assert can_hold(other.hex(), partition, stated) == (common_divisor(column(other), partition) % stated == 0)
    assert can_hold(other.hex(), partition, None)
