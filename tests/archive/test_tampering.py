"""Every attack on what was changed, on its record and on the holds is found; each test is named after one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from stream.archive.aging import compact
from stream.archive.aging.maintenance import Maintenance, append_hold, list_places
from stream.archive.aging.policy import TIERS
from stream.archive.log import canonical, changes, holds
from stream.archive.log.changes import Change
from stream.archive.log.commitlog import Chain
from stream.archive.log.holds import Scope
from stream.archive.log.names import CHANGES, COLD
from stream.archive.objects import MemoryStore
from stream.archive.reading import reader
from stream.archive.rows import segment
from stream.archive.rows.content import content_digest
from stream.archive.writing.writer import Batch, ChainWriter
from tests.archive.aging import Aging, Clock, user
from tests.archive.slates_of import audit, slates

AGED = TIERS["hot"].until_days + 3


@pytest.fixture
def archive() -> Aging:
    """One place with five changes: compacted, moved, erased, and late rows compacted and moved."""
    aging = Aging(MemoryStore())
    aging.hold(Scope(region="US"))
    for first in (0, 7):
        aging.commit(range(first, first + 7))
    aging.clock.day = AGED - 60
    aging.tier()
    aging.clock.day = AGED
    aging.tier()
    aging.erase(user(3))
    aging.commit(range(14, 18))
    aging.tier()
    aging.clock.day = 2 * AGED
    aging.tier()
    assert [each.rule for each in aging.verdict().findings] == [22]
    return aging


def keys(archive: Aging) -> list[str]:
    return [info.key for info in archive.store.list(CHANGES)]


def put(archive: Aging, key: str, data: bytes) -> None:
    archive.store.delete(key)
    archive.store.put_if_absent(key, data)


def forge(archive: Aging, number: int, edit: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a change, and every later one so that the links hold again: what only the writer itself could do."""
    previous = None
    for at, key in enumerate(keys(archive)):
        document = json.loads(archive.store.get(key))
        if at == number:
            edit(document)
        if at > number:
            document["previous"] = previous
        data = canonical.encode(document)
        put(archive, key, data)
        previous = hashlib.sha256(data).hexdigest()


def rules(archive: Aging) -> set[int]:
    return {rule for rule, _ in archive.errors()}


def decoded(archive: Aging) -> list[Change]:
    return [changes.decode(data) for _, data in reader.raw_changes(archive.store)]


def test_the_archive_has_one_change_of_each_kind_that_it_can(archive: Aging) -> None:
    kinds = [change.kind for change in decoded(archive)]
    assert kinds == ["compacted", "moved", "erased", "compacted", "moved"]
    forge(archive, 0, lambda document: document.update(who="tier"))
    assert archive.errors() == []


def test_a_changed_byte_in_a_compacted_object(archive: Aging) -> None:
    for key in archive.objects():
        data = bytearray(archive.store.get(key))
        data[len(data) // 3] ^= 1
        put(archive, key, bytes(data))
        assert archive.errors() == [(7, key)]
        data[len(data) // 3] ^= 1
        put(archive, key, bytes(data))
    assert archive.errors() == []


def test_a_changed_byte_in_a_change_wherever_it_is(archive: Aging) -> None:
    key = keys(archive)[1]
    data = archive.store.get(key)
    for position in range(0, len(data), 11):
        changed = bytearray(data)
        changed[position] ^= 1
        put(archive, key, bytes(changed))
        assert not archive.verdict().consistent, f"byte {position}: {bytes(changed)!r}"


def test_a_removed_compacted_object(archive: Aging) -> None:
    key = archive.objects()[0]
    archive.store.delete(key)
    assert archive.errors() == [(7, key)]


def test_a_renamed_compacted_object(archive: Aging) -> None:
    key = archive.objects()[0]
    renamed = key.replace("region=EU", "region=US")
    archive.store.put(renamed, archive.store.get(key))
    archive.store.delete(key)
    assert archive.errors()[0] == (7, key)
    assert any(finding.key == renamed for finding in archive.verdict().findings)


def test_a_removed_change(archive: Aging) -> None:
    first, second, *_ = keys(archive)
    archive.store.delete(first)
    assert (14, second) in archive.errors()


def test_a_removed_last_change(archive: Aging) -> None:
    """What it removed is missing then, and what it added is nobody's. Digests that are signed daily say more."""
    last = decoded(archive)[-1]
    archive.store.delete(keys(archive)[-1])
    assert (7, last.removed[0].key) in archive.errors()
    assert any(finding.key == last.added[0].key for finding in archive.verdict().findings)


def test_an_added_change(archive: Aging) -> None:
    last = decoded(archive)[-1]
    added = changes.encode(replace(last, number=last.number + 1))
    archive.store.put(last.place.key(last.number + 1), added)
    assert {9, 14} <= rules(archive)


def test_changes_exchanged(archive: Aging) -> None:
    first, second, *_ = keys(archive)
    data = archive.store.get(first), archive.store.get(second)
    put(archive, first, data[1])
    put(archive, second, data[0])
    assert {(13, first), (13, second)} <= set(archive.errors())


def test_a_rewritten_change_breaks_the_next_ones_link(archive: Aging) -> None:
    first, second, *_ = keys(archive)
    put(archive, first, archive.store.get(first).replace(b'"who":"tier"', b'"who":"thou"'))
    assert archive.errors() == [(14, second)]


def test_a_change_under_another_region(archive: Aging) -> None:
    key = keys(archive)[0].replace("region=EU", "region=US")
    archive.store.put(key, archive.store.get(keys(archive)[0]))
    assert (13, key) in archive.errors()


def test_a_foreign_file_among_the_changes(archive: Aging) -> None:
    archive.store.put("_changes/notes.txt", b"hello")
    assert archive.errors() == [(13, "_changes/notes.txt")]


def test_rows_dropped_while_compacting(archive: Aging) -> None:
    """By a task that lies: fewer rows, and numbers that do not add up, or that call it an erasure."""
    forge(archive, 3, lambda document: document["added"][0].update(rows=7))
    assert 15 in rules(archive)
    forge(archive, 3, lambda document: document.update(erased=1))
    assert 15 in rules(archive)


def test_users_said_to_be_in_the_partition_who_are_not(archive: Aging) -> None:
    """By a task that wants a user's rows passed over: it states that the object can hold none of theirs."""
    late = decoded(archive)[3].added[0]
    forge(archive, 3, lambda document: document["added"][0].update(modulus=1_024))
    assert rules(archive) == {16}  # the move after it knows nothing of that
    forge(archive, 4, lambda document: document["added"][0].update(modulus=1_024))
    assert rules(archive) == {15, 16, 21}
    forge(archive, 4, lambda document: [each.update(modulus=1_024) for each in stating(document, late.sha256)])
    assert archive.errors() == [(21, COLD + late.key)]


def stating(document: dict[str, Any], sha256: str) -> list[dict[str, Any]]:
    return [each for each in (*document["removed"], *document["added"]) if each["sha256"] == sha256]


def test_rows_altered_while_compacting(archive: Aging) -> None:
    """The object that a change added is exchanged for one that says something else, with its hash put right."""
    change = decoded(archive)[2]
    (ref,) = change.added
    table = segment.read(archive.store.get(ref.key))
    scores = pa.array([9.0] * table.num_rows, pa.float32())
    place = table.schema.get_field_index("ranking_score")
    data = segment.write(table.set_column(place, table.schema.field(place), scores))
    digest = hashlib.sha256(data).hexdigest()
    key = ref.key.replace(ref.sha256[:16], digest[:16])
    archive.store.delete(ref.key)
    archive.store.put(key, data)
    forge(archive, 2, lambda document: document["added"][0].update(key=key, sha256=digest, bytes=len(data)))
    assert archive.errors() == [(17, key)]
    assert content_digest(segment.read(data)) != change.content


def test_a_change_that_removes_what_was_never_there(archive: Aging) -> None:
    forge(archive, 0, lambda document: document["removed"][0].update(sha256="0" * 64))
    assert archive.errors() == [(16, keys(archive)[0])]


def test_a_change_that_removes_an_object_of_another_place(archive: Aging) -> None:
    archive.commit(range(50, 52), day=AGED)
    raw = next(ref for ref in reader.objects(archive.store) if ref.key.startswith("date="))
    last = decoded(archive)[-1]
    forged = replace(
        last,
        number=last.number + 1,
        previous=hashlib.sha256(archive.store.get(last.key)).hexdigest(),
        kind="erased",
        removed=(raw,),
        added=(),
        content=None,
        erased=raw.rows,
        holds=1,
    )
    archive.store.put(forged.key, changes.encode(forged))
    assert (16, forged.key) in archive.errors()


def test_rows_expired_before_their_time(archive: Aging) -> None:
    forge(archive, 2, lambda document: document.update(kind="expired"))
    assert archive.errors() == [(18, keys(archive)[2])]


def test_rows_erased_though_they_were_held(archive: Aging) -> None:
    archive.hold(Scope(region="EU"))
    forge(archive, 2, lambda document: document.update(holds=2))
    assert archive.errors() == [(18, keys(archive)[2])]


def test_rows_erased_by_somebody_who_did_not_look_for_holds(archive: Aging) -> None:
    forge(archive, 2, lambda document: document.update(holds=0))
    assert archive.errors() == [(18, keys(archive)[2])]


def erase_against_the_holds(archive: Aging, *, delete: bool) -> str:
    """Erase the rows of user 5, whose rows are held, by a tool that knows the holds and ignores them."""
    archive.hold(Scope(user=user(5)))
    maintenance = Maintenance(archive.store, who="rogue", clock=archive.clock)
    ((place, names),) = list_places(archive.store).items()
    inventory = maintenance.inventory(place, names)
    name, ref = inventory.live[0]
    table = segment.read(archive.store.get(ref.key))
    keep = ~compact.rows_of(frozenset([user(5)]), table)
    assert 0 < keep.sum() < len(keep)
    known = maintenance.holds()
    _, inventory = maintenance.remove_rows(inventory, name, ref, table, keep, "erased", known, case="7")
    if delete:
        maintenance.delete_removed(inventory, 0.0)
    return keys(archive)[-1]


def test_rows_of_a_held_user_erased(archive: Aging) -> None:
    change = erase_against_the_holds(archive, delete=False)
    (finding,) = [each for each in archive.verdict().findings if each.severity == "error"]
    assert (finding.rule, finding.key) == (18, change)
    assert finding.what == f"removes 4 rows of the user of {holds.key_of(1)}, which was in force"
    assert user(5) not in finding.what


def test_rows_of_a_held_user_erased_and_the_object_that_had_them_deleted(archive: Aging) -> None:
    """Nothing in the archive tells any more whose rows they were: it says that it cannot decide."""
    erase_against_the_holds(archive, delete=True)
    assert archive.errors() == []
    (notice,) = [each for each in archive.verdict().findings if each.rule == 18]
    assert (notice.severity, notice.key) == ("notice", holds.key_of(1))
    assert "1 changes removed 4 rows where this hold applies" in notice.what


def test_a_copy_of_the_deleted_object_proves_that_held_rows_were_erased(archive: Aging) -> None:
    before = {key: archive.store.get(key) for key in archive.objects()}
    change = erase_against_the_holds(archive, delete=True)
    assert archive.errors() == []
    for key, data in before.items():
        archive.store.put(key, data)
    assert archive.errors() == [(18, change)]


def test_rows_of_another_user_erased_while_a_users_rows_are_held(archive: Aging) -> None:
    archive.hold(Scope(user=user(5)))
    before = {key: archive.store.get(key) for key in archive.objects()}
    archive.erase(user(4))
    assert [each.severity for each in archive.verdict().findings if each.rule == 18] == ["notice"]
    for key, data in before.items():
        archive.store.put(key, data)
    assert [each for each in archive.verdict().findings if each.rule == 18] == []


def test_rows_of_a_user_whose_hold_was_released_erased(archive: Aging) -> None:
    number, now_ms = archive.hold(Scope(user=user(4))), int(archive.clock() * 1000)
    append_hold(archive.store, lambda known: holds.release(known, number, why="", who="", written_at_ms=now_ms))
    assert archive.erase(user(4)) > 0
    assert [each for each in archive.verdict().findings if each.rule == 18] == []


def test_rows_expired_too_soon_after_they_were_archived() -> None:
    """Their date is of years ago, as a producer's clock said that was wrong."""
    aging = Aging(MemoryStore(), Clock(200.0))
    aging.commit(range(7), day=-2_000)
    aging.tier()
    aging.erase(user(3))
    (change,) = [key for key in keys(aging) if key.endswith("1.json")]
    forge(aging, 1, lambda document: document.update(kind="expired"))
    assert aging.errors() == [(18, change)]
    assert "expires rows 0 days after they were archived; expected 730" in str(aging.verdict().findings)


def test_rows_that_an_earlier_release_expired_by_their_date_are_no_error() -> None:
    """Releases before 2027 counted the age of a row from its date alone."""
    aging = Aging(MemoryStore(), Clock(10.0))
    aging.commit(range(7), day=-2_000)
    aging.tier()
    aging.erase(user(3))
    forge(aging, 1, lambda document: document.update(kind="expired"))
    assert aging.errors() == []
    forge(aging, 1, lambda document: document.update(written_at_ms=int(Clock(9.0)() * 1000)))
    assert [rule for rule, _ in aging.errors()] == [18]  # it claims to be older than the rows


def test_rows_with_a_date_long_before_their_archiving_are_a_notice() -> None:
    aging = Aging(MemoryStore(), Clock(10.0))
    aging.commit(range(7), day=3)  # seven days, less some hours
    assert aging.verdict().findings == ()
    aging.commit(range(7, 14), day=1)
    aging.commit(range(14, 21), day=-2_000)
    assert [(each.rule, each.severity) for each in aging.verdict().findings] == [(22, "notice")] * 2
    aging.tier()
    (oldest, _) = (each for each in aging.verdict().findings if each.rule == 22)
    assert oldest.key == "date=2021-03-31/region=EU/"
    assert "1 objects with 14 rows have an implausible date" in oldest.what


def test_rows_with_a_date_after_their_archiving_are_a_notice(archive: Aging) -> None:
    clock = archive.clock
    writer = ChainWriter(archive.store, Chain("explanation-audit", 1), writer="sink", clock=clock)
    for at, ahead in enumerate((1, 3)):
        records = [audit(at, partition=1, day=int(clock.day) + ahead, region="US")]
        writer.commit(Batch(at, at + 1, slates(records, at)))
        found = [each.key for each in archive.verdict().findings if each.rule == 22 and "US" in each.key]
        assert len(found) == at


def test_a_resurrected_object(archive: Aging) -> None:
    raw = decoded(archive)[0].removed[0].key
    archive.store.put(raw, b"what was compacted long ago")
    assert archive.errors() == [(19, raw)]


def test_a_removed_hold(archive: Aging) -> None:
    archive.hold(Scope(user=user(5)))
    archive.store.delete(holds.key_of(0))
    assert (20, holds.key_of(1)) in archive.errors()


def test_the_only_hold_removed(archive: Aging) -> None:
    archive.store.delete(holds.key_of(0))
    assert (18, keys(archive)[2]) in archive.errors()


def test_a_rewritten_hold(archive: Aging) -> None:
    archive.hold(Scope(user=user(5)))
    key = holds.key_of(0)
    put(archive, key, archive.store.get(key).replace(b'"region":"US"', b'"region":"UK"'))
    assert archive.errors() == [(20, holds.key_of(1))]
    put(archive, key, b"{}")
    assert (20, key) in archive.errors()


def test_an_added_object_named_like_a_changes(archive: Aging) -> None:
    made = next(key for key in archive.objects() if key.startswith("cold/"))
    forged = made.replace(made[-24:], "0123456789abcdef.parquet")
    archive.store.put(forged, b"rows that nobody archived")
    assert (11, "notice") in [(each.rule, each.severity) for each in archive.verdict().findings]
    assert archive.errors() == []
    late = made[: -len("00000000-0123456789abcdef.parquet")] + "00000099-0123456789abcdef.parquet"
    archive.store.put(late, b"rows that nobody archived")
    assert archive.errors() == [(11, late)]
