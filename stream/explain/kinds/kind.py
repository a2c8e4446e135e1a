"""What each kind of explanation is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from schemas.events import ExplanationType, Status
from stream.explain.columns import Bools, Ints
from stream.explain.findings import Findings
from stream.explain.wording import Wording

Rule = Callable[[Findings], Bools]
"""Which items a claim may be made about: bool [T]."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One explanation type.

    holds: the items about which its claim is true, as far as was measured; rules: per policy, the items about which it
    is made; status: what the claim is called where it holds (elsewhere it is called generic: nothing is vouched for);
    sentences: the words for some items, by their rows int64 [n], in a wording for each.
    """

    name: ExplanationType
    status: Status
    holds: Rule
    rules: Mapping[str, Rule]
    sentences: Callable[[Findings, Ints, Sequence[Wording]], list[str]]
