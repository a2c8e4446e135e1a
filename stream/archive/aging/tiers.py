"""Where archived rows lie as they age, and the task that takes them there.

A day is closed some hours after its end, late rows allowed for. A closed day is compacted where it is: one object per
date, region and partition, sorted by user. After 90 days these objects move to the cold tier, and after two years they
expire, but for what is held. What comes late to a day that was compacted is compacted by the next run.

Each date and region is a task of its own, and can be run again at any time: it does what is still to be done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stream.archive.aging import compact
from stream.archive.aging.policy import GRACE_S, TIERS, age_days
from stream.archive.aging.stock import Stock, Warehouse
from stream.archive.log.changes import Done
from stream.archive.log.commitlog import ObjectRef
from stream.archive.log.holds import Holds
from stream.archive.log.names import ObjectName, Place

Deed = Literal["compact", "move", "expire", "delete"]


@dataclass(frozen=True, slots=True)
class Step:
    """Something done, or to be done, at a place: how many objects became how many, and their bytes and rows."""

    place: Place
    deed: Deed
    objects: int
    into: int
    bytes: int
    bytes_after: int | None
    rows: int


def settled(place: Place, names: Sequence[ObjectName], now_s: float) -> bool:
    """Say whether the names of a place's objects alone tell that there is nothing to do: true of nearly all places."""
    age = age_days(place, now_s)
    made = {name.chain for name in names if name.number is not None}
    tier = TIERS["hot"] if age < TIERS["hot"].until_days else TIERS["cold"]
    in_place = all(name.tier == tier.prefix for name in names)
    # One object of each chain, and none from a sink: neither late rows, nor something that was to be deleted.
    return in_place and len(made) == len(names) and age < TIERS["cold"].until_days


def plan(stock: Stock, held: Holds, now_s: float, *, open_hours: float) -> list[Step]:
    """Say what a run would do at a place now."""
    age = age_days(stock.place, now_s)
    if age >= TIERS["cold"].until_days:
        users = held.users(stock.place)
        refs = [] if held.whole(stock.place) else [ref for _, ref in stock.live]
        # Whose rows those are is known once they are read; what is held may turn out to be all there is.
        return [_step(stock.place, "expire", refs, None if users else 0)] if refs else []
    hot = [ref for _, ref in _hot(stock)]
    groups = compact.groups(_hot(stock)) if age * 24 >= open_hours else []
    steps = [_step(stock.place, "compact", group, None, into=1) for group in groups]
    if age >= TIERS["hot"].until_days and hot:
        objects = len(hot) - sum(map(len, groups)) + len(groups)
        steps.append(replace(_step(stock.place, "move", hot, None, into=objects), objects=objects))
    return steps


def run(warehouse: Warehouse, stock: Stock, *, open_hours: float, grace_s: float = GRACE_S) -> Iterator[Step]:
    """Do what is to be done at a place, and tell each step when it is recorded.

    Raises:
        DamagedObject: an object is not what the archive states; the steps told before stand.
        Contended, ArchiveChanged: another task was first; run again.
        ArchiveError: the store does not answer.

    """
    held = warehouse.holds()
    age = age_days(stock.place, warehouse.now())
    if age >= TIERS["cold"].until_days:
        if not held.whole(stock.place):
            for step, after in _expire(warehouse, stock, held):
                yield step
                stock = after
    elif age * 24 >= open_hours:
        for group in compact.groups(_hot(stock)):
            step, stock = _compact(warehouse, stock, group, held)
            yield step
        if age >= TIERS["hot"].until_days and _hot(stock):
            step, stock = _move(warehouse, stock, held)
            yield step
    cleared = warehouse.clear(stock, grace_s)
    if cleared:
        yield _step(stock.place, "delete", cleared, 0)


def _compact(warehouse: Warehouse, stock: Stock, group: list[ObjectRef], held: Holds) -> tuple[Step, Stock]:
    tables = warehouse.tables(group)
    name = next(name for name, ref in stock.live if ref == group[0])
    made = compact.merged(tables, stock.place, name.chain, stock.state.number)
    warehouse.put(made.ref, made.data, TIERS["hot"].storage_class)
    after = warehouse.enter(stock, Done("compacted", tuple(group), (made.ref,), made.content), held)
    return _step(stock.place, "compact", group, made.ref.bytes, into=1), after


def _move(warehouse: Warehouse, stock: Stock, held: Holds) -> tuple[Step, Stock]:
    hot = [ref for _, ref in _hot(stock)]
    cold = [replace(ref, key=TIERS["cold"].prefix + ref.key) for ref in hot]
    for ref, moved in zip(hot, cold, strict=True):
        warehouse.put(moved, compact.checked(ref, warehouse.get(ref)), TIERS["cold"].storage_class)
    after = warehouse.enter(stock, Done("moved", tuple(hot), tuple(cold)), held)
    return _step(stock.place, "move", hot, sum(ref.bytes for ref in cold), into=len(cold)), after


def _expire(warehouse: Warehouse, stock: Stock, held: Holds) -> Iterator[tuple[Step, Stock]]:
    users = held.users(stock.place)
    if not users and stock.live:
        refs = [ref for _, ref in stock.live]
        done = Done("expired", tuple(refs), (), erased=sum(ref.rows for ref in refs))
        yield _step(stock.place, "expire", refs, 0), warehouse.enter(stock, done, held)
        return
    for name, ref in stock.live:
        table = compact.table_of(ref, warehouse.get(ref))
        keep = compact.rows_of(users, table)
        if not keep.all():
            made, stock = warehouse.withdraw(stock, name, ref, table, keep, "expired", held)
            step = _step(stock.place, "expire", [ref], made.bytes if made else 0, into=1 if made else 0)
            yield replace(step, rows=int((~keep).sum())), stock


def _hot(stock: Stock) -> list[tuple[ObjectName, ObjectRef]]:
    return [(name, ref) for name, ref in stock.live if not name.tier]


def _step(place: Place, deed: Deed, refs: Sequence[ObjectRef], bytes_after: int | None, into: int = 0) -> Step:
    return Step(
        place, deed, len(refs), into, sum(ref.bytes for ref in refs), bytes_after, sum(ref.rows for ref in refs)
    )
