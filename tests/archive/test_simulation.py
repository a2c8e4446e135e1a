"""Random schedules of writers, zombies, crashes, lost answers, repeats and retention over one partition.

The broker is a list, the store a dictionary, time a number. After every step the archive must verify, rows included;
at the end, once some writer has had its way, every impression is archived exactly once, but for what retention took
before anybody had read it. More schedules: ``WHYREC_SCHEDULES=5000 pytest tests/archive/test_simulation.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stream.archive.log.commitlog import Chain, Gap
from stream.archive.log.intervals import Intervals
from stream.archive.objects import MemoryStore, StoreUnavailable
from stream.archive.reading import reader
from stream.archive.writing.writer import Batch, ChainWriter
from tests.archive.checks import archived_items, items_of, verdict_of
from tests.archive.faulty import Crash, FaultyStore, Moment
from tests.archive.slates_of import audit, slates

pytestmark = pytest.mark.slow

CHAIN = Chain("explanation-audit", 0)
WORKERS = 3
numbers = st.integers(0, WORKERS - 1)
moments: st.SearchStrategy[Moment] = st.sampled_from(["before", "after"])
faults = st.tuples(st.integers(0, 2), moments)


@dataclass
class Worker:
    """A process: its chain, and what it has read and not yet archived."""

    store: FaultyStore
    writer: ChainWriter
    first: int
    next: int
    records: list[tuple[int, tuple[str, int] | None]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def batch(self) -> Batch:
        readable = [(offset, source) for offset, source in self.records if source is not None]
        made = slates([audit(at, items=1, day=at % 2, topic_id=topic) for _, (topic, at) in readable])
        made.offset[:] = [offset for offset, _ in readable]
        rejected = Intervals.of((offset, offset + 1) for offset, source in self.records if source is None)
        return Batch(self.first, self.next, made, rejected, tuple(self.gaps))


class Schedules(RuleBasedStateMachine):
    @initialize(upgraded=st.booleans())
    def begin(self, upgraded: bool) -> None:
        self.upgraded = upgraded  # workers of the first audit schema, which name no topic, run beside newer ones
        self.store = MemoryStore(clock=lambda: 0.0)
        self.log: list[tuple[str, int] | None] = []  # source topic and offset of each record; None cannot be read
        self.start = 0  # before this, retention has deleted
        self.sources = 0
        self.topics = 0
        self.names = 0
        self.workers = [self.opened() for _ in range(WORKERS)]

    @rule(count=st.integers(1, 6))
    def produce(self, count: int) -> None:
        self.send(range(self.sources, self.sources + count))
        self.sources += count

    @precondition(lambda self: not self.upgraded)
    @rule()
    def make_the_impressions_topic_anew(self) -> None:
        self.topics += 1
        self.sources = 0

    @precondition(lambda self: self.upgraded and self.sources)
    @rule()
    def upgrade_a_worker_that_repeats_itself(self) -> None:
        self.log += [("", self.sources - 1), ("id-0", self.sources - 1)]

    def send(self, sources: Iterable[int]) -> None:
        self.log.extend(("" if self.upgraded and at % 3 == 0 else f"id-{self.topics}", at) for at in sources)

    @rule(back=st.integers(1, 8))
    def produce_again(self, back: int) -> None:
        """An explain worker was killed, and its successor repeats what was not committed."""
        self.send(range(max(0, self.sources - back), self.sources))

    @rule(skipped=st.integers(1, 3))
    def produce_out_of_order(self, skipped: int) -> None:
        """A zombie's later record comes before the rightful owner's earlier ones."""
        self.send([self.sources + skipped])
        self.send(range(self.sources, self.sources + skipped))
        self.send([self.sources + skipped])
        self.sources += skipped + 1

    @rule()
    def produce_garbage(self) -> None:
        self.log.append(None)

    @rule(share=st.floats(0, 1))
    def expire(self, share: float) -> None:
        """Retention deletes some of what the topic holds, archived or not."""
        self.start += int((len(self.log) - self.start) * share / 2)

    def opened(self) -> Worker:
        self.names += 1
        store = FaultyStore(self.store)
        writer = ChainWriter(store, CHAIN, writer=f"worker-{self.names}", clock=lambda: 0.0)
        at = writer.open(len(self.log)).next
        return Worker(store, writer, at, at)

    @rule(number=numbers)
    def join(self, number: int) -> None:
        """A worker starts anew and is given the partition; nobody tells those that had it."""
        self.workers[number] = self.opened()

    @rule(number=numbers, count=st.integers(1, 10))
    def read(self, number: int, count: int) -> None:
        self.fill(self.workers[number], count)

    @rule(number=numbers, count=st.integers(0, 6), fault=st.none() | faults)
    def flush(self, number: int, count: int, fault: tuple[int, Moment] | None) -> None:
        """A worker, perhaps a zombie, reads on and flushes; the store may fail at one of its writes."""
        self.fill(self.workers[number], count)
        self.commit(self.workers[number], fault, dies=False)

    @rule(number=numbers, count=st.integers(0, 6), fault=faults)
    def crash(self, number: int, count: int, fault: tuple[int, Moment]) -> None:
        """The same, but the process dies at that write, and another takes over."""
        self.fill(self.workers[number], count)
        self.commit(self.workers[number], fault, dies=True)
        self.workers[number] = self.opened()

    def fill(self, worker: Worker, count: int) -> None:
        if self.start > worker.next:
            worker.gaps.append(Gap(worker.next, self.start, "expired"))
            worker.next = self.start
        for offset in range(worker.next, min(worker.next + count, len(self.log))):
            worker.records.append((offset, self.log[offset]))
            worker.next = offset + 1

    def commit(self, worker: Worker, fault: tuple[int, Moment] | None, *, dies: bool) -> None:
        if worker.next == worker.first:
            return
        at, moment = fault or (None, "before")
        worker.store.arm(at, moment, dies=dies)
        try:
            worker.writer.commit(worker.batch())
        except (Crash, StoreUnavailable):
            return
        worker.first = worker.next = max(worker.next, worker.writer.tail.next)
        worker.records, worker.gaps = [], []

    @invariant()
    def the_archive_is_whole(self) -> None:
        if not hasattr(self, "store"):
            return
        verdict = verdict_of(self.store)
        assert verdict.consistent, verdict.findings

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        last = self.opened()
        self.fill(last, len(self.log) + 1)
        self.commit(last, None, dies=False)
        self.the_archive_is_whole()
        assert ChainWriter(self.store, CHAIN, writer="reader").open().next == len(self.log)
        gaps = [gap for entry in reader.entries(self.store) for gap in entry.gaps]
        missed = {offset for gap in gaps for offset in range(gap.first, gap.next)}
        kept = {source for offset, source in enumerate(self.log) if source is not None and offset not in missed}
        apart = {(topic or "id-0", offset) for topic, offset in kept}
        assert archived_items(self.store) == items_of(0, sorted(offset for _, offset in apart), 1)


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(
    max_examples=int(os.environ.get("WHYREC_SCHEDULES", "200")), stateful_step_count=25, deadline=None
)
