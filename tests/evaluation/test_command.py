"""``whyrec evaluate``, run as a person runs it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.cli import app
from stream.settings import BUNDLED_MODEL

pytestmark = pytest.mark.slow


def test_the_command_prints_writes_and_draws(tmp_path: Path) -> None:
    written, page = tmp_path / "evaluation.json", tmp_path / "evaluation.html"
    done = CliRunner().invoke(app, ["evaluate", "--n", "3", "--json", str(written), "--report", str(page)])
    assert done.exit_code == 0, done.output
    assert "100.0%" in done.output
    assert "42.3%" in done.output
    record = json.loads(written.read_text())
    assert record["policies"]["evidence"]["all"]["confirmed_share"]["denominator"] == 60
    html = page.read_text()
    assert html.count("<svg") == 2
    # Nothing is fetched: the page is one file.
    assert not re.search(r"<(script|link|img)\b|url\(http|@import", html)


def test_the_margin_of_older_events_is_stated(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLED_MODEL, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"citation_ageing": 0.5}))
    written, page = tmp_path / "evaluation.json", tmp_path / "evaluation.html"
    command = ["evaluate", "--n", "1", "--bundle", str(bundle), "--json", str(written), "--report", str(page)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    stated = (
        f"citation margin {manifest['citation_margin']:g} (n to the power of 0.5 times that for the nth newest event)"
    )
    assert stated in " ".join(done.output.split())
    assert stated in " ".join(page.read_text().split())
    assert json.loads(written.read_text())["citation_ageing"] == 0.5


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--n", "1", "--policy", "guessing"])
    assert done.exit_code == 1
    assert "expected a policy out of" in str(done.exception)


def test_the_former_name_of_the_command_still_works_and_says_that_it_is_deprecated() -> None:
    done = CliRunner().invoke(app, ["audit", "--n", "1", "--policy", "evidence"])
    assert done.exit_code == 0, done.output
    assert "deprecated" in done.output
    assert "audit" not in CliRunner().invoke(app, ["--help"]).output.split()
