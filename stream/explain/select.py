"""Select: which explanation type each item gets, and what status its claim has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.events import STATUSES
from stream.explain.findings import Findings
from stream.explain.kinds import KINDS
from stream.explain.policy import Policy, choices
from stream.explain.slates import Ints

_GENERIC: Final = STATUSES.index("generic")
MISMATCH: Final = STATUSES.index("model_mismatch")


@dataclass(frozen=True, slots=True)
class Selection:
    """What each of T items gets: kind int64 [T], an index into EXPLANATION_TYPES; status int64 [T], into STATUSES."""

    kind: Ints
    status: Ints


def select(findings: Findings, policy: Policy) -> Selection:
    """Choose for each item the first kind, in the order of KINDS, whose claim the policy makes.

    A policy with a selector lets the selector choose among the kinds whose claims hold. An item whose scores the
    bundle's models do not reproduce gets the kind that claims nothing.
    """
    kinds, matches = list(KINDS.values()), findings.scores.matches
    # One rule may both make a kind's claim and say where the claim holds: it is evaluated once.
    rules = {kind.holds for kind in kinds} | {kind.rules[policy.claims] for kind in kinds}
    outcomes = {rule: rule(findings) for rule in rules}
    claimed = np.array([outcomes[kind.rules[policy.claims]] & matches for kind in kinds])
    claimed[-1] = True
    chosen = claimed.argmax(axis=0) if policy.selector is None else choices(policy.selector, findings, claimed)
    holds = np.array([outcomes[kind.holds] for kind in kinds])[chosen, np.arange(len(matches))]
    statuses = np.where(holds, np.array([STATUSES.index(kind.status) for kind in kinds])[chosen], _GENERIC)
    return Selection(chosen, np.where(matches, statuses, MISMATCH))
