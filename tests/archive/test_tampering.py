"""Every attack on what was changed, on its record and on the holds is found; each test is named after one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from stream.archive.aging.policy import TIERS
from stream.archive.log import canonical, changes, holds
from stream.archive.log.changes import Change
from stream.archive.log.holds import Scope
from stream.archive.log.names import CHANGES, COLD
from stream.archive.objects import MemoryStore
from stream.archive.reading import reader
from stream.archive.rows import segment
from stream.archive.rows.content import content_digest
from tests.archive.aging import Aging, user

AGED = TIERS["hot"].until_days + 3


@pytest.fixture
def archive() -> Aging:
    """One place, changed four times: compacted, moved, erased from, and a late row compacted."""
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
    assert aging.verdict().findings == ()
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
        assert not archive.verdict().sound, f"byte {position}: {bytes(changed)!r}"


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
    assert [(each.rule, each.severity) for each in archive.verdict().findings] == [(11, "notice")]
    late = made[: -len("00000000-0123456789abcdef.parquet")] + "00000099-0123456789abcdef.parquet"
    archive.store.put(late, b"rows that nobody archived")
    assert archive.errors() == [(11, late)]
