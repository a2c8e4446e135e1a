"""An archive that an earlier release wrote is still read, verified and pulled, byte for byte.

``written_before`` holds the files of whyrec 1 (commit 0f2167a): six commits in two chains, a change of each kind, three
records of holds, two signed digests, objects in both tiers, and what that release printed for three pulls.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from stream.archive.log import changes, commitlog, holds
from stream.archive.proof import digests, sealing
from stream.archive.reading import reader
from stream.archive.store import open_store
from stream.commands.archive import app
from stream.replay.archived import slates_of
from tests.archive.aging import Aging, Clock
from tests.archive.checks import archived_items

BEFORE = Path(__file__).parent / "written_before"
DAYS = "2024-01-01..2026-12-31"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A copy: no test may change what an earlier release wrote."""
    return shutil.copytree(BEFORE / "archive", tmp_path / "archive")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "250"})
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_every_record_of_its_chains_is_written_back_byte_for_byte(archive: Path) -> None:
    store = open_store(str(archive))
    entries, changed, held = reader.raw_entries(store), reader.raw_changes(store), reader.raw_holds(store)
    kinds = set()
    for _, data in entries:
        assert commitlog.encode(commitlog.decode(data)) == data
    for _, data in changed:
        assert changes.encode(changes.decode(data)) == data
        kinds.add(changes.decode(data).kind)
    for _, data in held:
        assert holds.encode(holds.decode(data)) == data
    assert kinds == {"compacted", "moved", "erased", "expired"}
    signed = sealing.read(store)
    assert [digest.date for digest, _ in signed.digests] == ["2024-07-15", "2026-09-15"]
    assert [each for each in signed.findings if each.severity == "error"] == []
    assert {digests.key_of(digest.date) for digest, _ in signed.digests} <= {info.key for info in store.list("")}


def test_it_is_verified_with_its_rows_and_its_signatures(archive: Path) -> None:
    root = next((archive / "_digests/keys").iterdir()).stem
    output = run("verify", "--deep", "--trust", root, "--url", str(archive))
    assert "whole" in output
    assert "error" not in output
    numbers = output.splitlines()[-2].replace("│", " ").split()[1:-1]
    assert numbers == ["2", "6", "9", "5", "16", "14"]


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        ("pull-csv/rows.csv", []),
        ("pull-jsonl/rows.jsonl", ["--format", "jsonl"]),
        ("pull-user/rows.csv", ["--user", "0000000000000002"]),
    ],
)
def test_a_pull_gives_the_same_bytes_and_leaves_later_columns_empty(
    archive: Path, tmp_path: Path, expected: str, arguments: list[str]
) -> None:
    run("pull", "--date", DAYS, "--out", str(tmp_path / "out"), "--url", str(archive), *arguments)
    header, *rows = (BEFORE / expected).read_text().splitlines()
    if expected.endswith(".csv"):
        lines = [f"{header},ablations", *(f"{row}," for row in rows)]
    else:
        lines = [f'{row.removesuffix("}")}, "ablations": null}}' for row in (header, *rows)]
    assert (tmp_path / "out" / Path(expected).name).read_text().splitlines() == lines


@pytest.mark.parametrize("folder", ["pull-csv", "pull-user"])
def test_its_receipts_are_valid(archive: Path, folder: str) -> None:
    receipt, rows = BEFORE / folder / "receipt.json", BEFORE / folder / "rows.csv"
    assert ": valid" in run("receipt", str(receipt), "--output", str(rows), "--url", str(archive))


def test_a_request_in_it_is_found_for_replay(archive: Path) -> None:
    store = open_store(str(archive))
    row = json.loads((BEFORE / "pull-jsonl/rows.jsonl").read_text().splitlines()[-1])
    (slate,) = slates_of(store, UUID(row["request_id"]), reader.objects(store))
    assert (slate.source.offset, slate.common("item_id")) == (row["source_offset"], row["item_id"])


def test_maintenance_goes_on_where_the_earlier_release_stopped(archive: Path) -> None:
    aging = Aging(open_store(str(archive)), Clock(120.0))
    before = archived_items(aging.store)
    assert {action for action, *_ in aging.tier()} >= {"compact", "move", "delete"}
    assert archived_items(aging.store) == [item for item in before if item[1] != 2]  # the hold on them was released
    assert aging.errors() == []
