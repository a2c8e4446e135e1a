"""Days are closed, compacted, moved and let go; each impression stays archived once until its time has come."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.archive.aging import compact, tiers
from stream.archive.aging.compact import DamagedObject
from stream.archive.aging.maintenance import Maintenance, append_hold, list_places
from stream.archive.aging.policy import TIERS, days_since
from stream.archive.log.commitlog import Chain, ObjectRef
from stream.archive.log.holds import Holds, Scope, release
from stream.archive.log.names import CHANGES, ObjectName, Place
from stream.archive.objects import MemoryStore
from stream.archive.reading import reader, statistics
from tests.archive.aging import OPEN_HOURS, Aging, user
from tests.archive.checks import archived_items, items_of, verdict_of
from tests.archive.meddled import MeddledStore

HOLD = "_holds/00000000.json"
CLOSED = 1.5
COLD = TIERS["hot"].until_days + CLOSED
GONE = TIERS["cold"].until_days + CLOSED


def filled() -> Aging:
    """One day of two partitions and a second region: three flushes, two, and one."""
    aging = Aging(MemoryStore())
    for first in (0, 6, 12):
        aging.commit(range(first, first + 6))
    for first in (0, 6):
        aging.commit(range(first, first + 6), partition=1)
    aging.commit(range(18, 21), region="US")
    return aging


@pytest.fixture
def archive() -> Aging:
    return filled()


EVERYTHING = sorted([*items_of(0, range(21)), *items_of(1, range(12))])


def test_a_days_age_counts_from_its_end() -> None:
    begin = dt.datetime(2026, 9, 21, tzinfo=dt.UTC).timestamp()
    assert days_since(Place("2026-09-21", "EU"), begin) == -1.0
    assert days_since(Place("2026-09-21", "EU"), begin + 36 * 3600) == 0.5


def test_an_open_day_is_left_alone(archive: Aging) -> None:
    archive.clock.day = age = 0.0
    while days_since(Place("2026-09-21", "EU"), archive.clock()) * 24 < OPEN_HOURS:
        assert archive.tier() == []
        archive.clock.day = age = age + 0.2
    assert archive.tier() != []


def test_a_closed_day_becomes_one_object_for_each_region_and_partition(archive: Aging) -> None:
    archive.clock.day = CLOSED
    assert archive.tier() == [
        ("compact", 3, 1),
        ("compact", 2, 1),
        ("delete", 5, 0),
        ("compact", 1, 1),
        ("delete", 1, 0),
    ]
    assert len(archive.objects()) == 3
    assert archived_items(archive.store) == EVERYTHING
    verdict = archive.verdict()
    assert (verdict.findings, verdict.changes, verdict.objects, verdict.rows) == ((), 3, 3, len(EVERYTHING))
    assert archive.tier() == []


def test_a_compacted_object_is_sorted_by_user_then_request(archive: Aging) -> None:
    archive.clock.day = CLOSED
    archive.tier()
    for key in archive.objects():
        table = pq.read_table(pa.BufferReader(archive.store.get(key)))
        request = table["request_id"].combine_chunks()
        users, positions = table["user_id_hash"].to_pylist(), table["position"].to_pylist()
        found = list(zip(users, request.to_pylist(), positions, strict=True))
        assert found == sorted(found, key=lambda row: (row[0], row[1].bytes, row[2]))


def test_what_comes_late_is_compacted_by_the_next_run(archive: Aging) -> None:
    archive.clock.day = CLOSED
    archive.tier()
    archive.commit(range(21, 25))
    assert archived_items(archive.store) == sorted([*EVERYTHING, *items_of(0, range(21, 25))])
    assert archive.tier() == [("compact", 2, 1), ("delete", 2, 0)]
    assert archived_items(archive.store) == sorted([*EVERYTHING, *items_of(0, range(21, 25))])
    assert archive.verdict().findings == ()


def test_what_readers_may_have_listed_stays_for_an_hour(archive: Aging) -> None:
    archive.clock.day = CLOSED
    before = archive.objects()
    archive.tier(grace_s=tiers.GRACE_S)
    assert set(before) <= set(archive.objects())
    assert archived_items(archive.store) == EVERYTHING
    notices = archive.verdict().findings
    assert {(each.rule, each.severity) for each in notices} == {(19, "notice")}
    assert "5 objects that were removed here are yet to be deleted" in notices[0].what
    archive.clock.day += 0.05
    assert archive.tier(grace_s=tiers.GRACE_S) == [("delete", 5, 0), ("delete", 1, 0)]
    assert archive.verdict().findings == ()


def test_after_90_days_the_same_objects_lie_in_the_cold_tier(archive: Aging) -> None:
    archive.clock.day = CLOSED
    archive.tier()
    hot = {key: archive.store.get(key) for key in archive.objects()}
    archive.clock.day = COLD - 2
    assert archive.tier() == []
    archive.clock.day = COLD
    assert archive.tier() == [("move", 2, 2), ("delete", 2, 0), ("move", 1, 1), ("delete", 1, 0)]
    assert {key: archive.store.get(key) for key in archive.objects()} == {f"cold/{key}": hot[key] for key in hot}
    assert archived_items(archive.store) == EVERYTHING
    assert archive.verdict().findings == ()
    assert archive.tier() == []


def test_after_two_years_rows_are_gone_and_the_record_remains(archive: Aging) -> None:
    for day in (CLOSED, COLD):
        archive.clock.day = day
        archive.tier()
    archive.clock.day = GONE
    assert archive.tier() == [("expire", 2, 0), ("delete", 2, 0), ("expire", 1, 0), ("delete", 1, 0)]
    assert (archive.objects(), archived_items(archive.store)) == ([], [])
    verdict = archive.verdict()
    assert (verdict.findings, verdict.rows, verdict.erased) == ((), 0, len(EVERYTHING))
    assert archive.tier() == []


def test_a_run_that_comes_years_late_does_everything_at_once(archive: Aging) -> None:
    archive.clock.day = COLD
    actions = [action for action, *_ in archive.tier()]
    assert actions == ["compact", "compact", "move", "delete", "compact", "move", "delete"]
    assert archived_items(archive.store) == EVERYTHING
    assert archive.verdict().findings == ()


def test_a_row_of_a_producer_whose_clock_was_reset_is_kept_as_long_as_any_other(archive: Aging) -> None:
    """Its date is of years ago; the next run of tier used to expire it."""
    archive.clock.day = archived = 0.2
    late = items_of(0, range(100, 102))
    archive.commit(range(100, 102), day=-2_000)
    for day, tier in ((CLOSED, "date="), (COLD + 1, "cold/"), (archived + TIERS["cold"].until_days - 0.1, "cold/")):
        archive.clock.day = day
        archive.tier()
        assert set(late) <= set(archived_items(archive.store)), day
        assert [key[:5] for key in archive.objects() if "date=2021" in key] == [tier], day
    archive.clock.day = archived + TIERS["cold"].until_days
    assert ("expire", 1, 0) in archive.tier()
    assert archived_items(archive.store) == EVERYTHING  # its day ended later than the other row was archived
    assert archive.verdict().consistent


def test_late_rows_do_not_keep_the_rows_of_their_day_for_longer(archive: Aging) -> None:
    archive.clock.day = CLOSED
    archive.tier()
    archive.clock.day = 60.0
    archive.commit(range(100, 102))
    archive.tier()
    archive.clock.day = GONE
    archive.tier()
    assert archived_items(archive.store) == items_of(0, range(100, 102))
    archive.clock.day = GONE + 60.0
    archive.tier()
    assert archived_items(archive.store) == []
    assert archive.verdict().consistent


def test_a_held_region_does_not_expire_until_it_is_released(archive: Aging) -> None:
    number = archive.hold(Scope(region="EU"))
    archive.clock.day = GONE
    assert [action for action, *_ in archive.tier()] == ["expire", "delete"]
    assert {item[0:2] for item in archived_items(archive.store)} == {item[0:2] for item in EVERYTHING} - {
        (0, 18),
        (0, 19),
        (0, 20),
    }
    assert archive.verdict().consistent
    now_ms = int(archive.clock() * 1000)
    append_hold(archive.store, lambda known: release(known, number, why="", who="legal", written_at_ms=now_ms))
    archive.tier()
    assert archived_items(archive.store) == []
    assert archive.verdict().consistent


def test_a_held_users_rows_survive_the_expiry_of_their_day(archive: Aging) -> None:
    archive.clock.day = CLOSED
    archive.tier()
    archive.hold(Scope(user=user(3)))
    archive.clock.day = GONE
    archive.tier()
    assert set(archive.users()) == {user(3)}
    rows = sum(1 for _, offset, _ in EVERYTHING if offset % 7 == 3)
    verdict = archive.verdict()
    assert (verdict.rows, verdict.erased) == (rows, len(EVERYTHING) - rows)
    # The objects before expiry are deleted: the archive cannot prove whose rows expired, and says so.
    assert [(each.rule, each.severity, each.key) for each in verdict.findings] == [
        (18, "notice", "_holds/00000000.json")
    ]
    assert archive.tier() == []


@pytest.mark.parametrize("days", [[0.0, CLOSED, COLD, GONE], [COLD, GONE], [GONE]])
def test_a_plan_says_what_a_run_then_does(archive: Aging, days: list[float]) -> None:
    for day in days:
        archive.clock.day = day
        maintenance = Maintenance(archive.store, who="plan", clock=archive.clock)
        planned = [
            (step.action, step.objects)
            for place, names in list_places(archive.store).items()
            for step in tiers.plan(maintenance, maintenance.inventory(place, names), Holds(), open_hours=OPEN_HOURS)
        ]
        assert planned == [(action, objects) for action, objects, _ in archive.tier() if action != "delete"]


def test_a_damaged_object_is_never_compacted_or_moved(archive: Aging) -> None:
    key = archive.objects()[0]
    data = bytearray(archive.store.get(key))
    data[len(data) // 2] ^= 1
    archive.store.delete(key)
    archive.store.put_if_absent(key, bytes(data))
    archive.clock.day = COLD
    with pytest.raises(DamagedObject, match="whyrec archive verify"):
        archive.tier()
    assert not list(archive.store.list(CHANGES))


def test_a_missing_object_stops_the_task_instead_of_being_forgotten(archive: Aging) -> None:
    archive.clock.day = CLOSED
    archive.tier()
    archive.store.delete(archive.objects()[0])
    archive.commit(range(30, 33))
    with pytest.raises(DamagedObject, match="should exist and does not"):
        archive.tier()


def objects_of(rows: list[int], *, compacted: bool = False) -> list[tuple[ObjectName, ObjectRef]]:
    place, chain = Place("2026-09-21", "EU"), Chain("explanation-audit", 0)
    numbers: list[tuple[int | None, int | None]] = [(None, n) if compacted else (n, None) for n in range(len(rows))]
    names = [ObjectName("", place, chain, first, number, "0" * 16) for first, number in numbers]
    return [(name, ObjectRef(name.key, "aa", 1, count)) for name, count in zip(names, rows, strict=True)]


def test_compacted_objects_have_a_bounded_number_of_rows() -> None:
    groups = compact.groups(objects_of([8] * 10), max_rows=20)
    assert [len(group) for group in groups] == [2] * 5
    assert [ref.key for group in groups for ref in group] == [ref.key for _, ref in objects_of([8] * 10)]


def test_a_large_compacted_object_is_not_compacted_again() -> None:
    large, small = objects_of([16], compacted=True), objects_of([4], compacted=True)
    new = objects_of([8])
    assert compact.groups([*large, *new], max_rows=20) == [[new[0][1]]]
    assert compact.groups([*small, *new], max_rows=20) == [[small[0][1], new[0][1]]]
    assert compact.groups(large, max_rows=20) == compact.groups(small, max_rows=20) == []


def test_an_object_that_was_listed_and_then_removed_is_listed_again(archive: Aging) -> None:
    archive.clock.day = CLOSED
    listed = [list(reader.objects(archive.store))]

    def read() -> int:
        refs = listed.pop() if listed else reader.objects(archive.store)
        return statistics.count(reader.rows(archive.store, refs, statistics.COLUMNS)).impressions

    archive.tier()
    assert reader.again(read) == len(EVERYTHING)
    assert read() == len(EVERYTHING)


def test_columns_that_came_later_are_null_in_older_objects_after_compaction_too() -> None:
    aging = Aging(MemoryStore())
    aging.commit(range(4))
    columns = ["item_id", "policy", "source_topic_id"]
    before = reader.rows(aging.store, reader.objects(aging.store), columns).read_all().sort_by("item_id")
    aging.clock.day = CLOSED
    aging.tier()
    after = reader.rows(aging.store, reader.objects(aging.store), columns).read_all().sort_by("item_id")
    assert after.equals(before)


def test_a_place_with_nothing_to_do_is_known_by_its_names_alone(archive: Aging) -> None:
    for day, settled in ((0.0, False), (CLOSED, True), (COLD, True), (GONE - 2, True)):
        archive.clock.day = day
        archive.tier()
        found = [tiers.settled(place, names, archive.clock()) for place, names in list_places(archive.store).items()]
        assert found == [settled, settled]
    archive.commit(range(30, 32))
    archive.clock.day = GONE - 1.9
    assert [tiers.settled(*each, archive.clock()) for each in list_places(archive.store).items()] == [False, True]
    archive.clock.day = GONE
    assert [tiers.settled(*each, archive.clock()) for each in list_places(archive.store).items()] == [False, False]


@pytest.mark.slow
def test_a_task_that_slept_for_a_week_finds_what_it_made_and_sweep_left() -> None:
    at, calls = 0, 1
    while at < calls:
        aging = filled()
        aging.clock.day = COLD

        def sleep(aging: Aging = aging) -> None:
            aging.clock.day += 7
            for finding in verdict_of(aging.store, int(aging.clock() * 1000), age_s=7 * 86_400.0).findings:
                assert finding.leftover or finding.severity == "notice", finding
                if finding.leftover:
                    aging.store.delete(finding.key)  # as sweep does

        store = MeddledStore(aging.store, at, sleep)
        aging.tier(store)
        assert archived_items(aging.store) == EVERYTHING, at
        assert aging.verdict().findings == ()
        at, calls = at + 1, store.calls
    assert at > 20


def test_days_and_regions_are_chosen_after_compaction_as_before(archive: Aging) -> None:
    archive.commit(range(30, 34), day=1)
    choices: list[dict[str, str]] = [
        *({"region": "EU"}, {"region": "US"}, {"since": "2026-09-22"}, {"until": "2026-09-21"}),
        *({"since": "2026-09-21", "until": "2026-09-21", "region": "EU"}, {"since": "2026-09-23"}),
    ]

    def counts() -> list[int]:
        return [sum(ref.rows for ref in reader.objects(archive.store, **choice)) for choice in choices]

    before = counts()
    archive.clock.day = 3
    archive.tier()
    assert counts() == before == [68, 6, 8, 66, 60, 0]
