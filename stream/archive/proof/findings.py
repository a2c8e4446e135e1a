"""What the verifier is told about objects, and what it reports. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stream.archive.log.sources import Sources

Severity = Literal["error", "notice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation of a rule (error), or something that a reader of the archive should know (notice).

    ``leftover`` marks an object of rule 11 or 19 that a crash left behind and that no writer can need any more.
    """

    rule: int
    severity: Severity
    key: str
    what: str
    leftover: bool = False


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What was found in an object. A field is None where it was not looked at.

    ``sources`` are the source offsets of the rows. ``repeated`` counts rows whose source offset and item an earlier row
    of the object has too. ``content`` is the digest of the rows. ``divisor`` is the largest number modulo which all
    users of the object are in its partition, 0 if every number is. ``removed_by`` is the key of the change that removed
    the object while it was looked at.
    """

    sha256: str
    size: int
    rows: int | None = None
    sources: Sources | None = None
    repeated: int = 0
    content: str | None = None
    divisor: int | None = None
    removed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings, and what the verifier looked at. ``objects`` and ``rows`` count what readers see."""

    findings: tuple[Finding, ...]
    chains: int
    entries: int
    objects: int
    rows: int
    changes: int = 0
    erased: int = 0

    @property
    def consistent(self) -> bool:
        """Say whether no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)
