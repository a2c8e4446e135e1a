"""The write path under crashes, lost answers, rivals and repeats: the archive stays whole, and each impression once."""

from __future__ import annotations

import pytest

from stream.archive.log.commitlog import Chain, Gap, Origin
from stream.archive.log.intervals import Intervals
from stream.archive.log.sources import Source
from stream.archive.objects import MemoryStore, Store, StoreUnavailable
from stream.archive.writing.writer import Batch, ChainWriter, ForeignChain, OffsetGap, RecreatedTopic
from tests.archive.checks import archived_items, items_of, verdict_of
from tests.archive.faulty import Crash, FaultyStore, Moment
from tests.archive.slates_of import audit, slates

CHAIN = Chain("explanation-audit", 0)
WRITES_OF_A_COMMIT = 4
"""Three objects (of three days) and the entry."""


def batch(source_offsets: range, first: int = 0) -> Batch:
    """Records of consecutive source offsets on three days, from audit offset ``first`` on."""
    made = slates([audit(offset, day=offset % 3) for offset in source_offsets], first)
    return Batch(first, first + len(source_offsets), made)


def opened(store: Store, name: str = "w") -> ChainWriter:
    writer = ChainWriter(store, CHAIN, writer=name, clock=lambda: 1_790_000_000.0 + 2 * 86_400)
    writer.open()
    return writer


def test_a_commit_is_objects_then_an_entry() -> None:
    store = FaultyStore(MemoryStore())
    done = opened(store).commit(batch(range(6)))
    assert store.writes == WRITES_OF_A_COMMIT
    assert [entry.rows for entry in done.own] == [12]
    assert archived_items(store) == items_of(0, range(6))
    assert verdict_of(store).findings == ()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("at", range(WRITES_OF_A_COMMIT))
def test_a_crash_at_any_step_leaves_an_archive_that_the_next_writer_continues(at: int, moment: Moment) -> None:
    store = MemoryStore()
    opened(store).commit(batch(range(3)))
    dying = opened(FaultyStore(store, at, moment), "dying")
    with pytest.raises(Crash):
        dying.commit(batch(range(3, 9), first=3))
    survived = at == WRITES_OF_A_COMMIT - 1 and moment == "after"
    assert archived_items(store) == items_of(0, range(9 if survived else 3))
    assert verdict_of(store).consistent

    heir = opened(store, "heir")
    assert heir.tail.next == (9 if survived else 3)
    heir.commit(batch(range(3, 12), first=3))
    assert archived_items(store) == items_of(0, range(12))
    assert verdict_of(store).consistent


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("at", range(WRITES_OF_A_COMMIT))
def test_after_an_error_the_same_batch_can_be_committed_again(at: int, moment: Moment) -> None:
    store = MemoryStore()
    writer = opened(FaultyStore(store, at, moment, dies=False))
    with pytest.raises(StoreUnavailable):
        writer.commit(batch(range(6)))
    writer.commit(batch(range(6)))
    writer.commit(batch(range(6, 8), first=6))
    assert archived_items(store) == items_of(0, range(8))
    verdict = verdict_of(store)
    assert (verdict.findings, verdict.entries) == ((), 2)


def test_of_two_writers_at_one_offset_the_first_wins_and_the_other_adopts() -> None:
    store = MemoryStore()
    quick, slow = opened(store, "quick"), opened(store, "slow")
    assert len(quick.commit(batch(range(5))).own) == 1
    done = slow.commit(batch(range(3)))
    assert done.own == ()
    assert [entry.writer for entry in done.others] == ["quick"]
    assert slow.tail == quick.tail
    assert archived_items(store) == items_of(0, range(5))


def test_a_zombie_with_more_than_the_winner_archives_only_the_rest() -> None:
    store = MemoryStore()
    owner, zombie = opened(store, "owner"), opened(store, "zombie")
    owner.commit(batch(range(2)))
    owner.commit(batch(range(2, 4), first=2))
    done = zombie.commit(batch(range(7)))
    assert [entry.first for entry in done.others] == [0, 2]
    assert [(entry.first, entry.next) for entry in done.own] == [(4, 7)]
    assert archived_items(store) == items_of(0, range(7))
    assert verdict_of(store).consistent


def test_a_repeat_of_an_archived_impression_is_skipped_and_counted() -> None:
    store = MemoryStore()
    writer = opened(store)
    writer.commit(batch(range(4)))
    (entry,) = writer.commit(batch(range(2, 7), first=4)).own
    assert (entry.slates, entry.repeats) == (3, 2)
    assert archived_items(store) == items_of(0, range(7))


def test_a_repeat_within_one_batch_is_skipped_too() -> None:
    store = MemoryStore()
    records = [audit(5), audit(6), audit(5), audit(4)]
    (entry,) = opened(store).commit(Batch(0, 4, slates(records))).own
    assert (entry.slates, entry.repeats) == (3, 1)
    assert archived_items(store) == items_of(0, [4, 5, 6])


def test_a_zombies_later_record_does_not_hide_the_owners_earlier_one() -> None:
    store = MemoryStore()
    writer = opened(store)
    writer.commit(Batch(0, 2, slates([audit(0), audit(9)])))
    writer.commit(Batch(2, 5, slates([audit(1), audit(9), audit(2)], first=2)))
    assert archived_items(store) == items_of(0, [0, 1, 2, 9])
    assert writer.tail.sources[Source("id-1", 0)].spans == ((0, 3), (9, 10))


def test_an_impressions_topic_made_anew_repeats_nothing() -> None:
    store = MemoryStore()
    writer = opened(store)
    writer.commit(batch(range(4)))
    anew = slates([audit(offset, topic_id="id-2") for offset in (0, 1, 2, 1)], first=4)
    (entry,) = writer.commit(Batch(4, 8, anew)).own
    assert (entry.slates, entry.repeats) == (3, 1)
    assert {source.topic: held.spans for source, held in entry.sources.items()} == {
        "id-1": ((0, 4),),
        "id-2": ((0, 3),),
    }
    assert archived_items(store) == sorted(items_of(0, range(4)) + items_of(0, range(3)))
    assert verdict_of(store).findings == ()


def test_records_that_name_no_topic_are_of_the_one_that_is_known() -> None:
    store = MemoryStore()
    writer = opened(store)

    def commit(first: int, *records: tuple[int, str]) -> tuple[int, int]:
        made = slates([audit(offset, topic_id=topic_id) for offset, topic_id in records], first)
        (entry,) = writer.commit(Batch(first, first + len(records), made)).own
        return entry.slates, entry.repeats

    # Workers of an older version, then both side by side, each repeating what the other did.
    assert commit(0, (0, ""), (1, "")) == (2, 0)
    assert commit(2, (1, "id-1"), (2, "id-1"), (2, "")) == (1, 2)
    assert commit(5, (0, ""), (3, ""), (3, "id-1"), (4, "id-1")) == (2, 2)
    assert archived_items(store) == items_of(0, range(5))
    assert {source.topic: held.spans for source, held in writer.tail.sources.items()} == {"id-1": ((0, 5),)}
    assert verdict_of(store).findings == ()


def test_repeats_alone_still_move_the_chain_on() -> None:
    store = MemoryStore()
    writer = opened(store)
    writer.commit(batch(range(3)))
    (entry,) = writer.commit(batch(range(3), first=3)).own
    assert (entry.objects, entry.next, entry.repeats) == ((), 6, 3)
    assert opened(store).tail.next == 6


def test_gaps_and_rejected_records_are_in_the_entry() -> None:
    store = MemoryStore()
    made = slates([audit(0), audit(1)], first=12)
    (entry,) = opened(store).commit(Batch(0, 15, made, Intervals.of([(14, 15)]), (Gap(0, 12, "expired"),))).own
    assert entry.gaps == (Gap(0, 12, "expired"),)
    assert entry.rejected.spans == ((14, 15),)
    verdict = verdict_of(store)
    assert verdict.consistent
    assert [(finding.rule, finding.severity) for finding in verdict.findings] == [(12, "notice")]


def test_a_batch_is_cut_where_the_chain_already_is() -> None:
    made = slates([audit(0), audit(1)], first=4)
    whole = Batch(0, 8, made, Intervals.of([(6, 8)]), (Gap(0, 4, "expired"),))
    assert whole.after(0) is whole
    rest = whole.after(2)
    assert (rest.first, rest.next, len(rest.slates), rest.gaps) == (2, 8, 2, (Gap(2, 4, "expired"),))
    rest = whole.after(7)
    assert (rest.first, rest.next, len(rest.slates), rest.gaps) == (7, 8, 0, ())
    assert rest.rejected.spans == ((7, 8),)
    assert whole.after(99).first == 8


def test_a_batch_beyond_the_end_of_the_chain_is_refused() -> None:
    with pytest.raises(OffsetGap, match="ends at offset 0, the batch begins at 3"):
        opened(MemoryStore()).commit(batch(range(2), first=3))


def test_the_last_entry_is_found_however_long_the_log_and_whatever_the_hint() -> None:
    store = MemoryStore()
    writer = opened(store)
    for number in range(5):
        writer.commit(batch(range(number * 2, number * 2 + 2), first=number * 2))
    store.put_if_absent("_commits/explanation-audit/0/notes.txt", b"people leave things in buckets")
    store.put_if_absent("_commits/explanation-audit/01/00000000000000000099.json", b"another folder")
    for hint in (None, 0, 10, 500_000, 10**12):
        fresh = ChainWriter(store, CHAIN, writer="fresh")
        assert fresh.open(hint) == writer.tail


def test_a_chain_from_another_cluster_is_refused_and_a_new_topic_is_recognised() -> None:
    store = MemoryStore()
    first = ChainWriter(store, CHAIN, writer="w", origin=Origin("cluster-a", "topic-1"))
    first.open()
    first.commit(batch(range(2)))
    with pytest.raises(ForeignChain, match="archive URL of its own"):
        ChainWriter(store, CHAIN, writer="w", origin=Origin("cluster-b", "topic-1")).open()
    with pytest.raises(RecreatedTopic):
        ChainWriter(store, CHAIN, writer="w", origin=Origin("cluster-a", "topic-2")).open()
    assert ChainWriter(store, CHAIN, writer="w", origin=Origin("cluster-a", "topic-1")).open().next == 2
    assert ChainWriter(store, CHAIN, writer="w").open().next == 2
