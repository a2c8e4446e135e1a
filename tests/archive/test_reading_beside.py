"""Readers and verifiers beside tasks: at whatever moment an archive is changed, they see it once and whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import pytest

from stream.archive.log.commitlog import ObjectRef
from stream.archive.objects import MemoryStore, Store
from stream.archive.reading import reader, statistics
from stream.archive.store import open_store
from tests.archive.aging import Aging, user
from tests.archive.checks import verdict_of
from tests.archive.meddled import MeddledStore


def filled() -> Aging:
    aging = Aging(MemoryStore())
    for first in (0, 7):
        aging.commit(range(first, first + 7))
    aging.clock.day = 2
    aging.tier()
    aging.commit(range(14, 21))
    aging.commit(range(40, 47), day=1, region="US")
    return aging


DEEDS: dict[str, tuple[Callable[[Aging], object], set[int]]] = {
    "a sink commits": (lambda aging: aging.commit(range(21, 28)), {56, 70}),
    "a day is compacted": (lambda aging: aging.tier(), {56}),
    "a user is erased": (lambda aging: aging.erase(user(3)), {56, 48}),
}
"""What happens, and how many impressions a reader may then count: those of before or those of after."""


@pytest.mark.parametrize("name", DEEDS)
def test_whoever_counts_counts_each_impression_once(name: str) -> None:
    deed, counts = DEEDS[name]
    at, calls = 0, 1
    while at < calls:
        aging = filled()
        store = MeddledStore(aging.store, at, lambda aging=aging: deed(aging))  # type: ignore[misc]

        def counted(store: Store = store) -> int:
            refs = reader.objects(store)
            return statistics.count(reader.rows(store, refs, statistics.COLUMNS)).impressions

        assert reader.again(counted) in counts, at
        at, calls = at + 1, store.calls
    assert at > 5


@pytest.mark.parametrize("name", DEEDS)
def test_whoever_verifies_finds_nothing_wrong(name: str) -> None:
    deed, _ = DEEDS[name]
    at, calls = 0, 1
    while at < calls:
        aging = filled()
        store = MeddledStore(aging.store, at, lambda aging=aging: deed(aging))  # type: ignore[misc]
        verdict = verdict_of(store)
        assert verdict.consistent, (at, verdict.findings)
        at, calls = at + 1, store.calls
    assert at > 10


def test_an_object_that_goes_away_between_two_reads_of_it(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aging = Aging(open_store(s3_url))
    aging.commit(range(7))
    aging.clock.day = 2
    ref = next(reader.objects(aging.store))
    rows = reader.rows(aging.store, [ref], ["item_id"])
    opened = reader.opened

    def slow(store: Store, ref: ObjectRef) -> BinaryIO:
        file = opened(store, ref)
        file.seek(0)
        aging.tier()
        return file

    monkeypatch.setattr(reader, "opened", slow)
    with pytest.raises(reader.ArchiveChanged, match="was compacted just before"):
        rows.read_all()
