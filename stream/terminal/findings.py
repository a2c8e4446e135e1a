"""What the checks of a bundle found, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.markup import escape
from rich.table import Table

from models.check import Finding

_MARKS: Final = {True: "[green]fits[/]", False: "[red]does not fit[/]", None: "[cyan]note[/]"}


def findings_table(findings: Sequence[Finding], title: str) -> Table:
    """Lay out one row per check."""
    table = Table("", "", "", title=escape(title), show_header=False, title_justify="left")
    for finding in findings:
        table.add_row(finding.what, _MARKS[finding.fits], escape(finding.says))
    return table
