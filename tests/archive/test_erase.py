"""Erasure takes one user's rows out of both tiers and nothing else; a hold keeps them; the chain names nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream.archive.aging import erase, tiers
from stream.archive.aging.maintenance import Contended, Maintenance, append_hold, list_places, read_holds
from stream.archive.log import changes
from stream.archive.log.holds import Holds, InvalidHold, Scope, hold, release
from stream.archive.log.names import object_name
from stream.archive.objects import MemoryStore
from stream.archive.proof.verify import LEFTOVER_AGE_S
from stream.archive.reading import reader
from stream.archive.reading.reader import ArchiveChanged
from stream.archive.rows.segment import read
from stream.errors import ConfigurationError
from tests.archive.aging import Aging, user
from tests.archive.checks import archived_items

DAYS = 95
SLATES = 28


@pytest.fixture
def archive() -> Aging:
    """Of each of seven users: cold, compacted and fresh rows, in two partitions."""
    aging = Aging(MemoryStore())
    aging.commit(range(SLATES))
    aging.commit(range(SLATES), partition=1)
    aging.commit(range(SLATES, 2 * SLATES), day=DAYS - 2)
    aging.clock.day = DAYS
    aging.tier()
    aging.commit(range(2 * SLATES, 3 * SLATES), day=DAYS)
    aging.commit(range(SLATES, 2 * SLATES), partition=1, day=DAYS, region="US")
    return aging


def kinds(archive: Aging) -> set[str]:
    return {changes.decode(data).kind for _, data in reader.raw_changes(archive.store)}


def test_every_row_of_the_user_goes_and_every_other_row_stays(archive: Aging) -> None:
    assert {key[:5] for key in archive.objects()} == {"cold/", "date="}
    users, items = archive.users(), archived_items(archive.store)
    erased = archive.erase(user(3))
    assert erased == users.count(user(3)) > 0
    assert archive.users() == [each for each in users if each != user(3)]
    assert archived_items(archive.store) == [item for item in items if item[1] % 7 != 3]
    verdict = archive.verdict()
    assert (verdict.findings, verdict.erased, verdict.rows) == ((), erased, len(users) - erased)


def test_no_object_holds_a_byte_of_the_user_afterwards_and_no_record_names_them(archive: Aging) -> None:
    archive.commit(range(3 * SLATES, 4 * SLATES), day=DAYS - 3)
    archive.tier(grace_s=3600)  # what is compacted now would stay for readers
    archive.erase(user(3))
    for info in archive.store.list(""):
        data = archive.store.get(info.key)
        if info.key.endswith(".parquet"):
            assert bytes.fromhex(user(3)) not in read(data)["user_id_hash"].to_pylist()
        else:
            assert user(3).encode() not in data, info.key


def test_erasing_twice_erases_once(archive: Aging) -> None:
    archive.erase(user(3))
    keys = [info.key for info in archive.store.list("")]
    assert archive.erase(user(3)) == 0
    assert [info.key for info in archive.store.list("")] == keys


def test_an_object_of_one_user_alone_goes_altogether() -> None:
    aging = Aging(MemoryStore())
    aging.commit(range(1))
    assert aging.erase(user(0)) == 2
    assert aging.objects() == []
    assert (aging.verdict().consistent, aging.verdict().erased) == (True, 2)


def test_what_was_erased_from_is_compacted_moved_and_expires_like_the_rest(archive: Aging) -> None:
    archive.erase(user(3))
    for day in (2 * DAYS, 3 * DAYS):
        archive.clock.day = day
        archive.tier()
        assert archive.verdict().findings == ()
    archive.erase(user(4))
    assert not {user(3), user(4)} & set(archive.users())
    archive.clock.day = 900
    archive.tier()
    assert archive.objects() == []
    assert archive.verdict().consistent
    assert kinds(archive) == {"compacted", "moved", "erased", "expired"}


def test_held_rows_are_not_erased(archive: Aging) -> None:
    before = archive.users()
    archive.hold(Scope(user=user(3)))
    archive.hold(Scope(region="US"))
    assert archive.erase(user(3)) == 0
    assert archive.erase(user(4)) > 0
    assert archive.users().count(user(3)) == before.count(user(3))
    assert archive.users().count(user(4)) == 2 * sum(1 for each in range(SLATES, 2 * SLATES) if each % 7 == 4)
    assert archive.verdict().consistent


def test_a_hold_of_days_keeps_those_days_and_no_others(archive: Aging) -> None:
    first = min(name.place.date for name in map(object_name, archive.objects()) if name)
    archive.hold(Scope(user=user(3), until=first))
    archive.erase(user(3))
    rows = reader.rows(archive.store, reader.objects(archive.store, until=first), ["user_id_hash"]).read_all()
    assert (
        archive.users().count(user(3)) == [each.hex() for each in rows["user_id_hash"].to_pylist()].count(user(3)) > 0
    )


def test_a_hold_made_while_an_erasure_runs_counts_from_the_next_object_on(archive: Aging) -> None:
    maintenance = Maintenance(archive.store, who="erase", clock=archive.clock)
    place, names = next(iter(list_places(archive.store).items()))
    running = erase.erase(maintenance, maintenance.inventory(place, names), user(3), case="")
    assert not next(running).held
    archive.hold(Scope(user=user(3)))
    assert [each.held for each in running] == [True]
    assert user(3) in archive.users()
    assert archive.verdict().consistent


def test_of_two_tasks_at_one_place_the_first_wins_and_the_other_leaves_nothing(archive: Aging) -> None:
    archive.clock.day = DAYS + 3
    maintenance = Maintenance(archive.store, who="slow", clock=archive.clock)
    place, names = list(list_places(archive.store).items())[-1]
    slow = maintenance.inventory(place, names)
    assert archive.tier(grace_s=3600)
    with pytest.raises(Contended, match="run again"):
        list(erase.erase(maintenance, slow, user(4), case=""))
    with pytest.raises(Contended, match="run again"):
        list(tiers.run(maintenance, slow, open_hours=1.0))  # it makes the very object that the first one made
    assert [each for each in archive.verdict().findings if each.rule != 19] == []
    assert archive.erase(user(4)) > 0
    with pytest.raises(ArchiveChanged, match="run it again"):
        list(erase.erase(maintenance, slow, user(4), case=""))
    assert archive.verdict().findings == ()


def test_only_row_groups_that_can_hold_the_user_are_read(archive: Aging) -> None:
    ref = next(ref for ref in reader.objects(archive.store) if ref.key.startswith("cold/"))
    assert erase.rows_of_user(archive.store, ref, user(3)) == 8
    assert erase.rows_of_user(archive.store, ref, "f" * 16) == 0


def test_what_nobody_names_is_deleted_if_nobody_ever_can_and_counted_otherwise(archive: Aging) -> None:
    """Crashes may have left the user's rows in objects that are no part of the archive."""
    names = [name for key in archive.objects() if (name := object_name(key))]
    raw = next(name for name in names if name.first)
    cold = next(name for name in names if name.tier)
    lost = replace(raw, digest="0" * 16)  # its entry is there, and names another
    pending = replace(raw, first=9_999, digest="0" * 16)  # its entry may be written yet
    beaten = replace(cold, tier="", number=0, digest="0" * 16)
    next_one = replace(cold, tier="", number=99, digest="0" * 16)
    for name in (lost, pending, beaten, next_one):
        archive.store.put(name.key, b"rows that a crash left")
    archive.erase(user(3))
    assert not {lost.key, beaten.key} & set(archive.objects())
    assert {pending.key, next_one.key} <= set(archive.objects())
    maintenance = Maintenance(archive.store, who="erase", clock=archive.clock)
    left = [maintenance.inventory(*each).unreferenced for each in list_places(archive.store).items()]
    assert {name.key for each in left for name in each} == {pending.key, next_one.key}


def test_a_copy_that_a_crashed_move_left_goes_with_the_rows_that_are_erased() -> None:
    aging = Aging(MemoryStore())
    aging.commit(range(SLATES))
    aging.clock.day = 2
    aging.tier()
    (hot,) = aging.objects()
    aging.store.put(f"cold/{hot}", aging.store.get(hot))
    assert [each.rule for each in aging.verdict().findings] == [11]
    assert aging.errors() == []
    aging.erase(user(3))
    assert [key for key in aging.objects() if key in (hot, f"cold/{hot}")] == []
    assert aging.verdict().findings == ()


@pytest.mark.parametrize("text", ["", "3", "ABCDEF0123456789", "00c0ffee00c0ffee0"])
def test_what_is_no_users_hash_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="16 hexadecimal digits"):
        erase.require_user(text)


def test_a_case_that_gives_the_user_away_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="file number"):
        erase.require_case(f"gdpr {user(3)}", user(3))


def test_a_hold_of_everything_and_a_release_of_nothing_are_refused(archive: Aging) -> None:
    with pytest.raises(InvalidHold, match="name a user, days or a region"):
        archive.hold(Scope())
    with pytest.raises(InvalidHold, match="hold 5, which is not in force; those in force: none"):
        release(Holds(), 5, why="", who="", written_at_ms=0)
    archive.hold(Scope(region="EU"))
    with pytest.raises(InvalidHold, match="those in force: 0"):
        append_hold(archive.store, lambda known: release(known, 1, why="", who="", written_at_ms=0))


def test_two_who_hold_at_once_both_hold() -> None:
    store = MemoryStore()

    def meanwhile(known: Holds) -> object:
        if not known.records:
            append_hold(store, lambda other: hold(other, Scope(region="US"), why="", who="", written_at_ms=0))
        return hold(known, Scope(region="EU"), why="", who="", written_at_ms=0)

    append_hold(store, meanwhile)  # type: ignore[arg-type]
    assert [scope.region for _, scope in read_holds(store).in_force()] == ["US", "EU"]


def test_a_zombie_sink_that_puts_an_erased_object_back_is_found_and_cleared(archive: Aging) -> None:
    key = next(key for key in archive.objects() if key.startswith("date=") and "US" in key)
    data = archive.store.get(key)
    archive.erase(user(3))
    archive.store.put(key, data)
    assert user(3) not in archive.users()
    assert [(each.rule, each.severity) for each in archive.verdict().findings] == [(19, "notice")]
    archive.clock.day += LEFTOVER_AGE_S / 86_400
    assert archive.errors() == [(19, key)]
    archive.erase("f" * 16)
    assert key not in archive.objects()
