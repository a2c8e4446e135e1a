"""`whyrec demo` ends by itself, with counts that agree, on the embedded broker and on a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest
from confluent_kafka.admin import AdminClient

from models.data.sessions import ENGAGEMENT_NAMES
from models.data.world import streamrec
from models.session.config import SessionConfig
from schemas.events import EXPLANATION_TYPES
from stream.demo.outcome import Outcome
from tests.bundles import tiny_bundle
from tests.parts.kafka import Kafka

pytestmark = pytest.mark.slow

ITEMS_PER_SLATE = 20
KEYS = {
    "events_in",
    "items_in",
    "items_explained",
    "rows_archived",
    "dead_letters",
    "latency_ms",
    "types",
    "archive",
}


@pytest.fixture(scope="module")
def streamrec_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle for the simulator's catalogue."""
    catalog = streamrec().catalog
    config = SessionConfig(
        items=len(catalog), engagements=len(ENGAGEMENT_NAMES), d=16, layers=2, heads=2, d_ff=32, max_length=50
    )
    return tiny_bundle(tmp_path_factory.mktemp("streamrec"), config=config, catalog=catalog)


def demo(folder: Path, bundle: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "stream.cli",
            "demo",
            "--duration",
            "3",
            "--rate",
            "10",
            "--json",
            "out.json",
            *arguments,
        ],
        cwd=folder,
        env={
            **os.environ,
            "WHYREC_BUNDLE_DIR": str(bundle),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "COLUMNS": "80",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def shown(streamrec_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    run = demo(folder, streamrec_dir)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder, run.stdout, json.loads((folder / "out.json").read_text())


def test_the_counts_agree(shown: tuple[Path, str, dict[str, Any]]) -> None:
    _, printed, figures = shown
    assert set(figures) == KEYS
    assert figures["events_in"] == 30
    assert figures["items_in"] == figures["items_explained"] == figures["rows_archived"] == 30 * ITEMS_PER_SLATE
    assert figures["dead_letters"] == 0
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
    assert list(figures["types"]) == list(EXPLANATION_TYPES)
    assert sum(figures["types"].values()) == 30 * ITEMS_PER_SLATE
    assert "All agree" in printed


def test_the_archive_is_where_it_says_and_duckdb_counts_the_same(shown: tuple[Path, str, dict[str, Any]]) -> None:
    folder, printed, figures = shown
    assert Path(figures["archive"]).is_relative_to(folder / "demo")
    with duckdb.connect() as connection:
        objects = f"{figures['archive']}/date=*/region=*/*.parquet"
        [(rows, slates)] = connection.execute(
            "SELECT count(*), count(DISTINCT request_id) FROM read_parquet(?)", [objects]
        ).fetchall()
    assert (rows, slates) == (figures["rows_archived"], figures["events_in"])
    assert "read_parquet(" in printed


def test_the_summary_fits_a_terminal_of_80_columns(shown: tuple[Path, str, dict[str, Any]]) -> None:
    _, printed, _ = shown
    summary = printed[printed.index("Three of the explanations") :]
    assert [line for line in summary.splitlines() if len(line) > 80] == []


def test_three_explanations_are_printed_with_their_evidence(shown: tuple[Path, str, dict[str, Any]]) -> None:
    _, printed, _ = shown
    for number in (1, 2, 3):
        assert f"\n{number}. " in printed
    assert printed.count("strongest features") == 3


def test_nothing_is_left_but_the_archive_and_the_log(shown: tuple[Path, str, dict[str, Any]]) -> None:
    folder, _, _ = shown
    [run] = (folder / "demo").iterdir()
    assert {each.name for each in run.iterdir()} == {"archive", "worker.log"}
    assert {each.name for each in folder.iterdir()} == {"demo", "out.json"}
    assert not [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(folder)]


def test_on_a_real_kafka_and_s3_the_counts_agree_and_no_topics_are_left(
    streamrec_dir: Path, kafka: Kafka, s3_url: str, tmp_path: Path
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    before = set(admin.list_topics(timeout=10).topics) - {"__consumer_offsets"}
    run = demo(tmp_path, streamrec_dir, "--bootstrap", kafka.bootstrap, "--archive", s3_url)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["rows_archived"] == figures["items_in"] == 30 * ITEMS_PER_SLATE
    assert figures["archive"] == s3_url
    assert "FROM archive" in run.stdout
    assert set(admin.list_topics(timeout=10).topics) - {"__consumer_offsets"} == before


def test_an_archive_that_is_in_use_is_refused(shown: tuple[Path, str, dict[str, Any]], streamrec_dir: Path) -> None:
    folder, _, figures = shown
    run = demo(folder, streamrec_dir, "--archive", figures["archive"], "--json", "other.json")
    assert run.returncode == 1
    assert "fresh" in run.stderr
    assert not (folder / "other.json").exists()


def test_a_worker_that_cannot_start_ends_the_demonstration_with_its_reason(streamrec_dir: Path, tmp_path: Path) -> None:
    run = demo(
        tmp_path,
        streamrec_dir,
        WHYREC_POLICY="attention",
        WHYREC_SESSION_TIMEOUT_S="10",
        WHYREC_METRICS_HOST="203.0.113.1",
    )
    assert run.returncode == 1
    assert "WHYREC_METRICS_PORT" in run.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"items_explained": 39}, "40 items went in, 39 were explained"),
        ({"rows_archived": 41}, "40 items were explained, 41 rows are archived"),
        ({"dead_letters": 1}, "dead letters"),
        ({"events_in": 0}, "nothing was sent"),
    ],
)
def test_counts_that_disagree_are_described(changes: dict[str, int], said: str) -> None:
    figures: dict[str, Any] = {
        "events_in": 2, "items_in": 40, "items_explained": 40, "rows_archived": 40, "dead_letters": 0,
        "latency_ms": {"p50": 1.0, "p99": 2.0}, "types": {}, "archive": "a",
    }  # fmt: skip
    assert Outcome(**figures).faults() == []
    assert any(said in fault for fault in Outcome(**figures | changes).faults())
