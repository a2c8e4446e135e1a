"""``whyrec archive tier|erase|hold`` as their users meet them, and what verify, stats and sweep say afterwards."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.archive.store import open_store
from stream.commands.archive import app
from stream.errors import ArchiveError, ConfigurationError
from tests.archive.aging import START_S, Aging, Clock, user
from tests.archive.checks import archived_items

TODAY = (time.time() - START_S) / 86_400


@pytest.fixture
def archive(tmp_path: Path) -> Aging:
    """Slates of a week ago, of 100 days ago, and of three years ago, archived on their day. Today is the real one."""
    aging = Aging(open_store(str(tmp_path / "archive")), Clock(TODAY))
    for age in (7, 100, 1_100):
        aging.clock.day = TODAY - age
        for partition in (0, 1):
            aging.commit(range(age, age + 7), partition=partition, day=int(TODAY) - age)
            aging.commit(range(age + 7, age + 14), partition=partition, day=int(TODAY) - age)
    aging.clock.day = TODAY
    return aging


def run(archive: Aging, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--url", archive.store.url], env={"COLUMNS": "250"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def lines(output: str) -> list[list[str]]:
    return [line.replace("│", " ").split() for line in output.splitlines() if line.startswith("│")]


def test_a_dry_run_says_what_a_run_then_does_and_changes_nothing(archive: Aging) -> None:
    before = archive.objects()
    planned = run(archive, "tier", "--dry-run")
    assert "Would be done" in planned
    assert archive.objects() == before
    done = run(archive, "tier")
    assert [line[:6] for line in lines(done)] == [line[:6] for line in lines(planned)]
    assert [line[2] for line in lines(done)] == ["expire", "compact", "move", "compact"]
    assert "nothing to do" in run(archive, "tier")


def test_verify_stats_and_sweep_are_right_on_every_kind_of_part(archive: Aging) -> None:
    run(archive, "tier")
    run(archive, "erase", "--user", user(3), "--yes", "--case", "2026-117")
    archive.commit(range(200, 207), day=int(TODAY) - 3)
    left = 2 * 2 * (2 * 14 - 2 * 2) + 14
    assert len(archived_items(archive.store)) == left
    assert f"{left} impressions" in run(archive, "stats")
    verified = run(archive, "verify", "--deep")
    assert "whole" in verified
    assert f" {left} " in verified
    assert "0 objects" in run(archive, "sweep")


def test_sweep_deletes_what_was_removed_and_came_back(archive: Aging) -> None:
    key = archive.objects()[0]
    data = archive.store.get(key)
    archive.clock.day = TODAY - 2
    archive.tier()
    seen = archived_items(archive.store)
    archive.store.put(key, data)
    assert f"would delete {key}" in run(archive, "sweep")
    assert f"deleted {key}" in run(archive, "sweep", "--delete")
    assert key not in archive.objects()
    assert archived_items(archive.store) == seen
    assert "whole" in run(archive, "verify", "--deep")


def test_erasing_is_dry_unless_it_is_meant(archive: Aging) -> None:
    run(archive, "tier")
    before = archived_items(archive.store)
    said = run(archive, "erase", "--user", user(3))
    assert "16 rows would be erased; --yes does it" in said
    assert archived_items(archive.store) == before
    assert "16 rows erased" in run(archive, "erase", "--user", user(3), "--yes")
    assert user(3) not in archive.users()
    assert "0 rows erased" in run(archive, "erase", "--user", user(3), "--yes")


def test_holds_are_added_listed_heeded_and_released(archive: Aging) -> None:
    assert "no holds" in run(archive, "hold", "list")
    assert f"hold 0: user {user(3)}" in run(archive, "hold", "add", "--user", user(3), "--why", "inquiry 12")
    assert "inquiry 12" in run(archive, "hold", "list")
    said = run(archive, "erase", "--user", user(3), "--yes")
    assert "0 rows erased; 24 rows are held and stay" in said
    run(archive, "tier")
    assert archive.users().count(user(3)) == 24  # those of three years ago too
    assert "hold 0 is released" in run(archive, "hold", "release", "0", "--why", "closed")
    assert "no holds" in run(archive, "hold", "list")
    assert "released" in run(archive, "hold", "list", "--all")
    run(archive, "tier")
    assert "16 rows erased" in run(archive, "erase", "--user", user(3), "--yes")
    assert "whole" in run(archive, "verify", "--deep")


def test_a_damaged_place_stops_only_itself_and_the_command_fails(archive: Aging) -> None:
    damaged = archive.objects()[-1]
    data = bytearray(archive.store.get(damaged))
    data[len(data) // 2] ^= 1
    archive.store.delete(damaged)
    archive.store.put_if_absent(damaged, bytes(data))
    with pytest.raises(ArchiveError, match="everything else was done"):
        run(archive, "tier")
    assert any(key.startswith("cold/") for key in archive.objects())
    assert damaged in archive.objects()


@pytest.mark.parametrize("arguments", [["tier"], ["erase", "--user", "0" * 16]])
def test_where_nothing_is_archived_nothing_is_done(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="holds no commit entry"):
        run(Aging(open_store(str(tmp_path / "misspelt"))), *arguments)


def test_what_makes_no_sense_is_refused(archive: Aging) -> None:
    with pytest.raises(ConfigurationError, match="16 hexadecimal digits"):
        run(archive, "erase", "--user", "alice")
    with pytest.raises(ArchiveError, match="name a user, days or a region"):
        run(archive, "hold", "add")
    with pytest.raises(ArchiveError, match="not in force"):
        run(archive, "hold", "release", "4")
