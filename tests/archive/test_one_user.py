"""One user is looked for only where they can be, which the task that compacts has seen in the rows; and is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stream.archive.log import canonical, changes
from stream.archive.log.commitlog import Chain, ObjectRef
from stream.archive.log.names import CHANGES, object_name
from stream.archive.objects import MemoryStore
from stream.archive.proof import snapshot
from stream.archive.reading import pull, reader
from stream.archive.reading.pull import Query, Reads, Scope
from stream.archive.rows.partitioner import numbers
from stream.archive.store import open_store
from stream.archive.writing.writer import Batch, ChainWriter
from stream.commands.archive import app
from tests.archive.aging import Aging
from tests.archive.slates_of import audit, slates

PARTITIONS, USERS = 4, 60
DAY = "2026-09-21"
LATE = 95


def users_of(partition: int) -> list[bytes]:
    drawn = np.random.default_rng(5).integers(0, 256, (2_000, 8), dtype=np.uint8)
    return [row.tobytes() for row in drawn[numbers(drawn) % PARTITIONS == partition][:USERS]]


def commit(archive: Aging, partition: int, users: list[bytes]) -> None:
    """A sink archives a slate of two impressions for each user."""
    writer = ChainWriter(archive.store, Chain("explanation-audit", partition), writer="sink", clock=archive.clock)
    at = writer.open().next
    records = [audit(at + n, partition=partition, user=user) for n, user in enumerate(users)]
    writer.commit(Batch(at, at + len(records), slates(records, at)))


def keyed(archive: Aging) -> Aging:
    """Two commits in each partition, of the users whom Kafka puts there; compacted."""
    for partition in range(PARTITIONS):
        for _ in range(2):
            commit(archive, partition, users_of(partition))
    archive.clock.day = 2
    archive.tier()
    return archive


@pytest.fixture
def archive() -> Aging:
    return keyed(Aging(MemoryStore()))


def looked_into(archive: Aging, user: bytes) -> list[ObjectRef]:
    query = Query(Scope(DAY, DAY), user=user.hex())
    return [ref for ref in snapshot.take(archive.store, query.scope).objects if query.reaches(ref)]


def found(archive: Aging, user: bytes) -> int:
    """Rows of the user that a pull finds, which are all there are."""
    query = Query(Scope(DAY, DAY), user=user.hex())
    rows = sum(table.num_rows for table in pull.rows(archive.store, looked_into(archive, user), query, Reads()))
    assert rows == archive.users().count(user.hex())
    return rows


def partitions(refs: list[ObjectRef]) -> list[int]:
    return [name.chain.partition for ref in refs if (name := object_name(ref.key)) is not None]


def test_of_the_compacted_objects_only_the_users_own_is_read(archive: Aging) -> None:
    for partition in range(PARTITIONS):
        for user in users_of(partition)[:3]:
            assert partitions(looked_into(archive, user)) == [partition]
            assert found(archive, user) == 4
    assert {ref.modulus for ref in reader.objects(archive.store)} == {PARTITIONS}
    assert archive.verdict().findings == ()


def test_what_is_not_compacted_yet_is_read_in_every_partition(archive: Aging) -> None:
    user = users_of(1)[0]
    for partition in range(PARTITIONS):
        commit(archive, partition, [user])
    assert sorted(partitions(looked_into(archive, user))) == [0, 1, 1, 2, 3]
    assert found(archive, user) == 4 + 2 * PARTITIONS


def test_a_user_in_another_partition_than_kafkas_own_is_found_there(archive: Aging) -> None:
    stray = users_of(1)[0]
    commit(archive, 2, [stray])
    archive.tier()
    assert partitions(looked_into(archive, stray)) == [1, 2]
    assert found(archive, stray) == 6
    assert archive.verdict().findings == ()


def test_objects_keep_what_they_state_when_they_move_and_when_a_user_is_erased(archive: Aging) -> None:
    archive.clock.day = LATE
    archive.tier()
    erased, other = users_of(3)[:2]
    assert archive.erase(erased.hex()) == 4
    assert (found(archive, erased), found(archive, other)) == (0, 4)
    assert partitions(looked_into(archive, other)) == [3]
    assert archive.verdict().findings == ()


def test_an_archive_of_before_there_was_such_a_statement_is_read_whole(archive: Aging) -> None:
    previous = None
    for info in list(archive.store.list(CHANGES)):
        document = json.loads(archive.store.get(info.key)) | {"format": 1, "previous": previous}
        for ref in (*document["removed"], *document["added"]):
            del ref["modulus"]
        archive.store.delete(info.key)
        data = canonical.encode(document)
        archive.store.put_if_absent(info.key, data)
        previous = changes.digest(data)
    user = users_of(1)[0]
    assert sorted(partitions(looked_into(archive, user))) == list(range(PARTITIONS))
    assert found(archive, user) == 4
    archive.clock.day = LATE
    archive.tier()
    assert found(archive, user) == 4
    assert archive.verdict().findings == ()


def test_a_receipt_names_what_was_looked_into_and_holds_afterwards(tmp_path: Path) -> None:
    archive = keyed(Aging(open_store(str(tmp_path / "archive"))))
    user = users_of(2)[0].hex()

    def run(*arguments: str) -> str:
        environment = {"COLUMNS": "250", "WHYREC_SIGNING_KEY_FILE": str(tmp_path / "root.pem")}
        done = CliRunner().invoke(app, [*arguments, "--url", archive.store.url], env=environment)
        assert done.exit_code == 0, done.output
        return str(done.output)

    run("keys", "new", str(tmp_path / "root.pem"))
    run("digest")
    run("keys", "new", str(tmp_path / "receipts.pem"), "--for", "receipts")
    environment = {"WHYREC_SIGNING_KEY_FILE": str(tmp_path / "receipts.pem")}
    asked = ["pull", "--date", DAY, "--user", user, "--out", str(tmp_path / "out"), "--url", archive.store.url]
    assert CliRunner().invoke(app, asked, env=environment).exit_code == 0
    receipt = tmp_path / "out" / "receipt.json"
    (named,) = json.loads(receipt.read_bytes())["objects"]
    assert (partitions([ObjectRef(named["key"], "", 0, 0)]), named["rows_found"]) == ([2], 4)
    archive.clock.day = LATE
    archive.tier()
    assert "valid" in run("receipt", str(receipt))
    view = run("view", "--user", user)
    assert view.count(".parquet") == 1
    assert run("view").count(".parquet") == PARTITIONS
