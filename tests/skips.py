"""In CI (`CI=true`) a skipped test is a failed test, unless the reason for the skip is listed here."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Final

import pytest

ALLOWED: Final = {
    r"MovieLens 100K": "its licence forbids redistribution, so a checkout does not bring it",
    r"public SASRec checkpoint": "it belongs to another project, so a checkout does not bring it",
}
"""Patterns of reasons for which a test may be skipped in CI too, and why each is there."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_where_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped file into an error."""
    report = yield
    _fail_where_skipped(report)
    return report


def _fail_where_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or os.environ.get("CI", "").lower() != "true":
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(re.search(allowed, reason) for allowed in ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"CI allows this skip only if tests/skips.py lists its reason: {reason}"
