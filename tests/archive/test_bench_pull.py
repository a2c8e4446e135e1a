"""The benchmark's archive is a real one, and its figures are counted, not assumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cost import cost, monthly
from bench.pull import measure
from stream.archive.store import open_store
from tests.archive.checks import verdict_of


def test_one_user_is_found_in_a_generated_archive_by_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measure(tmp_path, 20_000, 2, 2)
    ways = report["ways"]
    assert len({way["rows"] for way in ways.values()}) == 1
    assert all(0 < way["bytes"] <= 10 * report["bytes"] for way in ways.values())
    assert "stock DuckDB, any partition" in capsys.readouterr().out
    verdict = verdict_of(open_store(str(tmp_path)))
    assert (verdict.consistent, verdict.rows, verdict.objects) == (True, 20_000, 4)


def test_the_cost_of_the_references_rows_is_what_was_measured_before_we_started() -> None:
    found = cost(500)
    assert (found.gb_a_day, round(found.hot), round(found.cold)) == (200, 414, 512)
    assert "~200" in monthly(28)
