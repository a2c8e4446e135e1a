"""Signed digests: what a hash chain alone cannot show. Each test is named after the attack."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.archive.aging.maintenance import append_hold
from stream.archive.log import canonical, changes, commitlog, holds
from stream.archive.log.changes import Transaction
from stream.archive.log.commitlog import Chain
from stream.archive.log.names import Place, object_name
from stream.archive.objects import MemoryStore, Store
from stream.archive.proof import digests, keys, sealing
from stream.archive.proof.digests import DIGESTS, InvalidDigest, Watch
from stream.archive.proof.findings import Finding
from stream.archive.proof.keys import PrivateKey
from stream.archive.reading import reader
from stream.archive.store import open_store
from stream.archive.writing.writer import Batch, ChainWriter
from stream.commands.archive import app
from stream.errors import ArchiveError, ConfigurationError
from tests.archive.slates_of import audit, slates

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC).timestamp()
DAY_S = 86_400.0


def fill(store: Store, partition: int, commits: int) -> None:
    """Continue a chain by entries of two records each."""
    writer = ChainWriter(store, Chain("explanation-audit", partition), writer="w")
    writer.open()
    for _ in range(commits):
        first = writer.tail.next
        records = [audit(first + n, partition=partition) for n in range(2)]
        writer.commit(Batch(first, first + 2, slates(records, first)))


def change(store: Store) -> str:
    """Record a change (an erasure of a whole object) at the only place there is, and return its key."""
    ref = next(reader.objects(store))
    name = object_name(ref.key)
    assert name is not None
    done = Transaction("erased", (ref,), (), None, ref.rows, "case 1")
    made = changes.append(reader.state(store, name.place), name.place, done, holds=0, who="w", written_at_ms=0)
    store.put_if_absent(made.key, changes.encode(made))
    return made.key


def hold(known: holds.Holds) -> holds.Record:
    return holds.hold(known, holds.Scope(region="EU"), why="", who="w", written_at_ms=0)


class Archive:
    """Three days, two chains of sinks, one of changes, one of holds; a digest at the end of each day."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.root = sealing.new_root(store, folder / "root.pem", 1)
        self.private = PrivateKey.load(folder / "root.pem")
        self.change = ""
        for day in range(3):
            fill(store, 0, 2)
            if day < 2:
                fill(store, 1, 1)
            if day == 1:
                self.change = change(store)
                append_hold(store, hold)
            self.seal(day)

    def seal(self, day: int) -> None:
        sealing.seal(self.store, self.private, None, lambda: NOON + day * DAY_S)

    def rotate(self) -> None:
        path = self.folder / f"next-{len(list(self.folder.iterdir()))}.pem"
        made_at_ms = len(list(self.folder.iterdir()))
        sealing.vouched(self.store, self.private, "digests", path, made_at_ms)
        self.private = PrivateKey.load(path)

    def findings(self, trust: str | None = None, today: str = "2026-11-22") -> list[Finding]:
        signed = sealing.read(self.store, trust or self.root.id)
        watch = Watch.of(signed)
        for raw in (reader.raw_holds, reader.raw_changes, reader.raw_entries):
            for _ in watch.over(raw(self.store)):
                pass
        return digests.findings(signed, watch, today)

    def errors(self, trust: str | None = None) -> set[tuple[int, str]]:
        return {(each.rule, each.key) for each in self.findings(trust) if each.severity == "error"}

    def entries(self, prefix: str = "_commits/explanation-audit/0/") -> list[str]:
        return [info.key for info in self.store.list(prefix)]

    def replace(self, key: str, data: bytes) -> None:
        self.store.delete(key)
        self.store.put_if_absent(key, data)

    def edit(self, key: str, **fields: object) -> None:
        self.replace(key, canonical.encode(json.loads(self.store.get(key)) | fields))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(MemoryStore(), tmp_path)


def of(day: int) -> str:
    return digests.key_of(f"2026-11-{20 + day}")


def test_an_untouched_archive_has_nothing_wrong(archive: Archive) -> None:
    assert archive.findings() == []
    assert [finding.rule for finding in archive.findings(today="2026-11-25")] == [38]


def test_a_digest_names_only_the_chains_that_changed(archive: Archive) -> None:
    named = [set(digests.decode(archive.store.get(of(day))).chains) for day in range(3)]
    sinks = {"_commits/explanation-audit/0/", "_commits/explanation-audit/1/"}
    place = archive.change.rpartition("/")[0] + "/"
    assert named == [sinks, sinks | {place, "_holds/"}, {"_commits/explanation-audit/0/"}]


def test_what_was_written_after_the_last_digest_may_end_anywhere(archive: Archive) -> None:
    fill(archive.store, 0, 2)
    assert archive.findings() == []
    archive.store.delete(archive.entries()[-1])
    assert archive.findings() == []


def test_a_truncated_chain_tail(archive: Archive) -> None:
    archive.store.delete(archive.entries()[-1])
    (finding,) = archive.findings()
    assert (finding.rule, finding.key) == (35, "_commits/explanation-audit/0/")
    assert f"ends at 10; {of(2)} recorded its end at 12" in finding.what


def test_a_truncated_chain_tail_that_grew_again(archive: Archive) -> None:
    archive.store.delete(archive.entries()[-1])
    fill(archive.store, 0, 3)
    assert archive.errors() == {(37, "_commits/explanation-audit/0/")}


def test_a_truncated_chain_of_changes(archive: Archive) -> None:
    archive.store.delete(archive.change)
    assert archive.errors() == {(36, archive.change.rpartition("/")[0] + "/")}


def test_a_hold_taken_away(archive: Archive) -> None:
    archive.store.delete("_holds/00000000.json")
    assert archive.errors() == {(36, "_holds/")}


def test_a_chain_removed_altogether(archive: Archive) -> None:
    for key in archive.entries("_commits/explanation-audit/1/"):
        archive.store.delete(key)
    assert archive.errors() == {(36, "_commits/explanation-audit/1/")}


def test_an_entry_rewritten_behind_a_signed_tail_with_all_that_follow(archive: Archive) -> None:
    keys_ = archive.entries()
    previous = None
    for key in keys_:
        document = json.loads(archive.store.get(key)) | {"writer": "somebody else", "previous": previous}
        data = canonical.encode(document)
        archive.replace(key, data)
        previous = commitlog.digest(data)
    assert archive.errors() == {(37, "_commits/explanation-audit/0/")}


@pytest.mark.parametrize("day", [0, 1])
def test_a_removed_digest(archive: Archive, day: int) -> None:
    archive.store.delete(of(day))
    assert archive.errors() == {(34, of(day + 1))}


def test_the_newest_digests_removed_is_noticed_after_a_day(archive: Archive) -> None:
    archive.store.delete(of(2))
    assert archive.findings() == []
    assert [finding.rule for finding in archive.findings(today="2026-11-23")] == [38]


def test_all_digests_and_keys_removed(archive: Archive) -> None:
    for info in archive.store.list(DIGESTS):
        archive.store.delete(info.key)
    assert 33 in {finding.rule for finding in archive.findings()}


def test_a_rewritten_digest(archive: Archive) -> None:
    archive.edit(of(1), chains={})
    assert archive.errors() == {(33, of(1)), (34, of(2))}


def test_a_changed_byte_in_a_digest_wherever_it_is(archive: Archive) -> None:
    data = archive.store.get(of(2))
    for position in range(0, len(data), 5):
        changed = bytearray(data)
        changed[position] ^= 1
        archive.replace(of(2), bytes(changed))
        assert archive.errors(), f"byte {position}: {bytes(changed)!r}"


def test_two_digests_exchanged(archive: Archive) -> None:
    one, other = archive.store.get(of(0)), archive.store.get(of(1))
    archive.replace(of(0), other)
    archive.replace(of(1), one)
    assert {(31, of(0)), (31, of(1))} <= archive.errors()


def test_a_digest_under_another_date(archive: Archive) -> None:
    archive.store.put_if_absent(of(9), archive.store.get(of(2)))
    assert archive.errors() == {(31, of(9))}


def test_a_digest_signed_with_a_key_of_the_intruder(archive: Archive) -> None:
    signed = sealing.read(archive.store)
    intruder = PrivateKey.generate()
    archive.store.put_if_absent(of(3), digests.make(intruder, "2026-11-23", {}, signed.last, 0))
    assert archive.errors() == {(33, of(3))}
    # Nor does it help to leave its public key beside ours, signed by itself or by a key that is not there.
    for by in (intruder, PrivateKey.generate()):
        public = keys.vouch(by, intruder.public, "digests", 2)
        archive.replace(keys.key_of(public), keys.encode(public))
        assert archive.errors() == {(33, of(3)), (32, keys.key_of(public))}


def test_the_whole_archive_signed_anew_with_another_root(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Archive(MemoryStore(), tmp_path / "other")
    assert other.findings() == []
    assert {rule for rule, _ in other.errors(trust=archive.root.id)} == {33}


def test_a_removed_public_key(archive: Archive) -> None:
    archive.rotate()
    archive.seal(3)
    archive.store.delete(keys.key_of(archive.root))
    assert {32, 33} <= {rule for rule, _ in archive.errors()}


def test_rotation_keeps_everything_verifiable(archive: Archive) -> None:
    archive.rotate()
    second = archive.private.id
    fill(archive.store, 0, 1)
    archive.seal(3)
    archive.rotate()
    archive.seal(4)
    for trust in (archive.root.id, second, archive.private.id):
        assert archive.findings(trust, today="2026-11-24") == []


def test_a_replaced_key_that_signs_again(archive: Archive) -> None:
    stolen = archive.private
    archive.rotate()
    archive.seal(3)
    last = sealing.read(archive.store).last
    archive.store.put_if_absent(of(4), digests.make(stolen, "2026-11-24", {}, last, 0))
    assert archive.errors() == {(33, of(4))}


def test_the_digests_of_the_new_key_removed_and_the_old_key_used_again(archive: Archive) -> None:
    archive.rotate()
    archive.seal(3)
    archive.store.delete(of(3))
    assert archive.errors(trust=archive.private.id) == {(33, f"_digests/keys/{archive.private.id}.json")}


def test_a_key_for_receipts_that_signs_a_digest(archive: Archive, tmp_path: Path) -> None:
    sealing.vouched(archive.store, archive.private, "receipts", tmp_path / "receipts.pem", 5)
    assert archive.findings() == []
    lent = PrivateKey.load(tmp_path / "receipts.pem")
    last = sealing.read(archive.store).last
    archive.store.put_if_absent(of(3), digests.make(lent, "2026-11-23", {}, last, 0))
    assert archive.errors() == {(33, of(3))}


def test_that_no_key_was_named_to_trust_is_said(archive: Archive) -> None:
    signed = sealing.read(archive.store)
    assert [(each.rule, each.severity) for each in signed.findings] == [(33, "notice")]


def spoil_tail(archive: Archive) -> None:
    archive.store.delete(archive.entries()[-1])


def spoil_regrown_tail(archive: Archive) -> None:
    spoil_tail(archive)
    fill(archive.store, 0, 3)


def spoil_chain(archive: Archive) -> None:
    archive.store.delete("_holds/00000000.json")


def spoil_link(archive: Archive) -> None:
    fill(archive.store, 0, 2)
    archive.edit(archive.entries()[-1], previous="0" * 64)


def spoil_digests(archive: Archive) -> None:
    archive.store.delete(of(1))


@pytest.mark.parametrize("spoil", [spoil_tail, spoil_regrown_tail, spoil_chain, spoil_link, spoil_digests])
def test_a_damaged_archive_gets_no_new_digest(archive: Archive, spoil: Callable[[Archive], None]) -> None:
    spoil(archive)
    with pytest.raises(ArchiveError, match="whyrec archive verify"):
        archive.seal(3)
    assert not list(archive.store.list(of(3)))


def test_a_day_has_one_digest_and_days_follow_one_another(archive: Archive) -> None:
    clock = lambda: NOON + 5 * DAY_S  # noqa: E731
    for date in ("2026-11-22", "2026-11-01"):
        with pytest.raises(InvalidDigest, match="cannot follow the digest of"):
            sealing.seal(archive.store, archive.private, date, clock)
    with pytest.raises(InvalidDigest, match="future"):
        sealing.seal(archive.store, archive.private, "2026-12-01", clock)
    assert sealing.seal(archive.store, archive.private, "2026-11-24", clock).chains == {}
    made = sealing.seal(archive.store, archive.private, None, clock)
    fill(archive.store, 0, 1)
    assert sealing.seal(archive.store, archive.private, None, clock) == made  # a job that is run again


def test_only_the_key_in_force_signs(archive: Archive, tmp_path: Path) -> None:
    old = archive.private
    archive.rotate()
    with pytest.raises(ArchiveError, match="digests are signed by"):
        sealing.seal(archive.store, old, None, lambda: NOON + 3 * DAY_S)
    with pytest.raises(ArchiveError, match="not the key in force"):
        sealing.vouched(archive.store, old, "digests", tmp_path / "fork.pem", 9)
    assert not (tmp_path / "fork.pem").exists()
    with pytest.raises(ArchiveError, match="has a key already"):
        sealing.new_root(archive.store, tmp_path / "second-root.pem", 9)


def test_a_private_key_is_its_owners_alone_and_shows_in_no_text(tmp_path: Path) -> None:
    made = PrivateKey.generate()
    path = tmp_path / "key.pem"
    made.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert PrivateKey.load(path).id == made.id
    assert repr(made) == f"PrivateKey({made.id})"
    with pytest.raises(ConfigurationError, match="never overwritten"):
        made.save(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        PrivateKey.load(path)
    (tmp_path / "damaged.pem").write_text(path.read_text().replace("MC4C", "MC4D"))
    (tmp_path / "damaged.pem").chmod(0o600)
    with pytest.raises(ConfigurationError) as caught:
        PrivateKey.load(tmp_path / "damaged.pem")
    assert path.read_text().splitlines()[1][8:] not in f"{caught.value!r} {caught.value.__cause__!r}"


def run(*arguments: str, key: Path | None = None) -> tuple[int, str]:
    environment = {"COLUMNS": "250"} | ({"WHYREC_SIGNING_KEY_FILE": str(key)} if key else {})
    done = CliRunner().invoke(app, arguments, env=environment)
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_the_commands_from_first_key_to_a_truncated_tail(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "archive"))
    fill(store, 0, 3)
    url = ("--url", store.url)
    root, following = tmp_path / "root.pem", tmp_path / "next.pem"
    with pytest.raises(ConfigurationError, match="WHYREC_SIGNING_KEY_FILE"):
        run("digest", *url)
    code, output = run("keys", "new", str(root), *url)
    assert code == 0
    trust = output.split()[0]
    code, output = run("digest", *url, "--date", "2026-01-01", key=root)
    assert "digest of 2026-01-01: 1 chains have grown" in output
    run("keys", "rotate", str(following), *url, key=root)
    code, output = run("digest", *url, key=following)
    assert "0 chains have grown" in output
    code, output = run("keys", "list", *url)
    assert (output.count("no, replaced"), output.count("yes")) == (1, 1)
    code, output = run("verify", *url, "--trust", trust)
    assert (code, "whole" in output) == (0, True), output
    code, output = run("verify", *url, "--trust", "f" * 32)
    assert (code, "damaged" in output) == (1, True), output
    code, output = run("verify", *url, "--trust", f"{store.url}/_digests/keys/{trust}.json")
    assert code == 0, output
    # Whoever takes away the last entry makes its objects look like a crashed writer's: sweep must not believe it.
    last = [info.key for info in store.list("_commits/")][-1]
    store.delete(last)
    for info in store.list("date="):
        os.utime(Path(store.url) / info.key, (0, 0))
    before = [info.key for info in store.list("date=")]
    with pytest.raises(ArchiveError, match="damaged"):
        run("sweep", *url, "--delete")
    assert [info.key for info in store.list("date=")] == before
    code, output = run("verify", *url, "--trust", trust)
    assert (code, "its last entries were removed" in output) == (1, True), output


def test_trust_in_what_is_no_key_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "archive"))
    fill(store, 0, 1)
    with pytest.raises(ConfigurationError, match="expected a key id"):
        run("verify", "--url", store.url, "--trust", "nobody")


def test_places_with_odd_names_have_chains_like_any_other(tmp_path: Path) -> None:
    key = Place("2026-01-01", "a/b %").key(3)
    assert digests.link_of(key, b'{"previous":null}') == (key.rpartition("/")[0] + "/", 4, None)
