"""The definition of one explanation type: when it may be used, and its sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from schemas.events import ExplanationType, Status
from stream.explain.findings import Findings
from stream.explain.slates import Bools, Ints
from stream.explain.wording import Wording

Rule = Callable[[Findings], Bools]
"""A rule selects the items of which a claim may be made: bool [T] for T items."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One explanation type.

    Attributes:
        name: the type, as events carry it.
        status: the status of a claim that holds; a claim that does not hold has the status generic.
        holds: the items for which the measurements support the claim.
        rules: for each policy, the items for which the claim is made.
        sentences: the texts for the items at rows int64 [n], with one wording for each of them.

    """

    name: ExplanationType
    status: Status
    holds: Rule
    rules: Mapping[str, Rule]
    sentences: Callable[[Findings, Ints, Sequence[Wording]], list[str]]
