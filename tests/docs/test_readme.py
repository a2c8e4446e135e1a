"""What the README shows is run as it stands there: shell blocks against a real broker, Python blocks, help texts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pytest

from models.bundle import Bundle
from models.data.simulator import simulate
from models.data.slates import impressions
from stream.archive.store import open_store
from stream.settings import BUNDLED_MODEL
from tests.archive.test_pull import fill
from tests.parts.fixtures import ExistingKafka, ExistingS3Server
from tests.parts.kafka import Kafka
from tests.parts.s3_server import S3Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
MOVIELENS = ROOT.parent / "shared" / "data" / "movielens-100k"
SCRIPT_TIMEOUT_S = 900
"""A script may train models while other tests share the cores."""

TRAIN = 'whyrec models train --movielens "$MOVIELENS"'


def blocks(language: str, heading: str) -> list[str]:
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert section is not None, f"the README has no section {heading!r}"
    found = re.findall(rf"^```{language}\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    assert found, f"the section {heading!r} has no {language} block"
    return found


def run(script: str, directory: Path, **environment: str) -> str:
    """Run a script as a reader would paste it, in an empty folder, with whyrec on the path."""
    done = subprocess.run(
        ["bash", "-c", f"set -meuo pipefail\n{script}"],
        cwd=directory,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def rows(archive: Path) -> int:
    return len(duckdb.read_parquet(f"{archive}/date=*/region=*/*.parquet"))


def clean_environment() -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WHYREC_", "MAKE", "MFLAGS"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "WHYREC_METRICS_PORT": "0", "COLUMNS": "100"}


def test_make_demo_ends_with_counts_that_agree() -> None:
    (block,) = blocks("sh", "Two commands")
    commands = [line.split("#")[0].strip() for line in block.splitlines()]
    assert commands == ["make demo", "make test"]  # the second is what runs this test
    assert "All agree" in run("make demo", ROOT, DURATION="4")


def test_the_python_block_explains(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks("python", "In your own process")
    monkeypatch.chdir(ROOT)
    slates = list(impressions(Bundle.load(BUNDLED_MODEL), simulate(3, 1)))
    exec(compile(block, "README.md", "exec"), {"impressions": slates})  # noqa: S102 (it is our own README)
    assert capsys.readouterr().out.strip()


def test_the_kafka_block_archives_what_it_explains(kafka: Kafka | ExistingKafka, tmp_path: Path) -> None:
    (block,) = blocks("sh", "On a real Kafka")
    assert "127.0.0.1:9092" in block
    printed = run(block.replace("127.0.0.1:9092", kafka.bootstrap), tmp_path)
    assert rows(tmp_path / "archive") == 500 * 20, printed


def test_the_movielens_block_replays_real_histories(
    kafka: Kafka | ExistingKafka, s3_server: S3Server | ExistingS3Server, s3_url: str, tmp_path: Path
) -> None:
    if not MOVIELENS.is_dir():
        pytest.skip(f"no copy of MovieLens 100K at {MOVIELENS}")
    (block,) = blocks("sh", "On real data")
    assert TRAIN in block
    names = {
        f"WHYREC_{role}_TOPIC": f"readme-movielens-{role.lower()}"
        for role in ("IMPRESSIONS", "EXPLANATIONS", "AUDIT", "DEAD_LETTERS")
    }
    # One pass over the data instead of all of them: what is shown here is the way, not the quality.
    short = block.replace(TRAIN, f"{TRAIN} --epochs 1 --no-baseline")
    assert "WHYREC_ARCHIVE_URL=movielens-archive" in short
    printed = run(
        f"{short.replace('movielens-archive', s3_url)}\nwhyrec archive stats",
        tmp_path,
        MOVIELENS=str(MOVIELENS),
        WHYREC_BOOTSTRAP_SERVERS=kafka.bootstrap,
        WHYREC_CONSUMER_GROUP="readme-movielens",
        WHYREC_S3_ENDPOINT_URL=s3_server.endpoint_url,
        **names,
        **s3_server.environment,
    )
    assert "whole" in printed
    assert f"{500 * 20:,} impressions" in printed


def test_the_compliance_block_signs_verifies_and_pulls(tmp_path: Path) -> None:
    (block,) = blocks("sh", "What compliance does")
    fill(open_store(str(tmp_path / "archive")))
    printed = run(block, tmp_path)
    assert "whole" in printed
    assert ": valid" in printed
    assert len((tmp_path / "case-17" / "rows.csv").read_text().splitlines()) == 1 + 12


def test_the_commands_shown_are_the_commands_there_are(tmp_path: Path) -> None:
    (block,) = blocks("console", "Commands")
    command, _, expected = block.partition("\n")
    assert command.startswith("$ ")
    printed = run(command[2:], tmp_path, COLUMNS="100", NO_COLOR="1", TERM="dumb")
    assert [line.rstrip() for line in printed.strip().splitlines()] == [
        line.rstrip() for line in expected.strip().splitlines()
    ]
