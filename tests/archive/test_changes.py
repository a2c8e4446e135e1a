"""The change log: canonical bytes, a chain that adds up, and what readers see after each change."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.archive.log import changes
from stream.archive.log.changes import Change, InvalidChange, State, Transaction
from stream.archive.log.commitlog import Chain, ObjectRef
from stream.archive.log.names import ObjectName, Place, object_name, segment_name
from stream.archive.rows import segment
from stream.archive.rows.content import content_digest
from tests.archive.slates_of import audit, slates

PLACE = Place("2026-09-21", "EU")
CHAIN = Chain("explanation-audit", 3)
RAW = "date=2026-09-21/region=EU/explanation-audit-3-00000000000000000000-aaaaaaaaaaaaaaaa.parquet"

FIRST = (
    b'{"added":[{"bytes":7,"key":"date=2026-09-21/region=EU/explanation-audit-3-00000000-bbbbbbbbbbbbbbbb.parquet",'
    b'"rows":4,"sha256":"bbbbbbbbbbbbbbbb"}],"case":"","content":"cc","date":"2026-09-21","erased":0,"format":1,'
    b'"holds":2,"kind":"compacted","number":0,"previous":null,"region":"EU","removed":[{"bytes":9,"key":"'
    + RAW.encode()
    + b'","rows":4,"sha256":"aa"}],"who":"w","written_at_ms":7}\n'
)
GOLDEN = (
    FIRST.replace(b'"format":1', b'"format":2')
    .replace(b'.parquet","rows":4,"sha256":"b', b'.parquet","modulus":32,"rows":4,"sha256":"b')
    .replace(b'","rows":4,"sha256":"aa"', b'","modulus":null,"rows":4,"sha256":"aa"')
)


def added(number: int, digest: str = "b" * 16, rows: int = 4) -> ObjectRef:
    return ObjectRef(ObjectName("", PLACE, CHAIN, None, number, digest).key, digest, 7, rows)


def compacted(state: State | None = None, removed: ObjectRef | None = None) -> Change:
    state = state or State()
    done = Transaction("compacted", (removed or ObjectRef(RAW, "aa", 9, 4),), (added(state.number),), "cc")
    return changes.append(state, PLACE, done, holds=2, who="w", written_at_ms=7)


def test_a_change_is_written_as_it_always_was() -> None:
    change = compacted()
    change = replace(change, added=(replace(change.added[0], modulus=32),))
    assert changes.encode(change) == GOLDEN
    assert changes.decode(GOLDEN) == change


def test_the_first_format_is_still_read_and_its_chain_continued() -> None:
    first = changes.decode(FIRST)
    assert (first, changes.encode(first)) == (replace(compacted(), format=1), FIRST)
    second = compacted(State().after(first, FIRST), first.added[0])
    assert changes.decode(changes.encode(second)) == second
    assert changes.link_faults(State().after(first, FIRST), second) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a change"),
        (b"[]", "not a change"),
        (b"{}", "not a change"),
        (GOLDEN.replace(b'"format":2', b'"format":3'), "format 3; expected 1 or 2"),
        (GOLDEN.replace(b'"format":2', b'"format":1'), "canonical"),
        (GOLDEN.replace(b'"modulus":32', b'"modulus":1'), "modulus 1; expected null"),
        (GOLDEN.replace(b'"modulus":32', b'"modulus":"32"'), "modulus '32'; expected null"),
        (GOLDEN.replace(b'"kind":"compacted"', b'"kind":"improved"'), "kind 'improved'; expected one of compacted"),
        (GOLDEN.replace(b'"who":"w",', b""), "not a change"),
        (GOLDEN.replace(b",", b", ", 1), "canonical"),
        (GOLDEN.rstrip(), "canonical"),
    ],
)
def test_other_bytes_are_no_change(data: bytes, says: str) -> None:
    with pytest.raises(InvalidChange, match=says):
        changes.decode(data)


def test_keys_name_place_and_number_and_nothing_else_does() -> None:
    for place in (PLACE, Place("2026-01-01", "a/b %")):
        assert changes.parse_key(place.key(12)) == (place, 12)
    for key in (PLACE.key(1) + ".bak", "_changes/date=2026-13-01/region=EU/00000000.json", "_changes/notes.txt"):
        with pytest.raises(InvalidChange):
            changes.parse_key(key)


def test_an_objects_key_says_which_tier_place_and_chain_it_is_of() -> None:
    sinks = object_name(RAW)
    assert sinks == ObjectName("", PLACE, CHAIN, 0, None, "a" * 16)
    ours = object_name("cold/" + added(5).key)
    assert ours == ObjectName("cold/", PLACE, CHAIN, None, 5, "b" * 16)
    assert (sinks.key, ours.key) == (RAW, "cold/" + added(5).key)
    assert segment_name(added(5).key) is None  # a sink's object and a change's cannot be taken for each other
    assert object_name("date=2026-09-21/region=EU/part-0.parquet") is None


def test_readers_see_what_was_committed_without_what_was_removed_and_with_what_was_added() -> None:
    raw, late = ObjectRef(RAW, "aa", 9, 4), ObjectRef(RAW.replace("a" * 16, "d" * 16), "dd", 9, 2)
    change = compacted()
    first = State().after(change, changes.encode(change))
    assert State().live([raw, late]) == [raw, late]
    assert first.live([raw, late]) == [late, added(0)]
    cold = replace(added(0), key="cold/" + added(0).key)
    moved = changes.append(first, PLACE, Transaction("moved", (added(0),), (cold,)), holds=0, who="w", written_at_ms=8)
    second = first.after(moved, changes.encode(moved))
    assert second.live([raw, late]) == [late, cold]
    gone = changes.append(
        second, PLACE, Transaction("expired", (cold,), (), erased=4), holds=0, who="w", written_at_ms=9
    )
    third = second.after(gone, changes.encode(gone))
    assert (third.live([raw, late]), third.erased, third.number) == ([late], 4, 3)


def test_numbers_that_do_not_add_up_are_faults() -> None:
    sound = compacted()
    assert changes.faults(sound) == []
    assert "removes 4 rows, but adds 4 and erases 1" in changes.faults(replace(sound, erased=1))[0]
    assert "removes no object" in changes.faults(replace(sound, removed=(), added=(), content=None))[0]
    assert "names an object twice" in changes.faults(replace(sound, removed=sound.added))[0]
    assert (
        "though it is a change of kind compacted"
        in changes.faults(replace(sound, added=(added(0, rows=3),), erased=1))[0]
    )
    assert "states no digest" in changes.faults(replace(sound, content=None))[0]
    assert "not the key of its object" in changes.faults(replace(sound, added=(added(1),)))[0]
    assert "than it removes" in changes.faults(replace(sound, kind="moved"))[0]


def test_links_are_checked() -> None:
    first = compacted()
    state = State().after(first, changes.encode(first))
    second = compacted(state, added(0))
    assert changes.link_faults(state, second) == []
    assert "has number 2, expected 1" in changes.link_faults(state, replace(second, number=2))[0]
    assert "SHA-256" in changes.link_faults(state, replace(second, previous=None))[0]
    with pytest.raises(InvalidChange, match="removed before"):
        compacted(state)


table = slates([audit(offset, partition=offset % 2) for offset in range(8)]).table


@given(st.permutations(range(16)), st.integers(1, 15))
def test_the_content_does_not_depend_on_the_order_or_the_pieces(order: list[int], cut: int) -> None:
    shuffled = table.take(order)
    pieces = pa.concat_tables([shuffled.slice(cut), shuffled.slice(0, cut)])
    assert content_digest(pieces) == content_digest(table)
    assert content_digest(segment.read(segment.write(pieces))) == content_digest(table)
    assert content_digest(shuffled.slice(1)) != content_digest(table)


@pytest.mark.parametrize("column", table.schema.names)
def test_the_content_depends_on_every_value_of_every_column(column: str) -> None:
    exchanged = (
        table[column].take(pa.array([*range(2, 16), 0, 1]))
        if column != "position"
        else table[column].take(pa.array([*range(1, 16), 0]))
    )
    other = table.set_column(table.schema.get_field_index(column), table.schema.field(column), exchanged)
    values = table[column].to_pylist()
    same = exchanged.to_pylist() == values
    assert (content_digest(other) == content_digest(table)) == same


def test_a_column_of_nulls_is_as_good_as_none() -> None:
    wider = table.append_column("later", pa.nulls(16, pa.string()))
    assert content_digest(wider) == content_digest(table)
    filled = table.append_column("later", pa.array(["x", None] * 8))
    other = table.append_column("later", pa.array([None, "x"] * 8))
    assert len({content_digest(each) for each in (table, filled, other)}) == 3
