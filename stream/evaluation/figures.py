"""The figures of an evaluation: the share of the shown claims that is true, next to two baselines.

Every figure is counted on the claims that the pipeline *shows*: the citations of ``watch_history`` and the claims of
``category_match``. The baselines cite the same number of events for the same items: at random, or the newest events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from stream.evaluation.cases import DECISIVE, Case, Cause
from stream.evaluation.ground_truth import EventEffects, GroundTruth

LONG: Final = 10
"""Sessions of at least this many events are long. In shorter sessions a citation is often right by chance."""

SLICES: Final = ("all", "long")

KEYS: Final[Mapping[str, str]] = {
    "true_deletion": "cited events true under deletion",
    "true_all_removals": "… masked, deleted and blanked",
    "true_cause_first": "true cause first, where decisive",
    "true_cause_first_known": "… wherever it is known",
    "likeliest_cause_first": "… by the world's own odds there",
    "ig_top5": "cited events in IG top-5",
    "ig_centred_top5": "… in slate-centred IG top-5",
    "drop_of_best": "first citation's drop, of the best",
    "confirmed_share": "impressions, citation confirmed",
    "confirmed_slates": "… slates with at least one",
    "category_top3_up": "category claims, pushing up",
}
"""Every figure, in the order in which it is shown."""

PUBLISHED: Final[Mapping[str, float]] = {"ig_top5": 0.783, "confirmed_share": 0.423, "category_top3_up": 0.912}
"""Figures that the service whyrec is compared with has published about itself."""

BASELINES: Final = ("random", "last")


@dataclass
class Ratio:
    """A share, with its numerator and denominator: counts, or sums of score drops."""

    numerator: float = 0.0
    denominator: float = 0.0

    @property
    def value(self) -> float | None:
        """The share; None where nothing was counted."""
        return self.numerator / self.denominator if self.denominator else None

    def record(self) -> dict[str, float | None]:
        """Return the share, the numerator and the denominator."""
        return {"value": self.value, "numerator": self.numerator, "denominator": self.denominator}


@dataclass(frozen=True, slots=True)
class FirstCitation:
    """The first citation of one item.

    least_drop is its smallest score drop over the ablations; long marks a citation from a long session.
    """

    least_drop: float
    ig_top: bool
    ig_centred_top: bool
    long: bool


@dataclass
class Tally:
    """Counts of one policy: ``counts[who][slice][key]``, where who is the policy itself ("shown") or a baseline."""

    counts: dict[str, dict[str, dict[str, Ratio]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(Ratio)))
    )
    first_citations: list[FirstCitation] = field(default_factory=list)
    items: int = 0

    def add(
        self,
        case: Case,
        explanation: Mapping[str, Any],
        effects: EventEffects,
        truth: GroundTruth,
        random: np.random.Generator,
    ) -> None:
        """Count the claims of one explanation."""
        events = len(case.impression["session"])
        slices = SLICES if events >= LONG else SLICES[:1]
        confirmed = 0
        for row, item in enumerate(explanation["items"]):
            self.items += 1
            cited = [each["event"] for each in item["evidence"]["history"]] if item["type"] == "watch_history" else []
            if item["type"] == "category_match":
                raises = truth.category_raises_score(case.impression, row)
                self._count("shown", slices, "category_top3_up", raises)
            choices = {
                "shown": cited,
                "random": random.choice(events, len(cited), replace=False).tolist(),
                "last": list(range(events - 1, events - 1 - len(cited), -1)),
            }
            for who, events_cited in choices.items():
                true = self._citations(who, slices, row, events_cited, effects)
                self._count(who, slices, "confirmed_share", true)
                confirmed += true and who == "shown"
                if events_cited and case.cause is not None and case.cause.item_id == item["item_id"]:
                    self._cause(who, slices, case.cause, events_cited[0])
            if cited:
                least_drop = float(effects.least_drop[:, row, cited[0]].min())
                top, centred = effects.ig_top[row, cited[0]], effects.ig_centred_top[row, cited[0]]
                self.first_citations.append(FirstCitation(least_drop, bool(top), bool(centred), len(slices) > 1))
        self._count("shown", slices, "confirmed_slates", confirmed > 0)

    def _citations(
        self, who: str, slices: Sequence[str], row: int, cited: Sequence[int], effects: EventEffects
    ) -> bool:
        if not cited:
            return False
        true = effects.least_drop[:, row, cited] > 0
        for place, event in enumerate(cited):
            self._count(who, slices, "true_deletion", float(true[0, place]))
            self._count(who, slices, "true_all_removals", bool(true[:, place].all()))
            self._count(who, slices, "ig_top5", effects.ig_top[row, event])
            self._count(who, slices, "ig_centred_top5", effects.ig_centred_top[row, event])
        best = float(effects.centred_drop[row, effects.watched].max(initial=0.0))
        self._count(who, slices, "drop_of_best", float(effects.centred_drop[row, cited[0]]), best)
        return bool(true[0].all())

    def _cause(self, who: str, slices: Sequence[str], cause: Cause, first: int) -> None:
        self._count(who, slices, "true_cause_first_known", first == cause.event)
        self._count(who, slices, "likeliest_cause_first", cause.likeliest == cause.event)
        if cause.odds > DECISIVE:
            self._count(who, slices, "true_cause_first", first == cause.event)

    def _count(self, who: str, slices: Sequence[str], key: str, amount: float, of: float = 1.0) -> None:
        for name in slices:
            ratio = self.counts[who][name][key]
            ratio.numerator += float(amount)
            ratio.denominator += of

    def record(self, who: str) -> dict[str, dict[str, dict[str, float | None]]]:
        """Return every figure, by slice and key."""
        return {name: {key: self.counts[who][name][key].record() for key in KEYS} for name in SLICES}

    def trade_off(self) -> list[dict[str, float]]:
        """Return the share of impressions cited, and the share of citations in the IG top 5, for each margin.

        Both are counted on the first citation of each impression.
        """
        least_drop = np.array([each.least_drop for each in self.first_citations])
        top, centred, long = (
            np.array([getattr(each, name) for each in self.first_citations], dtype=np.bool_)
            for name in ("ig_top", "ig_centred_top", "long")
        )
        points = []
        for margin in MARGINS:
            kept = least_drop >= margin
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
"""Margins of the trade-off."""
