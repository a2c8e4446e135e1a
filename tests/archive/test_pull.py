"""Pulling rows: exactly those asked for, from both tiers, by few reads; and a receipt that can be held against it."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stream.archive.aging import tiers
from stream.archive.aging.maintenance import Maintenance, list_places
from stream.archive.log import canonical
from stream.archive.log.commitlog import Chain
from stream.archive.log.names import COLD
from stream.archive.objects import Store
from stream.archive.proof import sealing, snapshot
from stream.archive.reading import pull, reader
from stream.archive.reading.pull import Query, Reads, Scope
from stream.archive.rows import segment
from stream.archive.store import open_store
from stream.archive.writing.writer import Batch, ChainWriter
from stream.commands.archive import app
from stream.errors import ArchiveError, ConfigurationError
from tests.archive.conftest import open_s3
from tests.archive.slates_of import START_MS, audit, slates

DAYS = ("2026-09-21", "2026-09-22")
ALL = Scope(*DAYS)
DAY_S = 86_400.0


def fill(store: Store, commits: int = 3) -> None:
    """Two partitions, two days, two regions, seven users; two items in a slate."""
    for partition in (0, 1):
        writer = ChainWriter(store, Chain("explanation-audit", partition), writer="w", clock=lambda: START_MS / 1000)
        writer.open()
        for _ in range(commits):
            first = writer.tail.next
            records = [
                audit(n, partition=partition, day=n % 2, region="EU" if n % 3 else "US")
                for n in range(first, first + 8)
            ]
            writer.commit(Batch(first, first + 8, slates(records, first)))


def tier(store: Store, days: float) -> None:
    """Run the tier task so many days after the events."""
    maintenance = Maintenance(store, who="t", clock=lambda: START_MS / 1000 + days * DAY_S)
    for place, names in list_places(store).items():
        list(tiers.run(maintenance, maintenance.inventory(place, names), open_hours=6, grace_s=0))


@pytest.fixture
def filled(store: Store) -> Store:
    """Each kind of store, with one day in the cold tier, compacted, and the other as the sinks left it."""
    fill(store)
    for place, names in list_places(store, until=DAYS[0]).items():
        maintenance = Maintenance(store, who="t", clock=lambda: START_MS / 1000 + 100 * DAY_S)
        list(tiers.run(maintenance, maintenance.inventory(place, names), open_hours=6, grace_s=0))
    assert {key.startswith(COLD) for key in (ref.key for ref in reader.objects(store))} == {True, False}
    return store


def pulled(store: Store, query: Query) -> list[dict[str, Any]]:
    refs = [ref for ref in snapshot.take(store, query.scope).objects if query.reaches(ref)]
    return [row for table in pull.rows(store, refs, query, Reads()) for row in table.to_pylist()]


def everything(store: Store) -> list[dict[str, Any]]:
    names = ["user_id_hash", "request_id", "item_id", "explanation_type", "region", "source_partition", "source_offset"]
    found: list[dict[str, Any]] = reader.rows(store, reader.objects(store), names).read_all().to_pylist()
    return found


ASKED: list[tuple[Query, Callable[[dict[str, Any]], bool]]] = [
    (Query(ALL), lambda _: True),
    (Query(ALL, user="0000000000000003"), lambda row: row["user_id_hash"] == (3).to_bytes(8, "big")),
    (Query(ALL, user="ffffffffffffffff"), lambda _: False),
    (Query(ALL, request=str(uuid.UUID(int=5))), lambda row: row["request_id"] == uuid.UUID(int=5)),
    (Query(ALL, item="item-7-1"), lambda row: row["item_id"] == "item-7-1"),
    (Query(ALL, type="trending"), lambda _: False),
    (Query(ALL, partition=1), lambda row: row["source_partition"] == 1),
    (Query(Scope(*DAYS, ("US",))), lambda row: row["region"] == "US"),
    (Query(Scope(DAYS[1], DAYS[1])), lambda row: row["source_offset"] % 2 == 1),
    (Query(ALL, user="0000000000000003", type="watch_history"), lambda row: row["source_offset"] % 7 == 3),
]


def test_a_pull_gives_exactly_the_rows_asked_for(filled: Store) -> None:
    identity = ("source_partition", "source_offset", "item_id")
    rows = everything(filled)
    for query, belongs in ASKED:
        wanted = sorted(tuple(row[name] for name in identity) for row in rows if belongs(row))
        found = sorted(tuple(row[name] for name in identity) for row in pulled(filled, query))
        assert found == wanted, query


@pytest.mark.server("s3_server")
def test_only_row_groups_that_can_match_are_read_each_in_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(segment, "COMPACTED", segment.Layout(500, 9))
    store = open_s3(request)
    writer = ChainWriter(store, Chain("explanation-audit", 0), writer="w")
    records = [audit(n) for n in range(3_500)]
    writer.commit(Batch(0, 3_500, slates(records)))
    tier(store, 2)
    query = Query(Scope(DAYS[0], DAYS[0]), user="0000000000000003")
    (ref,) = snapshot.take(store, query.scope).objects
    reads, told = Reads(), []
    found = sum(table.num_rows for table in pull.rows(store, [ref], query, reads, told.append))
    assert found == 1_000
    assert (told[0].groups_read, told[0].groups) == (2, 14)
    assert reads.count == 3  # the footer, and two groups
    assert reads.bytes < ref.bytes
    # A group that could hold rows but does not costs what its deciding columns weigh.
    monkeypatch.setattr(pull, "_SMALL", 0)
    absent = Reads()
    assert not list(pull.rows(store, [ref], replace(query, item="item-10-2"), absent))
    assert absent.bytes < reads.bytes


@pytest.fixture
def archive(tmp_path: Path) -> Store:
    made = open_store(str(tmp_path / "archive"))
    fill(made)
    return made


def run(*arguments: str, key: Path | None = None) -> Any:
    environment = {"COLUMNS": "250"} | ({"WHYREC_SIGNING_KEY_FILE": str(key)} if key else {})
    done = CliRunner().invoke(app, arguments, env=environment)
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def with_keys(store: Store, folder: Path) -> tuple[Path, Path]:
    root, lent = folder / "root.pem", folder / "receipts.pem"
    run("keys", "new", str(root), "--url", store.url)
    run("keys", "new", str(lent), "--for", "receipts", "--url", store.url, key=root)
    return root, lent


def pull_to(store: Store, folder: Path, *more: str, key: Path | None = None) -> Any:
    period = f"{DAYS[0]}..{DAYS[1]}"
    return run("pull", "--date", period, "--out", str(folder), "--url", store.url, *more, key=key)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_each_format_holds_the_same_rows(archive: Store, tmp_path: Path, form: str) -> None:
    done = pull_to(archive, tmp_path / "out", "--user", "0000000000000003", "--format", form)
    assert done.exit_code == 0, done.output
    path = tmp_path / "out" / f"rows.{form}"
    if form == "parquet":
        items = pq.read_table(path)["item_id"].to_pylist()
    elif form == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert rows[0]["user_id_hash"] == "0000000000000003"
        assert rows[0]["attention_top_2"][0]["item_id"] == "past-b"
        items = [row["item_id"] for row in rows]
    else:
        lines = list(csv.DictReader(io.StringIO(path.read_text())))
        assert json.loads(lines[0]["shap_top_3"]) == [{"feature": "session_score", "value": 0.125}]
        items = [line["item_id"] for line in lines]
    wanted = [row["item_id"] for row in everything(archive) if row["user_id_hash"] == (3).to_bytes(8, "big")]
    assert sorted(items) == sorted(wanted)
    assert f"{len(wanted)} rows" in done.stderr
    assert "not signed" in done.stderr
    assert not list((tmp_path / "out").glob("*.part"))


def test_rows_on_standard_output_are_nothing_but_rows(archive: Store) -> None:
    done = run("pull", "--date", DAYS[0], "--out", "-", "--format", "jsonl", "--url", archive.url)
    assert all(json.loads(line)["region"] in ("EU", "US") for line in done.stdout.splitlines())
    assert "no receipt" in done.stderr


def test_a_pull_that_finds_nothing_says_so_with_a_receipt(archive: Store, tmp_path: Path) -> None:
    _, lent = with_keys(archive, tmp_path)
    done = pull_to(archive, tmp_path / "out", "--user", "f" * 16, key=lent)
    assert "0 rows" in done.stderr
    assert (tmp_path / "out" / "rows.csv").read_text().startswith("timestamp_ms,")
    done = run("receipt", str(tmp_path / "out" / "receipt.json"), "--url", archive.url)
    assert (done.exit_code, "0 rows" in done.output, "valid" in done.output) == (0, True, True), done.output


def test_a_receipt_stays_valid_when_the_archive_grows_is_compacted_and_moved(archive: Store, tmp_path: Path) -> None:
    root, lent = with_keys(archive, tmp_path)
    run("digest", "--url", archive.url, key=root)
    trust = sealing.read(archive).keyring.line[0].id
    pull_to(archive, tmp_path / "out", "--user", "0000000000000003", key=lent)
    fill(archive, 1)
    tier(archive, 100)
    done = run(
        *("receipt", str(tmp_path / "out" / "receipt.json"), "--output", str(tmp_path / "out" / "rows.csv")),
        *("--trust", trust, "--url", archive.url),
    )
    assert done.exit_code == 0, done.output
    assert "valid" in done.output
    assert json.loads((tmp_path / "out" / "receipt.json").read_bytes())["not_yet_in_a_digest"] == []


@pytest.fixture
def receipt(archive: Store, tmp_path: Path) -> Path:
    root, lent = with_keys(archive, tmp_path)
    run("digest", "--url", archive.url, key=root)
    pull_to(archive, tmp_path / "out", "--user", "0000000000000003", key=lent)
    return tmp_path / "out" / "receipt.json"


def verdict(receipt: Path, archive: Store, *more: str) -> str:
    done = run("receipt", str(receipt), "--url", archive.url, *more)
    assert done.exit_code == 1, done.output
    assert "not valid" in done.output
    return str(done.output)


def edited(receipt: Path, **fields: Any) -> None:
    receipt.write_bytes(canonical.encode(json.loads(receipt.read_bytes()) | fields))


def test_a_receipt_of_which_something_was_edited(receipt: Path, archive: Store) -> None:
    edited(receipt, made_at_ms=0)
    assert "does not have a valid signature" in verdict(receipt, archive)


def test_a_receipt_that_leaves_out_an_object(receipt: Path, archive: Store) -> None:
    objects = json.loads(receipt.read_bytes())["objects"]
    edited(receipt, objects=objects[1:])
    assert f"it leaves out {objects[0]['key']}" in verdict(receipt, archive)


def test_a_receipt_that_nobody_signed(receipt: Path, archive: Store) -> None:
    edited(receipt, key=None, signature=None)
    assert "it is not signed" in verdict(receipt, archive)


def test_a_receipt_signed_with_a_strangers_key(archive: Store, tmp_path: Path) -> None:
    with_keys(archive, tmp_path)
    other = open_store(str(tmp_path / "other"))
    (tmp_path / "keys").mkdir()
    _, stranger = with_keys(other, tmp_path / "keys")
    with pytest.raises(ConfigurationError, match="may not sign receipts"):
        pull_to(archive, tmp_path / "out", key=stranger)
    assert not (tmp_path / "out").exists()


def test_rows_that_were_edited_after_the_pull(receipt: Path, archive: Store) -> None:
    rows = receipt.with_name("rows.csv")
    rows.write_text(rows.read_text() + "one more\n")
    assert "the receipt is for" in verdict(receipt, archive, "--output", str(rows))


def test_an_archive_whose_chain_was_cut_off_behind_a_receipt(receipt: Path, archive: Store) -> None:
    archive.delete([info.key for info in archive.list("_commits/explanation-audit/1/")][-1])
    assert "no longer has the entry that ended at 24" in verdict(receipt, archive)


def test_an_archive_in_which_an_entry_is_missing_gives_no_rows(archive: Store, tmp_path: Path) -> None:
    archive.delete([info.key for info in archive.list("_commits/explanation-audit/1/")][1])
    with pytest.raises(ArchiveError, match="leaves out offsets 8 to 15"):
        pull_to(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_object_that_is_gone_ends_the_pull(archive: Store, tmp_path: Path) -> None:
    archive.delete(next(reader.objects(archive)).key)
    with pytest.raises(ArchiveError, match="does not exist"):
        pull_to(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "rows.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--date", "yesterday"], "expected YYYY-MM-DD"),
        (["--date", "2026-09-22..2026-09-21"], "ends before it begins"),
        (["--date", DAYS[0], "--user", "alice"], "expected 16 hexadecimal digits"),
        (["--date", DAYS[0], "--request", "7"], "is not a UUID"),
        (["--date", DAYS[0], "--type", "because"], "expected one of watch_history"),
        (["--date", DAYS[0], "--out", "."], "is not empty"),
    ],
)
def test_what_can_not_be_asked_is_refused(archive: Store, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run("pull", "--out", str(tmp_path / "out"), "--url", archive.url, *arguments)
    assert done.exit_code == 2
    assert says in " ".join(done.output.split()), done.output


def test_where_nothing_is_archived_nothing_is_pulled(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="holds no commit entry"):
        run("pull", "--date", DAYS[0], "--out", str(tmp_path / "out"), "--url", str(tmp_path / "misspelt"))


def test_a_pull_beside_the_tier_task_finds_every_row(archive: Store) -> None:
    before = snapshot.take(archive, ALL)
    tier(archive, 100)
    with pytest.raises(reader.ArchiveChanged, match="was compacted"):
        list(pull.rows(archive, before.objects, Query(ALL), Reads()))
    assert len(pulled(archive, Query(ALL))) == 96
