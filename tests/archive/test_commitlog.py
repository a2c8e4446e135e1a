"""The commit log: canonical bytes, a chain that adds up, and errors that say what does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.archive.log import commitlog
from stream.archive.log.commitlog import Chain, Entry, Gap, InvalidEntry, ObjectRef, Origin, Tail, Written
from stream.archive.log.intervals import Intervals
from stream.archive.log.sources import Source

CHAIN = Chain("explanation-audit", 3)

SOURCE = Source("id-1", 3)

FIRST_FORMAT = (
    b'{"absorbed":0,"chain":"explanation-audit","first":0,"format":1,"gaps":[{"first":0,"next":4,"reason":"expired"}],'
    b'"next":10,"objects":[{"bytes":11,"key":"k","rows":4,"sha256":"ab"}],"origin":{"cluster":"c","topic":"t"},'
    b'"partition":3,"previous":null,"rejected":[[9,10]],"repeats":1,"rows":4,"slates":4,"sources":{"3":[[0,3],[5,6]]},'
    b'"writer":"w","written_at_ms":7}\n'
)
GOLDEN = FIRST_FORMAT.replace(b'"format":1', b'"format":2').replace(
    b'{"3":[[0,3],[5,6]]}', b'{"id-1":{"3":[[0,3],[5,6]]}}'
)


def entry() -> Entry:
    written = Written(
        10,
        (ObjectRef("k", "ab", 11, 4),),
        1,
        Intervals.of([(9, 10)]),
        (Gap(0, 4, "expired"),),
        {SOURCE: Intervals.of([(0, 3), (5, 6)])},
    )
    return commitlog.append(Tail(), CHAIN, written, origin=Origin("c", "t"), writer="w", written_at_ms=7)


def test_the_newest_format_is_read_and_written() -> None:
    assert commitlog.encode(entry()) == GOLDEN
    assert commitlog.decode(GOLDEN) == entry()


def test_the_first_format_is_still_read_and_its_chain_continued() -> None:
    older = commitlog.decode(FIRST_FORMAT)
    assert older == replace(entry(), format=1, sources={Source("", 3): Intervals.of([(0, 3), (5, 6)])})
    assert commitlog.encode(older) == FIRST_FORMAT
    tail = commitlog.tail_after(older, FIRST_FORMAT)
    written = Written(11, (), 0, Intervals(), (), {SOURCE: Intervals.of([(3, 4)])})
    newer = commitlog.append(tail, CHAIN, written, origin=Origin("c", "t"), writer="w", written_at_ms=8)
    # The first topic with an id takes over what was archived when none was asked for.
    assert newer.sources == {SOURCE: Intervals.of([(0, 4), (5, 6)])}
    assert commitlog.watermark_faults(tail, newer) == []
    lost = replace(newer, sources={SOURCE: Intervals.of([(1, 6)])})
    assert "lost some" in commitlog.watermark_faults(tail, lost)[0]


def test_keys_sort_as_their_offsets_do() -> None:
    assert CHAIN.key(42) == "_commits/explanation-audit/3/00000000000000000042.json"
    assert commitlog.parse_key(CHAIN.key(42)) == (CHAIN, 42)
    assert CHAIN.key(9) < CHAIN.key(10) < CHAIN.key(2**62)


@pytest.mark.parametrize(
    "key",
    [
        "_commits/explanation-audit/3/42.json",
        "_commits/explanation-audit/03/00000000000000000042.json",
        "_commits/a/b/3/00000000000000000042.json",
        "_commits/explanation-audit/3/00000000000000000042.json.bak",
    ],
)
def test_other_keys_are_no_entries(key: str) -> None:
    with pytest.raises(InvalidEntry):
        commitlog.parse_key(key)


spans = st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 20)), max_size=5)


@given(spans, st.integers(0, 5), st.text(max_size=10))
def test_what_is_written_is_read_and_written_the_same(new: list[tuple[int, int]], repeats: int, writer: str) -> None:
    archived = Intervals.of((first, first + length) for first, length in new)
    upto = len(archived) + repeats + 1
    written = Written(upto, (), repeats, Intervals.of([(0, 1)]), (), {Source("id", 7): archived})
    made = commitlog.append(Tail(), CHAIN, written, origin=None, writer=writer, written_at_ms=1)
    data = commitlog.encode(made)
    assert commitlog.decode(data) == made
    assert commitlog.encode(commitlog.decode(data)) == data
    assert data.isascii()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a commit entry"),
        (b"[]", "not a commit entry"),
        (b"{}", "not a commit entry"),
        (GOLDEN.replace(b'"format":2', b'"format":3'), "format 3; expected 1 or 2"),
        (GOLDEN.replace(b'"format":2', b'"format":1'), "not a commit entry"),
        (GOLDEN.replace(b'"writer":"w",', b""), "not a commit entry"),
        (GOLDEN.replace(b'"rows":4,"slates"', b'"rows":5,"slates"'), "canonical"),
        (GOLDEN.replace(b",", b", ", 1), "canonical"),
        (GOLDEN.rstrip(), "canonical"),
        (GOLDEN.replace(b"[[0,3],[5,6]]", b"[[0,3],[3,4]]"), "canonical"),
    ],
)
def test_other_bytes_are_no_entry(data: bytes, says: str) -> None:
    with pytest.raises(InvalidEntry, match=says):
        commitlog.decode(data)


def test_numbers_that_do_not_add_up_are_faults() -> None:
    sound = entry()
    assert commitlog.faults(sound) == []
    assert "accounts for 11 of 10" in commitlog.faults(replace(sound, repeats=2))[0]
    assert "at least one" in commitlog.faults(replace(sound, next=0))[0]
    outside = replace(sound, rejected=Intervals.of([(10, 11)]))
    assert any("outside" in fault for fault in commitlog.faults(outside))
    twice = replace(sound, rejected=Intervals.of([(3, 4)]))
    assert any("twice" in fault for fault in commitlog.faults(twice))


def test_an_entry_that_does_not_add_up_cannot_be_made() -> None:
    with pytest.raises(InvalidEntry, match="accounts for 0 of 5"):
        commitlog.append(
            Tail(), CHAIN, Written(5, (), 0, Intervals(), (), {}), origin=None, writer="w", written_at_ms=0
        )


def test_links_are_checked() -> None:
    first = entry()
    tail = commitlog.tail_after(first, commitlog.encode(first))
    written = Written(12, (), 0, Intervals(), (), {SOURCE: Intervals.of([(3, 5)])})
    second = commitlog.append(tail, CHAIN, written, origin=Origin("c", "t"), writer="w", written_at_ms=8)
    assert commitlog.link_faults(tail, second) == []
    assert commitlog.watermark_faults(tail, second) == []
    assert second.sources[SOURCE].spans == ((0, 6),)
    assert "leaves out offsets 10 to 10" in commitlog.link_faults(tail, replace(second, first=11))[0]
    assert "repeats offsets 9 to 9" in commitlog.link_faults(tail, replace(second, first=9))[0]
    assert "SHA-256" in commitlog.link_faults(tail, replace(second, previous="00"))[0]
    assert "was written from" in commitlog.link_faults(tail, replace(second, origin=Origin("c", "other")))[0]
    assert "lost some" in commitlog.watermark_faults(tail, replace(second, sources={SOURCE: Intervals.of([(3, 9)])}))[0]
    assert "grow from 4" in commitlog.watermark_faults(tail, replace(second, slates=3))[0]


def test_the_watermark_stays_bounded_and_says_what_it_gave_up() -> None:
    holes = Intervals.of((2 * n, 2 * n + 1) for n in range(commitlog.MAX_SPANS + 5))
    written = Written(len(holes), (), 0, Intervals(), (), {SOURCE: holes})
    made = commitlog.append(Tail(), CHAIN, written, origin=None, writer="w", written_at_ms=0)
    assert len(made.sources[SOURCE].spans) == commitlog.MAX_SPANS
    assert made.absorbed == 5
    assert json.loads(commitlog.encode(made))["absorbed"] == 5
    assert commitlog.watermark_faults(Tail(), made) == []
