"""The sink between a topic and an archive: what is accepted, when it is written, what is waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from schemas.codec import Codec
from stream.archive.log.commitlog import Chain, Gap, Origin
from stream.archive.objects import MemoryStore, Store, StoreUnavailable
from stream.archive.reading import reader
from stream.archive.rows.slates import Slates
from stream.archive.writing.decode import Decoder, Record, Unreadable
from stream.archive.writing.sink import ArchiveAhead, Jump, Limits, Sink
from stream.archive.writing.writer import Committed, ForeignChain
from stream.errors import ProducerBroken
from tests.archive.checks import archived_items, items_of, verdict_of
from tests.archive.faulty import FaultyStore
from tests.archive.slates_of import audit

TOPIC = "explanation-audit"
CODEC = Codec()


def records(offsets: Sequence[int], partition: int = 0) -> list[Record]:
    """Audit records whose source offset is their own."""
    made = []
    for offset in offsets:
        encoded = CODEC.encode("audit", audit(offset, partition=partition), TOPIC)
        made.append(Record(partition, offset, None, encoded.value, encoded.headers))
    return made


class Harness:
    """A sink with a clock of its own, and what it told the outside."""

    def __init__(
        self,
        store: Store,
        limits: Limits | None = None,
        origin: Origin | None = None,
        name: str = "sink",
        *,
        decode: Callable[[Sequence[Record]], tuple[Slates, list[Unreadable]]] | None = None,
        dead_letter: Callable[[Sequence[Unreadable]], None] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.now = 0.0
        self.dead_letters: list[Unreadable] = []
        self.told: list[tuple[int, int]] = []
        self.failures: list[BaseException] = []
        self.sink = Sink(
            store,
            TOPIC,
            writer=name,
            decode=decode or Decoder(CODEC).decode,
            dead_letter=dead_letter or self.dead_letters.extend,
            committed=self._note,
            failed=self.failures.append,
            limits=limits or Limits(),
            origin=origin,
            clock=clock or (lambda: self.now),
        )

    def _note(self, partition: int, following: int, _done: Committed) -> None:
        self.told.append((partition, following))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 (what is waited for happens in threads)
            await asyncio.sleep(0.005)


def test_rows_are_written_when_they_are_old() -> None:
    async def story() -> None:
        store = MemoryStore()
        at = Harness(store, Limits(age_s=5))
        assert await at.sink.open(0, 0, 10) == 0
        assert await at.sink.take(records(range(3))) == []
        at.now = 4.9
        await at.sink.take(records(range(3, 5)))
        await asyncio.sleep(0.05)
        assert archived_items(store) == []
        at.now = 5.0
        at.sink.flush_due()
        await until(lambda: at.told == [(0, 5)])
        assert archived_items(store) == items_of(0, range(5))

    asyncio.run(story())


def test_rows_are_written_when_they_are_many() -> None:
    async def story() -> None:
        store = MemoryStore()
        at = Harness(store, Limits(rows=10))
        await at.sink.open(0, 0, 10)
        await at.sink.take(records(range(4)))
        assert at.told == []
        await at.sink.take(records(range(4, 6)))
        await until(lambda: at.told == [(0, 6)])

    asyncio.run(story())


def test_when_bytes_are_many_the_fullest_partition_goes_first() -> None:
    async def story() -> None:
        store = MemoryStore()
        at = Harness(store, Limits(bytes=8_000))
        for partition in (0, 1):
            await at.sink.open(partition, 0, 100)
        await at.sink.take(records(range(3)))
        await at.sink.take(records(range(40), partition=1))
        await until(lambda: at.told != [])
        assert at.told == [(1, 40)]

    asyncio.run(story())


def test_taking_waits_while_too_much_is_on_its_way_to_a_store_that_hangs() -> None:
    class Hanging(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.release = threading.Event()

        def put_if_absent(self, key: str, data: bytes) -> None:
            self.release.wait(20)
            super().put_if_absent(key, data)

    async def story() -> None:
        store = Hanging()
        at = Harness(store, Limits(bytes=2_000))
        await at.sink.open(0, 0, 1000)
        taken = 0

        async def feed() -> None:
            nonlocal taken
            for first in range(0, 400, 20):
                await at.sink.take(records(range(first, first + 20)))
                taken = first + 20

        feeding = asyncio.create_task(feed())
        await asyncio.sleep(0.5)
        assert taken < 400
        assert not feeding.done()
        store.release.set()
        await feeding
        await at.sink.drain(10)
        assert archived_items(store) == items_of(0, range(400))

    asyncio.run(story())


def test_a_write_given_up_before_it_began_takes_no_room() -> None:
    async def story() -> None:
        at = Harness(MemoryStore(), Limits(rows=4, bytes=1_000))
        for _ in range(20):
            await at.sink.open(0, 0, 100)
            await at.sink.take(records(range(1)))
            at.now += 1_000.0
            at.sink.flush_due()
            at.sink.close(0)
        await at.sink.open(0, 0, 100)
        async with asyncio.timeout(10):  # if they took room, this would wait for it in vain
            for first in range(0, 60, 20):
                await at.sink.take(records(range(first, first + 20)))
        await at.sink.drain(10)

    asyncio.run(story())


def test_draining_writes_everything_and_lets_go() -> None:
    async def story() -> None:
        store = MemoryStore()
        at = Harness(store)
        for partition in (0, 1):
            await at.sink.open(partition, 0, 10)
            await at.sink.take(records(range(5), partition))
        await at.sink.drain(10)
        assert sorted(at.told) == [(0, 5), (1, 5)]
        assert archived_items(store) == items_of(0, range(5)) + items_of(1, range(5))
        await at.sink.take(records(range(5, 7)))
        await at.sink.drain(10)
        assert len(archived_items(store)) == 20

    asyncio.run(story())


def test_draining_gives_up_in_time_and_the_next_owner_has_it_all() -> None:
    async def story() -> None:
        store = MemoryStore()
        away = Harness(Away(store), clock=asyncio.get_running_loop().time)
        await away.sink.open(0, 0, 10)
        await away.sink.take(records(range(5)))
        await away.sink.drain(0.2)
        assert away.told == []
        heir = Harness(store, name="heir")
        assert await heir.sink.open(0, 0, 10) == 0
        await heir.sink.take(records(range(7)))
        await heir.sink.drain(10)
        assert archived_items(store) == items_of(0, range(7))

    asyncio.run(story())


class Away(MemoryStore):
    """A store that takes nothing any more."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__()
        self._objects = inner._objects

    def put_if_absent(self, key: str, _data: bytes) -> None:
        raise StoreUnavailable(f"away, and {key} too")


def test_a_write_that_fails_is_tried_again_and_what_came_meanwhile_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.archive.writing.sink._FIRST_PAUSE_S", 0.01)

    async def story() -> None:
        store = MemoryStore()
        at = Harness(FaultyStore(store, 0, "after", dies=False), Limits(rows=4))
        await at.sink.open(0, 0, 10)
        await at.sink.take(records(range(2)))
        await at.sink.take(records(range(2, 5)))
        await at.sink.drain(10)
        assert archived_items(store) == items_of(0, range(5))
        assert verdict_of(store).consistent

    asyncio.run(story())


def test_records_read_twice_are_taken_once() -> None:
    async def story() -> None:
        store = MemoryStore()
        at = Harness(store)
        await at.sink.open(0, 0, 10)
        await at.sink.take(records([0, 1, 2]))
        assert await at.sink.take(records([1, 2, 3])) == []
        await at.sink.drain(10)
        assert archived_items(store) == items_of(0, range(4))
        assert next(reader.entries(store)).repeats == 0

    asyncio.run(story())


def test_a_jump_sends_the_reader_back_and_a_gap_is_recorded_only_if_the_topic_was_asked() -> None:
    async def story() -> None:
        store = MemoryStore()
        at = Harness(store)
        await at.sink.open(0, 0, 10)
        assert await at.sink.take(records([0, 1, 5, 6])) == [Jump(0, 2, 5)]
        # What was read before the way back was taken still comes in.
        assert await at.sink.take(records([7, 8])) == [Jump(0, 2, 7)]
        assert at.sink.expected(0) == 2
        # This time the records were only lost on the way...
        assert await at.sink.resume(0, 0, 10, 2) == 2
        assert await at.sink.take(records([2, 3])) == []
        assert await at.sink.take(records([6])) == [Jump(0, 4, 6)]
        # ... and this time the broker has none.
        assert await at.sink.resume(0, 0, 10, 6) == 6
        assert await at.sink.take(records([6, 7])) == []
        await at.sink.drain(10)
        assert archived_items(store) == items_of(0, [0, 1, 2, 3, 6, 7])
        assert [entry.gaps for entry in reader.entries(store)] == [(Gap(4, 6, "absent"),)]
        assert verdict_of(store).consistent
        assert at.sink.expected(0) is None

    asyncio.run(story())


def test_what_retention_took_before_the_sink_came_is_recorded() -> None:
    async def story() -> None:
        store = MemoryStore()
        at = Harness(store)
        assert await at.sink.open(0, 4, 10) == 4
        await at.sink.drain(10)  # nothing came, and still it is on record
        assert [entry.gaps for entry in reader.entries(store)] == [(Gap(0, 4, "expired"),)]
        assert await at.sink.open(0, 4, 10) == 4
        await at.sink.take(records([4, 5]))
        # Retention goes on while a partition is paused: what is buffered stays.
        assert await at.sink.resume(0, 8, 10) == 8
        await at.sink.take(records([8, 9]))
        await at.sink.drain(10)
        assert archived_items(store) == items_of(0, [4, 5, 8, 9])
        assert [gap for entry in reader.entries(store) for gap in entry.gaps] == [
            Gap(0, 4, "expired"),
            Gap(6, 8, "expired"),
        ]

    asyncio.run(story())


def test_what_cannot_be_read_is_buried_and_counted() -> None:
    async def story() -> None:
        store = MemoryStore()
        at = Harness(store)
        await at.sink.open(0, 0, 10)
        bad = Record(0, 1, b"key", b"\xffgarbage", [("h", b"v")])
        await at.sink.take([*records([0]), bad, *records([2])])
        await at.sink.drain(10)
        assert [each.record for each in at.dead_letters] == [bad]
        (entry,) = reader.entries(store)
        assert entry.rejected.spans == ((1, 2),)
        assert archived_items(store) == items_of(0, [0, 2])

    asyncio.run(story())


def test_a_producer_that_cannot_go_on_is_not_asked_again() -> None:
    def broken(_: object) -> None:
        raise ProducerBroken("for good")

    async def story() -> None:
        at = Harness(MemoryStore(), dead_letter=broken)
        await at.sink.open(0, 0, 10)
        with pytest.raises(ProducerBroken):
            await at.sink.take([Record(0, 0, None, b"garbage", [])])

    asyncio.run(story())


def test_partitions_given_up_while_decoding_are_left_alone() -> None:
    async def story() -> None:
        store = MemoryStore()
        began, release = threading.Event(), threading.Event()

        def slow(batch: Sequence[Record]) -> tuple[Slates, list[Unreadable]]:
            began.set()
            release.wait(20)
            return Decoder(CODEC).decode(batch)

        at = Harness(store, decode=slow)
        await at.sink.open(0, 0, 10)
        taking = asyncio.create_task(at.sink.take(records([0, 1])))
        await until(began.is_set)
        await at.sink.drain(10)
        release.set()
        assert await taking == []
        assert archived_items(store) == []
        assert at.failures == []

    asyncio.run(story())


def test_an_archive_ahead_of_its_topic_is_refused() -> None:
    async def story() -> None:
        store = MemoryStore()
        at = Harness(store)
        await at.sink.open(0, 0, 10)
        await at.sink.take(records(range(5)))
        await at.sink.drain(10)
        with pytest.raises(ArchiveAhead, match="deleted and created again"):
            await at.sink.open(0, 0, 3)
        assert await at.sink.take(records(range(3))) == []

    asyncio.run(story())


def test_a_topic_made_anew_gets_a_chain_of_its_own_and_another_cluster_none() -> None:
    async def story() -> None:
        store = MemoryStore()
        before = Harness(store, origin=Origin("cluster", "id-1"))
        await before.sink.open(0, 0, 10)
        await before.sink.take(records(range(5)))
        await before.sink.drain(10)
        anew = Harness(store, origin=Origin("cluster", "id-2"))
        for first, following in ((0, 2), (2, 3)):
            assert await anew.sink.open(0, 0, 10) == first
            await anew.sink.take(records(range(first, following)))
            await anew.sink.drain(10)
        chains = {entry.chain for entry in reader.entries(store)}
        assert chains == {Chain(TOPIC, 0), Chain(f"{TOPIC}~id-2", 0)}
        # The same source offsets, of other impressions: both are kept.
        assert archived_items(store) == sorted(items_of(0, range(5)) + items_of(0, range(3)))
        with pytest.raises(ForeignChain):
            await Harness(store, origin=Origin("elsewhere", "id-9")).sink.open(0, 0, 10)

    asyncio.run(story())


def test_a_defect_is_reported_and_not_retried() -> None:
    class Broken(MemoryStore):
        def put_if_absent(self, key: str, _data: bytes) -> None:
            raise ZeroDivisionError(key)

    async def story() -> None:
        at = Harness(Broken())
        await at.sink.open(0, 0, 10)
        await at.sink.take(records([0]))
        await at.sink.drain(0.5)
        assert [type(failure) for failure in at.failures] == [ZeroDivisionError]

    asyncio.run(story())
