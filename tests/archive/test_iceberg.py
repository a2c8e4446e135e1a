"""The Iceberg table holds what readers see, through compaction, moves and erasure; by pyiceberg's own scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from stream.archive.aging import erase
from stream.archive.aging.maintenance import Maintenance, list_places
from stream.archive.objects import Store
from stream.archive.reading import iceberg, reader
from stream.archive.store import open_store
from stream.commands.archive import app
from stream.settings import Settings
from tests.archive.checks import verdict_of
from tests.archive.conftest import open_s3
from tests.archive.test_pull import everything, fill, tier

IDENTITY = ("source_partition", "source_offset", "item_id")


def identities(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in IDENTITY) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", pytest.param("s3", marks=pytest.mark.server("s3_server"))])
def test_the_table_follows_the_archive(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings = Settings()
    if kind == "local":
        store: Store = open_store(str(tmp_path / "archive"))
    else:
        store = open_s3(request)
        server = request.getfixturevalue("s3_server")
        settings = Settings(
            s3_endpoint_url=server.endpoint_url,
            s3_access_key_id=SecretStr(server.access_key),
            s3_secret_access_key=SecretStr(server.secret_key),
            s3_region="us-east-1",
        )
    fill(store)
    opened = iceberg.table(store.url, tmp_path / "catalog.db", settings)
    maintenance = Maintenance(store, who="e", clock=lambda: 0.0)
    for step in ("as committed", "compacted", "moved", "erased"):
        if step in ("compacted", "moved"):
            tier(store, 2 if step == "compacted" else 100)
        if step == "erased":
            for place, names in list_places(store).items():
                list(erase.erase(maintenance, maintenance.inventory(place, names), "0000000000000003", case="1"))
        done = iceberg.refresh(opened, store.url, reader.objects(store))
        assert done.added > 0
        opened = iceberg.table(store.url, tmp_path / "catalog.db", settings)
        assert identities(opened.scan().to_arrow().to_pylist()) == identities(everything(store)), step
        again = iceberg.refresh(opened, store.url, reader.objects(store))
        assert (again.added, again.removed, again.metadata) == (0, 0, done.metadata)
    assert verdict_of(store).consistent
    if kind == "s3":
        kept = [(tmp_path / "catalog.db").read_bytes(), *(store.get(info.key) for info in store.list(iceberg.FOLDER))]
        assert not any(server.secret_key.encode() in each for each in kept)


def test_filters_find_users_requests_and_regions(tmp_path: Path) -> None:
    from pyiceberg.expressions import And, EqualTo

    store = open_store(str(tmp_path / "archive"))
    fill(store)
    opened = iceberg.table(store.url, tmp_path / "catalog.db", Settings())
    iceberg.refresh(opened, store.url, reader.objects(store))
    user = opened.scan(row_filter=EqualTo("user_id_hash", (3).to_bytes(8, "big"))).to_arrow()
    assert user.num_rows == 12
    eu = opened.scan(row_filter=And(EqualTo("region", "EU"), EqualTo("item_id", "item-7-1")))
    assert eu.to_arrow().num_rows == 2
    files = len(list(opened.scan().plan_files()))
    assert len(list(eu.plan_files())) < files  # by the columns' bounds, without opening a file


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "archive"))
    fill(store)
    arguments = ["iceberg", "--url", store.url, "--catalog", str(tmp_path / "catalog.db")]
    first, second = (CliRunner().invoke(app, arguments) for _ in range(2))
    assert "added, 0 removed" in first.output, first
    assert " 0 added, 0 removed" in second.output
    assert "metadata.json" in second.output
