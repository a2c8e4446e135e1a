"""The DuckDB view shows each archived impression once, and nothing else; stock DuckDB reads what it needs."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from stream.archive.objects import Store
from stream.archive.reading import reader, view
from stream.archive.store import open_store
from stream.commands.archive import app
from stream.errors import ArchiveError
from tests.archive.conftest import open_s3
from tests.archive.test_pull import DAYS, fill, tier

COUNT = "SELECT count(*), count(DISTINCT (source_partition, source_offset, item_id)) FROM impressions"


def orphan(store: Store) -> None:
    """Leave an object as a crashed writer would."""
    ref = next(reader.objects(store))
    store.put_if_absent(f"{ref.key[: -len('0123456789abcdef.parquet')]}0123456789abcdef.parquet", store.get(ref.key))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", pytest.param("s3", marks=pytest.mark.server("s3_server"))])
def test_the_view_holds_each_row_once_before_and_after_every_change(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = open_store(str(tmp_path / "archive")) if kind == "local" else open_s3(request)
    fill(store)
    orphan(store)
    for days in (0, 2, 100):
        tier(store, days)
        with view.connect(store, list(reader.objects(store))) as connection:
            assert connection.sql(COUNT).fetchall() == [(96, 96)]
            user = "SELECT count(*) FROM impressions WHERE user_id_hash = from_hex('0000000000000003')"
            assert connection.sql(user).fetchall() == [(12,)]
            days_seen = connection.sql("SELECT DISTINCT date::VARCHAR, region FROM impressions ORDER BY ALL").fetchall()
            assert days_seen == [(day, region) for day in DAYS for region in ("EU", "US")]


def test_a_day_is_asked_for_without_opening_another(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "archive"))
    fill(store)
    refs = list(reader.objects(store))
    for ref in refs:
        if f"date={DAYS[1]}" in ref.key:
            (tmp_path / "archive" / ref.key).write_bytes(b"no Parquet at all")
    with view.connect(store, sorted(refs, key=lambda ref: ref.key)) as connection:
        assert connection.sql(f"{COUNT} WHERE date = '{DAYS[0]}'").fetchall() == [(48, 48)]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    if isinstance(done.exception, ArchiveError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_commands(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "it's an archive"))
    fill(store)
    orphan(store)
    some = ("--url", store.url, "--region", "EU", "--since", DAYS[1])
    with duckdb.connect(":memory:") as stock:
        stock.execute(run("view", *some))
        ((rows, distinct),) = stock.sql(COUNT).fetchall()
    assert rows == distinct
    assert run("sql", COUNT, *some).count(f" {rows} ") == 2
    assert "0000000000000003" in run("sql", "SELECT DISTINCT user_id_hash FROM impressions", "--url", store.url)
    assert run("sql", COUNT, "--url", store.url, "--partition", "1", "--mixed").count("48") == 2
    with pytest.raises(ArchiveError, match="DuckDB rejects"):
        run("sql", "SELECT nothing", "--url", store.url)
    with pytest.raises(ArchiveError, match="no object of these days"):
        run("view", "--url", store.url, "--since", "2030-01-01")
