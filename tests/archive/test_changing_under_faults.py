"""Tiering and erasing under crashes and beside sinks: whatever happens, a re-run gives the same archive as no crash."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stream.archive.aging.maintenance import Contended, Inventory, Maintenance, list_places
from stream.archive.aging.policy import TIERS
from stream.archive.log import changes
from stream.archive.log.holds import Holds, Scope
from stream.archive.objects import MemoryStore, Store, StoreUnavailable
from stream.archive.proof.findings import Finding
from stream.archive.reading.reader import ArchiveChanged
from stream.archive.store import open_store
from tests.archive.aging import Aging, user
from tests.archive.checks import archived_items, items_of
from tests.archive.faulty import Crash, FaultyStore, Moment
from tests.archive.meddled import MeddledStore

pytestmark = pytest.mark.slow

HOT, COLD = TIERS["hot"].until_days, TIERS["cold"].until_days


def filled() -> Aging:
    aging = Aging(MemoryStore())
    for first in (0, 7):
        aging.commit(range(first, first + 7))
    aging.commit(range(7), partition=1)
    aging.hold(Scope(user=user(2)))
    aging.clock.day = HOT + 2
    return aging


def compact_and_move(aging: Aging, store: Store) -> None:
    aging.tier(store)


def erase(aging: Aging, store: Store) -> None:
    aging.erase(user(4), store)


def expire_but_for_the_held(aging: Aging, store: Store) -> None:
    aging.clock.day = COLD + 2
    aging.tier(store)


def findings(aging: Aging) -> list[Finding]:
    """All findings but two notices: late rows, and erasures beside a user's hold, which cannot be judged afterwards."""
    expected = {(18, "notice"), (22, "notice")}
    return [each for each in aging.verdict().findings if (each.rule, each.severity) not in expected]


TASKS: list[tuple[Callable[[Aging, FaultyStore], None], Callable[[], Aging]]] = [
    (compact_and_move, filled),
    (erase, filled),
    (expire_but_for_the_held, filled),
]


def contents(aging: Aging) -> dict[str, bytes]:
    return {info.key: aging.store.get(info.key) for info in aging.store.list("")}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("task", "begin"), TASKS, ids=[task.__name__ for task, _ in TASKS])
@pytest.mark.parametrize("dies", [True, False])
def test_a_crash_or_an_error_at_any_call_that_writes(
    task: Callable[[Aging, FaultyStore], None], begin: Callable[[], Aging], moment: Moment, dies: bool
) -> None:
    expected = begin()
    before = archived_items(expected.store)
    counting = FaultyStore(expected.store)
    task(expected, counting)
    after = archived_items(expected.store)
    assert counting.writes >= 5
    for at in range(counting.writes):
        aging = begin()
        with pytest.raises((Crash, StoreUnavailable)):
            task(aging, FaultyStore(aging.store, at, moment, dies=dies))
        seen = archived_items(aging.store)
        assert aging.verdict().consistent, at
        assert set(after) <= set(seen) <= set(before)
        assert len(seen) == len(set(seen))
        task(aging, FaultyStore(aging.store))
        assert contents(aging) == contents(expected), at
        assert findings(aging) == []


RIVALS: dict[str, Callable[[Aging], object]] = {
    "another run of tier": lambda aging: aging.tier(),
    "an erasure": lambda aging: aging.erase(user(5)),
    "a sink": lambda aging: aging.commit(range(20, 24)),
    "a hold": lambda aging: aging.hold(Scope(user=user(4))),
}


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("task", [compact_and_move, erase])
def test_a_rival_at_any_moment(task: Callable[[Aging, Store], None], rival: str) -> None:
    at, calls = 0, 1
    while at < calls:
        aging = filled()
        store = MeddledStore(aging.store, at, lambda aging=aging: RIVALS[rival](aging))  # type: ignore[misc]
        with contextlib.suppress(Contended, ArchiveChanged):
            task(aging, store)
        assert aging.verdict().consistent, (at, aging.verdict().findings)
        seen = archived_items(aging.store)
        assert len(seen) == len(set(seen)), at
        # Whoever gave way does it next time; nothing is lost by that, and nothing is left behind.
        task(aging, aging.store)
        aging.tier()
        everything = [*items_of(0, range(14)), *items_of(1, range(7))]
        everything += items_of(0, range(20, 24)) if rival == "a sink" else []
        erased = {4} if task is erase and rival != "a hold" else set()
        erased |= {5} if rival == "an erasure" else set()
        seen = archived_items(aging.store)
        if task is erase and rival == "a hold":
            seen = [item for item in seen if item[1] % 7 != 4]  # erased before the hold came, or held
            erased = {4}
        assert seen == sorted(item for item in everything if item[1] % 7 not in erased), at
        assert findings(aging) == [], at
        at, calls = at + 1, store.calls
    assert at > 10


def test_a_move_that_gives_way_takes_nothing_from_the_next_one() -> None:
    """It was overtaken by an erasure; what it had copied, another move may be about to enter."""
    at, calls = 0, 1
    while at < calls:
        aging = Aging(MemoryStore())
        aging.commit(range(7))
        aging.commit(range(3), partition=1)
        aging.clock.day = 3
        aging.tier()
        aging.clock.day = HOT + 2
        maintenance = Maintenance(aging.store, who="overtaken", clock=aging.clock)
        ((place, names),) = list_places(aging.store).items()
        before = maintenance.inventory(place, names)
        aging.erase(user(5))

        def overtaken(before: Inventory = before, maintenance: Maintenance = maintenance) -> None:
            cold = [replace(ref, key=f"cold/{ref.key}") for _, ref in before.live]
            done = changes.Transaction("moved", tuple(ref for _, ref in before.live), tuple(cold))
            with pytest.raises(Contended):
                maintenance.commit(before, done, Holds())

        store = MeddledStore(aging.store, at, overtaken)
        aging.tier(store)
        assert archived_items(aging.store) == sorted(
            [*items_of(0, [each for each in range(7) if each != 5]), *items_of(1, range(3))]
        ), at
        assert findings(aging) == [], at
        at, calls = at + 1, store.calls
    assert at > 10


class Histories(RuleBasedStateMachine):
    """Sinks commit, tasks run and crash, time goes by: what readers see follows from that alone."""

    @initialize()
    def begin(self) -> None:
        self.aging = Aging(MemoryStore())
        self.next = 0
        self.there: dict[tuple[int, int, str], int] = {}  # the day of each impression that must be seen
        self.unsettled: set[tuple[int, int, str]] = set()  # those that a crashed task may have removed, or not

    @rule(count=st.integers(1, 9), late=st.integers(0, 3))
    def commit(self, count: int, late: int) -> None:
        day = max(0, int(self.aging.clock.day) - late)
        offsets = range(self.next, self.next + count)
        self.aging.commit(offsets, day=day)
        self.next += count
        self.there |= dict.fromkeys(items_of(0, offsets), day)

    @rule(days=st.sampled_from([0.3, 1.0, 30.0, 90.0, 400.0]))
    def wait(self, days: float) -> None:
        self.aging.clock.day += days

    @rule(fault=st.none() | st.tuples(st.integers(0, 8), st.sampled_from(["before", "after"])), grace=st.booleans())
    def tier(self, fault: tuple[int, Moment] | None, grace: bool) -> None:
        # The first event is at 14:13 of its day. A row expires with the youngest one of its object, which was archived
        # up to four days later.
        ages = {item: self.aging.clock.day - day + 14.2 / 24 - 1 for item, day in self.there.items()}
        gone = {item for item, age in ages.items() if age >= COLD + 4}
        self.unsettled |= {item for item, age in ages.items() if COLD <= age < COLD + 4}
        self.attempt(lambda store: self.aging.tier(store, grace_s=3600.0 if grace else 0.0), fault, gone)

    @rule(
        number=st.integers(0, 6),
        fault=st.none() | st.tuples(st.integers(0, 8), st.sampled_from(["before", "after"])),
    )
    def erase(self, number: int, fault: tuple[int, Moment] | None) -> None:
        gone = {item for item in self.there if item[1] % 7 == number}
        self.attempt(lambda store: self.aging.erase(user(number), store), fault, gone)

    def attempt(
        self,
        task: Callable[[FaultyStore], object],
        fault: tuple[int, Moment] | None,
        gone: set[tuple[int, int, str]],
    ) -> None:
        at, moment = fault or (None, "before")
        try:
            task(FaultyStore(self.aging.store, at, moment))
        except Crash:
            self.unsettled |= gone
        else:
            self.unsettled -= gone
            for item in gone:
                del self.there[item]

    @invariant()
    def readers_see_what_was_archived_and_not_removed_once(self) -> None:
        if not hasattr(self, "aging"):
            return
        seen = archived_items(self.aging.store)
        assert len(seen) == len(set(seen))
        assert set(self.there) - self.unsettled <= set(seen) <= set(self.there)
        errors = [finding for finding in self.aging.verdict().findings if finding.severity == "error"]
        # Time flies here: what a crash left is soon a day old, and a run of tier or sweep away.
        assert all(finding.leftover for finding in errors), errors


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=int(os.environ.get("WHYREC_SCHEDULES", "200")) // 4, stateful_step_count=15, deadline=None
)


KILLED = """
import os, sys
from stream.archive import store as stores
from tests.archive.aging import Aging, Clock, user
url, what, at, day = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
inner, calls = stores.open_archive(stores.Settings(archive_url=url)), 0

class Deadly:
    url = inner.url
    def __getattr__(self, name):
        call = getattr(inner, name)
        if name not in ("put", "put_if_absent", "delete"):
            return call
        def counted(*arguments):
            global calls
            calls += 1
            if calls == at:
                print("at", name, flush=True)
                sys.stdin.readline()  # killed here, or a moment later in the middle of the call
            return call(*arguments)
        return counted

aging = Aging(inner, Clock(day))
aging.tier(Deadly()) if what == "tier" else aging.erase(user(4), Deadly())
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["folder", pytest.param("s3", marks=pytest.mark.server("s3_server"))])
def test_kill_9_at_several_steps(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = str(tmp_path / "archive") if where == "folder" else request.getfixturevalue("s3_url")
    expected = filled()
    store = open_store(url)
    for key, data in contents(expected).items():
        store.put(key, data)
    killed = Aging(store, expected.clock)
    before = archived_items(store)
    for what in ("tier", "erase"):
        for at in (2, 4, 6) if where == "folder" else (3, 5):
            command = [sys.executable, "-c", KILLED, url, what, str(at), str(killed.clock.day)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
            )
            assert process.stdout is not None
            assert process.stdin is not None
            reached = process.stdout.readline()
            if at in (4, 5) and reached:
                process.stdin.write(b"\n")
                process.stdin.flush()
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
            process.stdin.close()
            process.stdout.close()
            seen = archived_items(store)
            assert len(seen) == len(set(seen))
            assert {item for item in before if item[1] % 7 != 4} <= set(seen) <= set(before)
            assert killed.verdict().consistent
    killed.tier()
    killed.erase(user(4))
    killed.tier()
    expected.tier()
    expected.erase(user(4))
    expected.tier()
    assert archived_items(store) == archived_items(expected.store)
    assert findings(killed) == []
