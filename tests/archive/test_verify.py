"""The verifier finds every attack; each test is named after one."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stream.archive.log import commitlog
from stream.archive.log.commitlog import Chain
from stream.archive.log.intervals import Intervals
from stream.archive.objects import MemoryStore, Store
from stream.archive.proof.facts import facts_of
from stream.archive.proof.findings import Finding
from stream.archive.proof.verify import LEFTOVER_AGE_S, verify
from stream.archive.reading import reader
from stream.archive.store import open_store
from stream.archive.writing.writer import Batch, ChainWriter
from stream.errors import ArchiveError
from tests.archive.checks import verdict_of
from tests.archive.slates_of import START_MS, audit, slates


def fill(store: Store) -> None:
    """Two chains of three entries, two objects each."""
    for partition in (0, 1):
        writer = ChainWriter(store, Chain("explanation-audit", partition), writer="w", clock=lambda: START_MS / 1000)
        writer.open()
        for number in range(3):
            first = number * 4
            records = [audit(first + n, partition=partition, day=n % 2) for n in range(4)]
            writer.commit(Batch(first, first + 4, slates(records, first)))


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    fill(made)
    return made


def entry_keys(store: Store) -> list[str]:
    return [info.key for info in store.list(commitlog.COMMITS)]


def object_keys(store: Store) -> list[str]:
    return [info.key for info in store.list("date=")]


def replace(store: Store, key: str, data: bytes) -> None:
    store.delete(key)
    store.put_if_absent(key, data)


def errors(store: Store) -> list[tuple[int, str]]:
    return [(finding.rule, finding.key) for finding in verdict_of(store).findings if finding.severity == "error"]


def rules(store: Store) -> set[int]:
    return {rule for rule, _ in errors(store)}


def test_an_untouched_archive_is_sound(store: MemoryStore) -> None:
    verdict = verdict_of(store)
    assert verdict.consistent
    assert (verdict.findings, verdict.chains, verdict.entries, verdict.objects, verdict.rows) == ((), 2, 6, 12, 48)


def test_an_empty_archive_is_sound() -> None:
    assert verdict_of(MemoryStore()).consistent


def test_a_changed_byte_in_an_object(store: MemoryStore) -> None:
    for key in object_keys(store):
        data = bytearray(store.get(key))
        data[len(data) // 2] ^= 1
        replace(store, key, bytes(data))
        assert errors(store) == [(7, key)]
        data[len(data) // 2] ^= 1
        replace(store, key, bytes(data))
    assert errors(store) == []


@pytest.mark.slow
def test_a_changed_byte_in_an_entry_wherever_it_is(store: MemoryStore) -> None:
    key = entry_keys(store)[1]
    data = store.get(key)
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 1
        replace(store, key, bytes(changed))
        assert not verdict_of(store).consistent, f"byte {position}: {bytes(changed)!r}"
    replace(store, key, data)
    assert verdict_of(store).consistent


def test_a_removed_object(store: MemoryStore) -> None:
    key = object_keys(store)[3]
    store.delete(key)
    assert errors(store) == [(7, key)]


def test_an_added_object_with_a_name_of_its_own(store: MemoryStore) -> None:
    store.put("date=2026-01-01/region=EU/part-0.parquet", b"rows that nobody archived")
    assert errors(store) == [(11, "date=2026-01-01/region=EU/part-0.parquet")]


def test_an_added_object_with_a_name_like_ours(store: MemoryStore) -> None:
    key = object_keys(store)[0].replace("-00000000000000000000-", "-00000000000000000002-")
    store.put(key, b"rows that nobody archived")
    assert errors(store) == [(11, key)]


def test_an_added_object_that_could_be_a_crashed_writers_is_a_notice_for_a_day(store: MemoryStore) -> None:
    leftover = object_keys(store)[0][: -len("0123456789abcdef.parquet")] + "0123456789abcdef.parquet"
    store.put(leftover, b"from a writer that died before its entry")
    assert errors(store) == []
    assert [(finding.rule, finding.key) for finding in verdict_of(store).findings] == [(11, leftover)]
    aged = dict.fromkeys(object_keys(store), LEFTOVER_AGE_S)
    verdict = verify(reader.raw_entries(store), facts_of(store), aged)
    assert [(finding.rule, finding.severity) for finding in verdict.findings] == [(11, "error")]


def test_files_that_are_no_parquet_are_nobodys_business(store: MemoryStore) -> None:
    store.put("README.txt", b"who put this here?")
    assert verdict_of(store).findings == ()


def test_two_objects_exchanged(store: MemoryStore) -> None:
    one, other = object_keys(store)[0], object_keys(store)[5]
    data = store.get(one), store.get(other)
    replace(store, one, data[1])
    replace(store, other, data[0])
    assert set(errors(store)) == {(7, one), (7, other)}


def test_a_renamed_object(store: MemoryStore) -> None:
    key = object_keys(store)[0]
    renamed = key.replace("region=EU", "region=US")
    store.put(renamed, store.get(key))
    store.delete(key)
    assert (7, key) in errors(store)
    assert any(finding.key == renamed for finding in verdict_of(store).findings)


def test_a_removed_entry_is_an_offset_gap(store: MemoryStore) -> None:
    keys = entry_keys(store)
    store.delete(keys[1])
    found = [finding for finding in verdict_of(store).findings if finding.rule == 5]
    assert {finding.key for finding in found} == {keys[2]}
    assert any("leaves out offsets 4 to 7" in finding.what for finding in found)


def test_a_removed_first_entry(store: MemoryStore) -> None:
    keys = entry_keys(store)
    store.delete(keys[0])
    assert (4, keys[1]) in errors(store)


def test_two_entries_exchanged(store: MemoryStore) -> None:
    keys = entry_keys(store)
    data = store.get(keys[1]), store.get(keys[2])
    replace(store, keys[1], data[1])
    replace(store, keys[2], data[0])
    assert {(2, keys[1]), (2, keys[2])} <= set(errors(store))


def test_an_entry_under_another_partition(store: MemoryStore) -> None:
    key = "_commits/explanation-audit/2/00000000000000000000.json"
    store.put(key, store.get(entry_keys(store)[0]))
    assert (2, key) in errors(store)


def test_a_rewritten_entry_breaks_the_next_ones_link(store: MemoryStore) -> None:
    keys = entry_keys(store)
    document = json.loads(store.get(keys[1]))
    document["writer"] = "somebody else"
    replace(store, keys[1], json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    assert errors(store) == [(5, keys[2])]


def test_a_rewritten_entry_that_hides_rows(store: MemoryStore) -> None:
    keys = entry_keys(store)
    document = json.loads(store.get(keys[2]))  # the last of its chain: no link to break
    dropped = document["objects"].pop()
    document["rows"] -= dropped["rows"]
    document["slates"] -= 2
    replace(store, keys[2], json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    store.delete(dropped["key"])
    assert rules(store) == {3, 6}


def test_a_rewritten_entry_that_hides_rows_and_adds_up(store: MemoryStore) -> None:
    keys = entry_keys(store)
    document = json.loads(store.get(keys[2]))
    document["slates"] -= 2
    document["repeats"] += 2
    document["absorbed"] += 2
    dropped = document["objects"].pop()
    document["rows"] -= dropped["rows"]
    replace(store, keys[2], json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    # Its numbers agree; what it no longer names is still there.
    assert [finding.key for finding in verdict_of(store).findings] == [dropped["key"]]


def test_an_object_whose_rows_were_archived_before(store: MemoryStore) -> None:
    chain = Chain("explanation-audit", 0)
    keys = [key for key in entry_keys(store) if key.startswith(chain.prefix)]
    last = commitlog.decode(store.get(keys[2]))
    data = store.get(commitlog.decode(store.get(keys[0])).objects[0].key)
    digest = hashlib.sha256(data).hexdigest()
    ref = last.objects[0]
    key = f"{ref.key[: -len('0123456789abcdef.parquet')]}{digest[:16]}.parquet"
    store.put(key, data)
    forged = json.loads(store.get(keys[2]))
    forged["objects"][0] |= {"key": key, "sha256": digest, "bytes": len(data)}
    store.delete(ref.key)
    replace(store, keys[2], json.dumps(forged, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    assert errors(store) == [(10, keys[2])]


def test_a_row_twice_in_one_object(store: MemoryStore) -> None:
    keys = entry_keys(store)
    last = commitlog.decode(store.get(keys[2]))
    table = pq.read_table(pa.BufferReader(store.get(last.objects[0].key)))
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables([table.slice(0, 3), table.slice(0, 1)]), sink)
    digest = hashlib.sha256(sink.getvalue()).hexdigest()
    key = f"{last.objects[0].key[: -len('0123456789abcdef.parquet')]}{digest[:16]}.parquet"
    store.put(key, sink.getvalue())
    store.delete(last.objects[0].key)
    forged = json.loads(store.get(keys[2]))
    forged["objects"][0] |= {"key": key, "sha256": digest, "bytes": len(sink.getvalue())}
    replace(store, keys[2], json.dumps(forged, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    assert errors(store) == [(10, key)]


def test_an_object_named_twice(store: MemoryStore) -> None:
    keys = entry_keys(store)
    forged = json.loads(store.get(keys[2]))
    forged["objects"].append(forged["objects"][0])
    forged["rows"] += forged["objects"][0]["rows"]
    replace(store, keys[2], json.dumps(forged, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    assert 9 in rules(store)


def test_a_foreign_file_among_the_entries(store: MemoryStore) -> None:
    store.put("_commits/explanation-audit/0/notes.txt", b"hello")
    assert errors(store) == [(1, "_commits/explanation-audit/0/notes.txt")]


def test_a_gap_is_never_silent() -> None:
    store = MemoryStore()
    writer = ChainWriter(store, Chain("t", 0), writer="w", clock=lambda: START_MS / 1000)
    writer.open()
    gap = commitlog.Gap(0, 5, "expired")
    writer.commit(Batch(0, 6, slates([audit(0)], 5), Intervals(), (gap,)))
    verdict = verdict_of(store)
    assert verdict.consistent
    key = entry_keys(store)[0]
    assert verdict.findings == (Finding(12, "notice", key, "offsets 0 to 4 expired before the sink came"),)


@pytest.fixture
def archive(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "archive"))
    fill(store)
    return store


def run(*arguments: str) -> tuple[int, str]:
    from stream.commands.archive import app

    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "250"})
    return done.exit_code, done.output


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_the_command_says_whole_and_exits_0(archive: Store, deep: list[str]) -> None:
    code, output = run("verify", "--url", archive.url, *deep)
    assert code == 0, output
    assert "whole" in output
    assert "48" in output


def test_the_command_names_what_is_wrong_and_exits_1(archive: Store) -> None:
    key = object_keys(archive)[0]
    archive.delete(key)
    code, output = run("verify", "--url", archive.url)
    assert code == 1
    assert "damaged" in output
    assert key in output


def test_sweeping_removes_a_crashs_leftovers_after_a_day_and_nothing_else(archive: Store) -> None:
    old = object_keys(archive)[0][: -len("0123456789abcdef.parquet")] + "0123456789abcdef.parquet"
    young = old.replace("0123456789abcdef", "fedcba9876543210")
    for key in (old, young):
        archive.put(key, b"from a writer that died before its entry")
    for key in (old, *object_keys(archive)[4:6]):
        os.utime(Path(archive.url) / key, (0, 0))
    before = object_keys(archive)
    code, output = run("sweep", "--url", archive.url)
    assert (code, object_keys(archive)) == (0, before)
    assert f"would delete {old}" in output
    code, output = run("sweep", "--url", archive.url, "--delete")
    assert code == 0, output
    assert object_keys(archive) == [key for key in before if key != old]


def test_sweeping_a_damaged_archive_is_refused(archive: Store) -> None:
    archive.delete(object_keys(archive)[0])
    from stream.commands.archive import app

    done = CliRunner().invoke(app, ["sweep", "--url", archive.url, "--delete"])
    assert isinstance(done.exception, ArchiveError)


def test_the_statistics_count_types_by_day_and_what_was_called_trending(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "archive"))
    writer = ChainWriter(store, Chain("explanation-audit", 0), writer="w", clock=lambda: START_MS / 1000)
    records = [audit(n, day=n % 2, region="US" if n == 3 else "EU") for n in range(4)]
    for record, status in zip(records, ("factual", "model_mismatch", "factual", "factual"), strict=True):
        record["entries"][0]["explanation_type"] = "trending"
        record["entries"][0]["status"] = status  # type: ignore[typeddict-item]
    writer.commit(Batch(0, 4, slates(records)))
    code, output = run("stats", "--url", store.url)
    assert code == 0, output
    assert "8 impressions; 4 explained as trending, 1 of them without proof" in output
    code, output = run("stats", "--url", store.url, "--region", "US")
    assert "2 impressions; 1 explained as trending, 0 of them without proof" in output
    code, output = run("stats", "--url", store.url, "--until", "2026-09-21")
    assert "4 impressions; 2 explained as trending, 0 of them without proof" in output
    assert "check the producers' clocks" not in output


def test_the_statistics_count_rows_with_an_implausible_date(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "archive"))
    writer = ChainWriter(store, Chain("explanation-audit", 0), writer="w", clock=lambda: START_MS / 1000)
    done = writer.commit(Batch(0, 3, slates([audit(0), audit(1, day=-2_000), audit(2, day=9)])))
    assert done.implausible == 4  # what the sink counts
    code, output = run("stats", "--url", store.url)
    assert code == 0, output
    assert "4 impressions have a date far from the day they were archived: check the producers' clocks" in output
    assert "whole" in run("verify", "--url", store.url)[1]


@pytest.mark.parametrize("command", ["verify", "sweep", "stats"])
def test_where_nothing_is_archived_nothing_is_called_whole(command: str, tmp_path: Path) -> None:
    from stream.commands.archive import app

    done = CliRunner().invoke(app, [command, "--url", str(tmp_path / "misspelt")])
    assert isinstance(done.exception, ArchiveError)
    assert "misspelt holds no commit entry" in str(done.exception)
    assert "whole" not in done.output


@pytest.mark.parametrize("day", ["yesterday", "2026-9-1", "20260901"])
def test_a_day_is_written_as_the_archive_writes_it(archive: Store, day: str) -> None:
    code, output = run("stats", "--url", archive.url, "--since", day)
    assert code == 2
    assert "expected YYYY-MM-DD" in output
