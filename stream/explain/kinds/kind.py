"""What each kind of explanation is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.events import ExplanationType, Status
from stream.explain.columns import Bools
from stream.explain.findings import Findings
from stream.explain.wording import Wording

Rule = Callable[[Findings], Bools]
"""Which items a claim may be made about: bool [T]."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One explanation type.

    holds: the items about which its claim is true, as far as was measured; rules: per policy, the items about which it
    is made; status: what the claim is called where it holds (elsewhere it is called generic: nothing is vouched for);
    sentence: the words for one item, by its row.
    """

    name: ExplanationType
    status: Status
    holds: Rule
    rules: Mapping[str, Rule]
    sentence: Callable[[Findings, int, Wording], str]
