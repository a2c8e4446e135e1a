"""Least privilege: each role can do its work and nothing else, by the policies in deploy/ on a real S3 server.

The server knows neither roles nor conditions: a role's policy is given to an account as part of the bucket's, and what
a condition says about listing is held against the server's own log of what was asked.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import botocore.session
import hcl2
import pytest

from stream.archive.aging import erase, policy, tiers
from stream.archive.aging.maintenance import Maintenance, append_hold, list_places
from stream.archive.log import holds
from stream.archive.log.commitlog import Chain
from stream.archive.objects import Store, StoreUnavailable
from stream.archive.proof import digests, keys, sealing, snapshot
from stream.archive.proof.keys import PrivateKey
from stream.archive.reading import pull, reader, view
from stream.archive.reading.pull import Query, Reads
from stream.archive.s3 import S3Options
from stream.archive.store import open_store
from stream.archive.writing.writer import Batch, ChainWriter
from stream.errors import ArchiveError
from tests.archive.checks import verdict_of
from tests.archive.slates_of import START_MS, audit, slates
from tests.archive.test_pull import ALL, DAY_S
from tests.parts import s3_server
from tests.parts.cache import PartUnavailable
from tests.parts.fixtures import unavailable
from tests.parts.s3_server import S3Server

TERRAFORM = Path(__file__).parents[2] / "deploy" / "terraform"
ROLES = ("sink", "puller", "tierer", "eraser", "holder", "signer")
PREFIX = "archive/"
ACTIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
}
"""The calls that whyrec may make, and what AWS calls the permission for each; any other is a KeyError."""

_LOGGED = re.compile(r"^\S+ \S+ \[[^]]*\] \S+ (\S+) \S+ s3_(\w+) \S+ /[^/? ]+/?([^? ]*)\??(\S*) ", re.MULTILINE)


def statements(role: str, bucket: str = "b") -> list[dict[str, Any]]:
    text = (TERRAFORM / "policies" / f"{role}.json.tftpl").read_text()
    found: list[dict[str, Any]] = json.loads(text.replace("${bucket}", bucket).replace("${prefix}", PREFIX))[
        "Statement"
    ]
    return found


def allows(role: str, action: str, key: str) -> bool:
    """Evaluate a policy as AWS does, so far as ours use it; for ``s3:ListBucket`` the key is the prefix asked for."""
    for each in statements(role):
        assert each["Effect"] == "Allow"
        if action not in each["Action"]:
            continue
        if action == "s3:ListBucket":
            if any(fnmatchcase(key, like) for like in each["Condition"]["StringLike"]["s3:prefix"]):
                return True
        elif any(fnmatchcase(f"arn:aws:s3:::b/{key}", resource) for resource in each["Resource"]):
            return True
    return False


@dataclass(frozen=True)
class Call:
    """What an account asked the server for."""

    who: str
    action: str
    key: str


@dataclass(frozen=True)
class Guarded:
    """A server with an account for each role, and its log."""

    server: S3Server
    log: Path

    def store(self, role: str) -> Store:
        options = S3Options(self.server.endpoint_url, role, secret(role))
        return open_store(f"s3://{self.server.bucket}/{PREFIX}", options)

    def calls(self) -> list[Call]:
        """Every call so far of an account, as the server logged it."""
        time.sleep(0.2)
        found = []
        for who, operation, path, asked in _LOGGED.findall(self.log.read_text()):
            if who not in ROLES:
                continue
            key = unquote(path)
            if operation.startswith("ListObjects"):
                key = unquote(dict(pair.partition("=")[::2] for pair in asked.split("&"))["prefix"])
            found.append(Call(who, ACTIONS[operation], key))
        return found


def secret(role: str) -> str:
    return f"{role}-very-secret"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    log = folder / "access.log"
    (folder / "iam").mkdir()
    try:
        server = S3Server("--iam-dir", str(folder / "iam"), "--access-log", str(log))
    except PartUnavailable as reason:
        unavailable(reason)
    with server:
        admin = ["admin", "--access", server.access_key, "--secret", server.secret_key]
        for role in ROLES:
            made = ["create-user", "--access", role, "--secret", secret(role), "--role", "user"]
            command = [str(s3_server.fetch()), *admin, "--endpoint-url", server.endpoint_url, *made]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        document = {
            "Version": "2012-10-17",
            "Statement": [
                {name: each[name] for name in ("Effect", "Action", "Resource")} | {"Principal": {"AWS": [role]}}
                for role in ROLES
                for each in statements(role, server.bucket)
            ],
        }
        client = botocore.session.get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
        )
        client.put_bucket_policy(Bucket=server.bucket, Policy=json.dumps(document))
        client.close()
        yield Guarded(server, log)


def sink(store: Store) -> None:
    """Commit twice; then as a second writer that finds out that it is late, and as one that puts an object again."""
    for _ in range(2):
        writer = ChainWriter(store, Chain("explanation-audit", 0), writer="w", clock=lambda: START_MS / 1000)
        late = ChainWriter(store, Chain("explanation-audit", 0), writer="late", clock=lambda: START_MS / 1000)
        first = writer.open().next
        late.open()
        records = [audit(n, day=n % 2) for n in range(first, first + 7)]
        batch = Batch(first, first + 7, slates(records, first))
        writer.commit(batch)
        late.commit(batch)


def tierer(store: Store, days: float) -> None:
    maintenance = Maintenance(store, who="t", clock=lambda: START_MS / 1000 + days * DAY_S)
    for place, names in list_places(store).items():
        list(tiers.run(maintenance, maintenance.inventory(place, names), open_hours=6, grace_s=0))


def holder(store: Store) -> None:
    scope = holds.Scope(region="US")
    made = append_hold(store, lambda known: holds.hold(known, scope, why="", who="h", written_at_ms=1))
    append_hold(store, lambda known: holds.release(known, made.number, why="", who="h", written_at_ms=2))


def signer(store: Store, folder: Path) -> None:
    sealing.new_root(store, folder / "root.pem", 1)
    root = PrivateKey.load(folder / "root.pem")
    sealing.seal(store, root, "2026-01-01", time.time)
    sealing.vouched(store, root, "receipts", folder / "receipts.pem", 2)
    sealing.seal(store, root, "2026-01-02", time.time)


def puller(store: Store) -> None:
    query = Query(ALL, user="0000000000000003")
    there = snapshot.take(store, query.scope)
    assert sum(table.num_rows for table in pull.rows(store, there.objects, query, Reads())) == 4
    assert verdict_of(store).consistent
    with view.connect(store, list(reader.objects(store))) as connection:
        assert connection.sql("SELECT count(*) FROM impressions").fetchall() == [(28,)]
    assert digests.findings(sealing.read(store), digests.Watch(frozenset())) != []


def eraser(store: Store) -> None:
    maintenance = Maintenance(store, who="e", clock=time.time)
    for place, names in list_places(store).items():
        found = list(erase.erase(maintenance, maintenance.inventory(place, names), "0000000000000003", case="1"))
        assert sum(each.rows for each in found) == 2


@pytest.mark.server("s3_server")
def test_each_role_can_do_its_work_and_asks_for_nothing_that_its_policy_lacks(guarded: Guarded, tmp_path: Path) -> None:
    work: list[tuple[str, Callable[[Store], None]]] = [
        ("sink", sink),
        ("tierer", partial(tierer, days=2)),
        ("holder", holder),
        ("signer", partial(signer, folder=tmp_path)),
        ("puller", puller),
        ("tierer", partial(tierer, days=100)),
        ("puller", puller),
        ("eraser", eraser),
    ]
    for role, do in work:
        do(guarded.store(role))
    calls = guarded.calls()
    assert {call.who for call in calls} == set(ROLES)
    asked = {(call.who, call.action) for call in calls}
    assert {("sink", "s3:PutObject"), ("tierer", "s3:DeleteObject"), ("puller", "s3:ListBucket")} <= asked
    assert [call for call in calls if not allows(call.who, call.action, call.key)] == []


DATE = "date=2026-09-21/region=EU/x.parquet"
EVERYWHERE = (DATE, f"cold/{DATE}", *(f"{log}x.json" for log in (*digests.CHAINS, digests.DIGESTS)), "elsewhere")


@pytest.fixture(scope="module")
def root(guarded: Guarded) -> Store:
    """The archive as its owner sees it, with an object everywhere."""
    server = guarded.server
    store = open_store(
        f"s3://{server.bucket}/{PREFIX}", S3Options(server.endpoint_url, server.access_key, server.secret_key)
    )
    for key in EVERYWHERE:
        store.put_if_absent(f"{key}.there", b"")
    return store


@pytest.mark.server("s3_server")
@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_may_not_do_is_refused(guarded: Guarded, root: Store, role: str) -> None:
    store = guarded.store(role)
    for key in EVERYWHERE:
        tries: list[tuple[str, Callable[[], object]]] = [
            ("s3:GetObject", partial(store.get, f"{key}.there")),
            ("s3:PutObject", partial(store.put_if_absent, f"{key}.{role}", b"")),
            ("s3:DeleteObject", partial(store.delete, f"{key}.{role}")),
        ]
        for action, attempt in tries:
            if allows(role, action, f"{PREFIX}{key}"):
                attempt()
                continue
            with pytest.raises(ArchiveError, match="not permitted") as refused:
                attempt()
            assert not isinstance(refused.value, StoreUnavailable)
            assert secret(role) not in f"{refused.value!r} {refused.value.__cause__!r}"
    left = [info.key for info in root.list("") if info.key.endswith(f".{role}")]
    allowed = [
        key
        for key in EVERYWHERE
        if allows(role, "s3:PutObject", PREFIX + key) and not allows(role, "s3:DeleteObject", PREFIX + key)
    ]
    assert sorted(left) == sorted(f"{key}.{role}" for key in allowed)


def test_the_promises_in_words() -> None:
    def may(role: str, action: str) -> set[str]:
        return {key for key in EVERYWHERE if allows(role, action, PREFIX + key)}

    logs = {f"{log}x.json" for log in (*digests.CHAINS, digests.DIGESTS)}
    assert not may("puller", "s3:PutObject")
    for role in ("sink", "puller", "holder", "signer"):
        assert not may(role, "s3:DeleteObject")
    assert may("sink", "s3:PutObject") == {DATE, "_commits/x.json"}
    assert may("signer", "s3:PutObject") == {"_digests/x.json"}
    assert not may("signer", "s3:GetObject") & {DATE, f"cold/{DATE}"}
    assert [role for role in ROLES if may(role, "s3:DeleteObject") & logs] == []
    assert {role for role in ROLES if "_digests/x.json" in may(role, "s3:PutObject")} == {"signer"}
    assert {role for role in ROLES if "_commits/x.json" in may(role, "s3:PutObject")} == {"sink"}
    for role in ROLES:
        assert not allows(role, "s3:PutObject", "elsewhere")


def plain(value: Any) -> Any:
    """What python-hcl2 read, without the quotes that it keeps around strings."""
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items() if not str(key).startswith("__")}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.strip('"') if isinstance(value, str) else value


@pytest.fixture(scope="module")
def terraform() -> dict[str, Any]:
    with (TERRAFORM / "main.tf").open() as file:
        found: dict[str, Any] = plain(hcl2.load(file))
    return found


def resource(terraform: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each[kind][name] for each in terraform["resource"] if name in each.get(kind, {}))
    return found


def test_terraform_has_the_ages_classes_and_prefixes_of_the_code(terraform: dict[str, Any]) -> None:
    (here,) = terraform["locals"]
    assert here["hot_days"] == policy.TIERS["hot"].until_days
    assert here["cold_days"] == policy.TIERS["cold"].until_days
    assert here["cold_class"] == policy.TIERS["cold"].storage_class
    assert sorted(here["logs"]) == sorted((*digests.CHAINS, digests.DIGESTS))
    assert keys.KEYS.startswith(digests.DIGESTS)
    assert tuple(here["roles"]) == ROLES
    assert {path.name.partition(".")[0] for path in (TERRAFORM / "policies").iterdir()} == {
        *ROLES,
        "bucket",
        "replication",
    }


def test_no_rule_of_the_bucket_deletes_what_a_hold_may_keep(terraform: dict[str, Any]) -> None:
    rules = resource(terraform, "aws_s3_bucket_lifecycle_configuration", "archive")["rule"]
    assert len(rules) == 2
    for rule in rules:
        for expiration in rule.get("expiration", []):
            assert set(expiration) == {"expired_object_delete_marker"}
    (transition,) = rules[0]["transition"]
    assert transition == {"days": "${local.hot_days}", "storage_class": "${local.cold_class}"}


def test_the_copies_of_the_logs_are_locked_longer_than_any_row_lives(terraform: dict[str, Any]) -> None:
    lock = resource(terraform, "aws_s3_bucket_object_lock_configuration", "witness")
    (retention,) = lock["rule"][0]["default_retention"]
    assert retention["mode"] == "COMPLIANCE"
    extra = re.fullmatch(r"\$\{local\.cold_days \+ (\d+)\}", retention["days"])
    assert extra is not None
    assert int(extra[1]) > 0
