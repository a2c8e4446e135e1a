"""whyrec audit, as it is run."""

from __future__ import annotations

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from stream.cli import app


def test_the_command_prints_writes_and_draws(tmp_path: Path) -> None:
    written, page = tmp_path / "audit.json", tmp_path / "audit.html"
    done = CliRunner().invoke(app, ["audit", "--n", "3", "--json", str(written), "--report", str(page)])
    assert done.exit_code == 0, done.output
    assert "100.0%" in done.output
    assert "42.3%" in done.output
    record = json.loads(written.read_text())
    assert record["policies"]["evidence"]["all"]["confirmed_share"]["denominator"] == 60
    html = page.read_text()
    assert html.count("<svg") == 2
    # Nothing is fetched: the page is one file.
    assert not re.search(r"<(script|link|img)\b|url\(http|@import", html)


def test_a_policy_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["audit", "--n", "1", "--policy", "guessing"])
    assert done.exit_code == 1
    assert "expected a policy out of" in str(done.exception)
