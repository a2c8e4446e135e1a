"""The figures of an audit: what share of what was shown is true, beside what chance and habit would have had.

Everything is counted on what the pipeline *shows*: the citations of ``watch_history`` and the claims of
``category_match``. The baselines cite, for the very same items and as many events, at random, or the newest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from stream.evaluation.cases import DECISIVE, Case, Cause
from stream.evaluation.judge import Judge, Verdict

LONG: Final = 10
"""Events from which on a session counts as long: in shorter ones a citation is easily right by chance."""

SLICES: Final = ("all", "long")

KEYS: Final[Mapping[str, str]] = {
    "true_deletion": "cited events true under deletion",
    "true_all_removals": "… masked, deleted and blanked",
    "true_cause_first": "true cause first, where decisive",
    "true_cause_first_known": "… wherever it is known",
    "likeliest_cause_first": "… by the world's own odds there",
    "ig_top5": "cited events in IG top-5",
    "ig_centred_top5": "… in slate-centred IG top-5",
    "drop_of_best": "first one's drop, of the best",
    "confirmed_share": "impressions with a confirmed one",
    "confirmed_slates": "… slates with at least one",
    "category_top3_up": "category claims, pushing up",
}
"""Every figure, in the order in which it is shown."""

REFERENCE: Final[Mapping[str, float]] = {"ig_top5": 0.783, "confirmed_share": 0.423, "category_top3_up": 0.912}
"""What the service that whyrec is compared with has published of itself."""

BASELINES: Final = ("random", "last")


@dataclass
class Count:
    """A share, by what it was counted from; sums of falls where it is a share of falls."""

    numerator: float = 0.0
    denominator: float = 0.0

    @property
    def value(self) -> float | None:
        """The share; None where nothing was counted."""
        return self.numerator / self.denominator if self.denominator else None

    def record(self) -> dict[str, float | None]:
        """Give the share and its counts."""
        return {"value": self.value, "numerator": self.numerator, "denominator": self.denominator}


@dataclass(frozen=True, slots=True)
class Strength:
    """The first citation of one item: its smallest fall, and what came of it."""

    least: float
    ig_top: bool
    ig_centred_top: bool
    long: bool


@dataclass
class Tally:
    """Counts of one policy: counts[who][slice][key], where who is the policy itself ("shown") or a baseline."""

    counts: dict[str, dict[str, dict[str, Count]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(Count)))
    )
    strengths: list[Strength] = field(default_factory=list)
    items: int = 0

    def add(self, case: Case, explanation: Mapping[str, Any], verdict: Verdict, judge: Judge, random: Any) -> None:
        """Count what one explanation shows."""
        events = len(case.impression["session"])
        slices = SLICES if events >= LONG else SLICES[:1]
        confirmed = 0
        for row, item in enumerate(explanation["items"]):
            self.items += 1
            cited = [each["event"] for each in item["evidence"]["history"]] if item["type"] == "watch_history" else []
            if item["type"] == "category_match":
                up = judge.category_pushes_up(case.impression, row)
                self._count("shown", slices, "category_top3_up", up)
            choices = {
                "shown": cited,
                "random": random.choice(events, len(cited), replace=False).tolist(),
                "last": list(range(events - 1, events - 1 - len(cited), -1)),
            }
            for who, named in choices.items():
                true = self._citations(who, slices, row, named, verdict)
                self._count(who, slices, "confirmed_share", true)
                confirmed += true and who == "shown"
                if named and case.cause is not None and case.cause.item_id == item["item_id"]:
                    self._cause(who, slices, case.cause, named[0])
            if cited:
                least = float(verdict.least[:, row, cited[0]].min())
                top, centred = verdict.ig_top[row, cited[0]], verdict.ig_centred_top[row, cited[0]]
                self.strengths.append(Strength(least, bool(top), bool(centred), len(slices) > 1))
        self._count("shown", slices, "confirmed_slates", confirmed > 0)

    def _citations(self, who: str, slices: Sequence[str], row: int, named: Sequence[int], verdict: Verdict) -> bool:
        if not named:
            return False
        true = verdict.least[:, row, named] > 0
        for place, event in enumerate(named):
            self._count(who, slices, "true_deletion", float(true[0, place]))
            self._count(who, slices, "true_all_removals", bool(true[:, place].all()))
            self._count(who, slices, "ig_top5", verdict.ig_top[row, event])
            self._count(who, slices, "ig_centred_top5", verdict.ig_centred_top[row, event])
        best = float(verdict.relative[row, verdict.watched].max(initial=0.0))
        self._count(who, slices, "drop_of_best", float(verdict.relative[row, named[0]]), best)
        return bool(true[0].all())

    def _cause(self, who: str, slices: Sequence[str], cause: Cause, first: int) -> None:
        self._count(who, slices, "true_cause_first_known", first == cause.event)
        self._count(who, slices, "likeliest_cause_first", cause.likeliest == cause.event)
        if cause.odds > DECISIVE:
            self._count(who, slices, "true_cause_first", first == cause.event)

    def _count(self, who: str, slices: Sequence[str], key: str, amount: float, of: float = 1.0) -> None:
        for name in slices:
            count = self.counts[who][name][key]
            count.numerator += float(amount)
            count.denominator += of

    def record(self, who: str) -> dict[str, dict[str, dict[str, float | None]]]:
        """Give all figures, by slice and key."""
        return {name: {key: self.counts[who][name][key].record() for key in KEYS} for name in SLICES}

    def trade_off(self) -> list[dict[str, float]]:
        """Tell what a larger margin would show, and how much of it is in IG top-5; by the first citation of each."""
        least = np.array([each.least for each in self.strengths])
        top, centred, long = (
            np.array([getattr(each, name) for each in self.strengths], dtype=np.bool_)
            for name in ("ig_top", "ig_centred_top", "long")
        )
        points = []
        for margin in MARGINS:
            kept = least >= margin
            if kept.any():
                points.append(
                    {
                        "margin": margin,
                        "confirmed_share": float(kept.sum() / self.items),
                        "ig_top5": float(top[kept].mean()),
                        "ig_top5_long": float(top[kept & long].mean()) if (kept & long).any() else float("nan"),
                        "ig_centred_top5": float(centred[kept].mean()),
                    }
                )
        return points


MARGINS: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0)
"""Margins for which the trade-off is told."""
