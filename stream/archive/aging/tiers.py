"""Tiering: compaction of closed days, the move to the cold tier, and expiry.

A day is closed some hours after its end, so that late rows are in. The objects of a closed day are compacted: one
object for each date, region and partition, sorted by user. Objects of 90 days move to the cold tier, and objects of two
years expire, except for held rows (:mod:`stream.archive.aging.policy` says how an object's age is counted). The next
run compacts rows that were archived after a compaction.

Each date and region is a task of its own. A task can run again at any time; it does what is still to be done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from stream.archive.aging import compact
from stream.archive.aging.maintenance import Inventory, Maintenance
from stream.archive.aging.policy import GRACE_S, TIERS, age_days, days_since, is_late
from stream.archive.log.changes import Transaction
from stream.archive.log.commitlog import ObjectRef
from stream.archive.log.holds import Holds
from stream.archive.log.names import ObjectName, Place

Action = Literal["compact", "move", "expire", "delete"]

_MOVE_DAYS: Final = TIERS["hot"].until_days
_EXPIRE_DAYS: Final = TIERS["cold"].until_days


@dataclass(frozen=True, slots=True)
class Step:
    """One action at a place, done or planned: ``objects`` objects became ``into`` objects.

    ``bytes_after`` is None where the size is only known once the action is done.
    """

    place: Place
    action: Action
    objects: int
    into: int
    bytes: int
    bytes_after: int | None
    rows: int


@dataclass(frozen=True, slots=True)
class _Aged:
    """A live object, its age in days, and whether it was archived late."""

    name: ObjectName
    ref: ObjectRef
    age: float
    late: bool


def settled(place: Place, names: Sequence[ObjectName], now_s: float) -> bool:
    """Say whether the keys of a place's objects alone show that a run has nothing to do; true for nearly all places."""
    days = days_since(place, now_s)
    compacted = {name.chain for name in names if name.number is not None}
    tier = TIERS["hot"] if days < _MOVE_DAYS else TIERS["cold"]
    in_place = all(name.tier == tier.prefix for name in names)
    # One compacted object of each chain: no committed object waits for compaction, no removed one for its deletion.
    return in_place and len(compacted) == len(names) and days < _EXPIRE_DAYS


def plan(maintenance: Maintenance, inventory: Inventory, known: Holds, *, open_hours: float) -> list[Step]:
    """Return the steps that a run would take at a place now, without deletions."""
    place = inventory.place
    objects = _aged(maintenance, inventory)
    steps: list[Step] = []
    expired = [] if known.hold_everything(place) else [each.ref for each in objects if each.age >= _EXPIRE_DAYS]
    if expired:
        # Only a run reads which rows are held; they may be all rows of an object.
        steps.append(_step(place, "expire", expired, None if known.held_users(place) else 0))
    if not _is_closed(maintenance, place, open_hours):
        return steps
    hot = [each for each in objects if not each.name.tier and each.age < _EXPIRE_DAYS]
    groups = _groups(hot)
    steps += [_step(place, "compact", group, None, into=1) for group in groups]
    # A merged object is as old as its youngest row.
    ages = {each.ref.key: each.age for each in hot}
    merged = {ref.key for group in groups for ref in group}
    due_groups = [group for group in groups if min(ages[ref.key] for ref in group) >= _MOVE_DAYS]
    due_objects = [each.ref for each in hot if each.age >= _MOVE_DAYS and each.ref.key not in merged]
    if due_groups or due_objects:
        moved = [*(ref for group in due_groups for ref in group), *due_objects]
        count = len(due_groups) + len(due_objects)
        steps.append(replace(_step(place, "move", moved, None, into=count), objects=count))
    return steps


def run(
    maintenance: Maintenance, inventory: Inventory, *, open_hours: float, grace_s: float = GRACE_S
) -> Iterator[Step]:
    """Do what is to be done at a place; yield each step once its change is committed.

    ``open_hours`` is how long after its end a day stays open; ``grace_s`` how long removed objects are kept.

    Raises:
        DamagedObject: an object differs from what the archive states; the steps yielded before stand.
        Contended, ArchiveChanged: another task committed a change first; run again.
        ArchiveError: the store does not answer.

    """
    place = inventory.place
    known = maintenance.holds()
    if not known.hold_everything(place):
        for step, after in _expire(maintenance, inventory, known):
            yield step
            inventory = after
    if _is_closed(maintenance, place, open_hours):
        hot = [each for each in _aged(maintenance, inventory) if not each.name.tier and each.age < _EXPIRE_DAYS]
        for group in _groups(hot):
            step, inventory = _compact(maintenance, inventory, group, known)
            yield step
        due = [
            each.ref
            for each in _aged(maintenance, inventory)
            if not each.name.tier and _MOVE_DAYS <= each.age < _EXPIRE_DAYS
        ]
        if due:
            step, inventory = _move(maintenance, inventory, due, known)
            yield step
    deleted = maintenance.delete_removed(inventory, grace_s)
    if deleted:
        yield _step(place, "delete", deleted, 0)


def _is_closed(maintenance: Maintenance, place: Place, open_hours: float) -> bool:
    return days_since(place, maintenance.now()) * 24 >= open_hours


def _aged(maintenance: Maintenance, inventory: Inventory) -> list[_Aged]:
    place, now_s = inventory.place, maintenance.now()
    days = days_since(place, now_s)
    found: list[_Aged] = []
    for name, ref in inventory.live:
        if name.tier and days < _EXPIRE_DAYS:
            # Whatever its exact age, nothing is to be done; the commit entries need not be read.
            found.append(_Aged(name, ref, days, late=False))
        else:
            archived_at_ms = maintenance.archived_at_ms(inventory, ref)
            found.append(_Aged(name, ref, age_days(place, archived_at_ms, now_s), is_late(place, archived_at_ms)))
    return found


def _groups(hot: Sequence[_Aged]) -> list[list[ObjectRef]]:
    return compact.groups([(each.name, each.ref) for each in hot], {each.ref.key for each in hot if each.late})


def _compact(
    maintenance: Maintenance, inventory: Inventory, group: list[ObjectRef], known: Holds
) -> tuple[Step, Inventory]:
    tables = maintenance.read_tables(group)
    name = next(name for name, ref in inventory.live if ref == group[0])
    made = compact.merged(tables, inventory.place, name.chain, inventory.state.number)
    maintenance.write(made.ref, made.data, TIERS["hot"].storage_class)
    transaction = Transaction("compacted", tuple(group), (made.ref,), made.content)
    after = maintenance.commit(inventory, transaction, known)
    return _step(inventory.place, "compact", group, made.ref.bytes, into=1), after


def _move(maintenance: Maintenance, inventory: Inventory, hot: list[ObjectRef], known: Holds) -> tuple[Step, Inventory]:
    cold = [replace(ref, key=TIERS["cold"].prefix + ref.key) for ref in hot]
    for ref, moved in zip(hot, cold, strict=True):
        maintenance.write(moved, compact.checked(ref, maintenance.read(ref)), TIERS["cold"].storage_class)
    after = maintenance.commit(inventory, Transaction("moved", tuple(hot), tuple(cold)), known)
    return _step(inventory.place, "move", hot, sum(ref.bytes for ref in cold), into=len(cold)), after


def _expire(maintenance: Maintenance, inventory: Inventory, known: Holds) -> Iterator[tuple[Step, Inventory]]:
    place = inventory.place
    users = known.held_users(place)
    due = [each for each in _aged(maintenance, inventory) if each.age >= _EXPIRE_DAYS]
    if not users and due:
        refs = [each.ref for each in due]
        transaction = Transaction("expired", tuple(refs), (), erased=sum(ref.rows for ref in refs))
        yield _step(place, "expire", refs, 0), maintenance.commit(inventory, transaction, known)
        return
    for each in due:
        table = compact.table_of(each.ref, maintenance.read(each.ref))
        keep = compact.rows_of(users, table)
        if not keep.all():
            made, inventory = maintenance.remove_rows(inventory, each.name, each.ref, table, keep, "expired", known)
            step = _step(place, "expire", [each.ref], made.bytes if made else 0, into=1 if made else 0)
            yield replace(step, rows=int((~keep).sum())), inventory


def _step(place: Place, action: Action, refs: Sequence[ObjectRef], bytes_after: int | None, into: int = 0) -> Step:
    return Step(
        place, action, len(refs), into, sum(ref.bytes for ref in refs), bytes_after, sum(ref.rows for ref in refs)
    )
