"""Archives that grow old: an injected clock, sinks that write days, and the tasks that go over all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from stream.archive.aging import erase, tiers
from stream.archive.aging.maintenance import Maintenance, append_hold, list_places
from stream.archive.log.commitlog import Chain
from stream.archive.log.holds import Scope
from stream.archive.log.holds import hold as hold_of
from stream.archive.objects import Store
from stream.archive.proof.findings import Verdict
from stream.archive.reading import reader
from stream.archive.writing.writer import Batch, ChainWriter
from tests.archive.checks import verdict_of
from tests.archive.slates_of import DAY_MS, START_MS, audit, slates

START_S = START_MS / 1000
DAY_S = DAY_MS / 1000
OPEN_HOURS = 6.0


@dataclass
class Clock:
    """Days since the first event of the archive."""

    day: float = 0.0

    def __call__(self) -> float:
        return START_S + self.day * DAY_S


@dataclass
class Aging:
    """An archive and what is done to it; ``day`` counts from that of the first event."""

    store: Store
    clock: Clock = field(default_factory=Clock)

    def commit(self, source_offsets: range, *, partition: int = 0, day: int = 0, region: str = "EU") -> None:
        """A sink archives slates of two impressions each, of user ``source offset % 7``; now, or later on ``day``."""
        clock = Clock(max(self.clock.day, day))
        writer = ChainWriter(self.store, Chain("explanation-audit", partition), writer="sink", clock=clock)
        at = writer.open().next
        records = [audit(each, partition=partition, day=day, region=region) for each in source_offsets]
        writer.commit(Batch(at, at + len(records), slates(records, at)))

    def tier(self, store: Store | None = None, *, grace_s: float = 0.0) -> list[tuple[str, int, int]]:
        """Run every task; return what was done: the action, the objects, and how many they became."""
        maintenance = Maintenance(store or self.store, who="tier", clock=self.clock)
        done: list[tuple[str, int, int]] = []
        for place, names in list_places(maintenance.store).items():
            if tiers.settled(place, names, self.clock()):
                continue
            found = maintenance.inventory(place, names)
            steps = tiers.run(maintenance, found, open_hours=OPEN_HOURS, grace_s=grace_s)
            done.extend((step.action, step.objects, step.into) for step in steps)
        return done

    def erase(self, user: str, store: Store | None = None, *, case: str = "case 7") -> int:
        """Erase a user everywhere; return the rows erased."""
        maintenance = Maintenance(store or self.store, who="erase", clock=self.clock)
        return sum(
            each.rows
            for place, names in list_places(maintenance.store).items()
            for each in erase.erase(maintenance, maintenance.inventory(place, names), user, case=case)
            if not each.held
        )

    def hold(self, scope: Scope) -> int:
        now_ms = int(self.clock() * 1000)
        record = append_hold(self.store, lambda known: hold_of(known, scope, why="", who="legal", written_at_ms=now_ms))
        return record.number

    def verdict(self) -> Verdict:
        """The verifier's word, rows included."""
        return verdict_of(self.store, int(self.clock() * 1000))

    def errors(self) -> list[tuple[int, str]]:
        return [(each.rule, each.key) for each in self.verdict().findings if each.severity == "error"]

    def users(self) -> list[str]:
        """The user of every impression that readers see, sorted."""
        rows = reader.rows(self.store, reader.objects(self.store), ["user_id_hash"]).read_all()
        return sorted(each.hex() for each in rows["user_id_hash"].to_pylist())

    def objects(self) -> list[str]:
        """The keys of all Parquet objects there are."""
        return [info.key for info in self.store.list("") if info.key.endswith(".parquet")]


def user(number: int) -> str:
    """The hash of a user of :func:`tests.archive.slates_of.audit`."""
    return number.to_bytes(8, "big").hex()
