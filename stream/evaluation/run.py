"""Run an evaluation: explain the cases under every policy, measure the ground truth, and count."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models.bundle import Bundle
from stream.evaluation.cases import Case
from stream.evaluation.figures import BASELINES, PUBLISHED, SLICES, Tally
from stream.evaluation.ground_truth import GroundTruth
from stream.explain.kinds import POLICIES
from stream.explain.pipeline import Explainer

_BATCH: Final = 64


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated, and the tally of each policy."""

    model_version: str
    source: str
    margin: float
    ageing: float
    slates: int
    items: int
    tallies: dict[str, Tally]

    def record(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "model_version": self.model_version,
            "data": self.source,
            "citation_margin": self.margin,
            "citation_ageing": self.ageing,
            "slates": self.slates,
            "impressions": self.items,
            "slices": list(SLICES),
            "policies": {policy: tally.record("shown") for policy, tally in self.tallies.items()},
            "baselines": {
                policy: {who: tally.record(who) for who in BASELINES} for policy, tally in self.tallies.items()
            },
            "reference": dict(PUBLISHED),
            "trade_off": self.tallies["evidence"].trade_off() if "evidence" in self.tallies else [],
        }


def evaluate(
    bundle: Bundle,
    cases: Iterable[Case],
    source: str,
    *,
    policies: Iterable[str] = POLICIES,
    report: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Evaluate the explanations that each policy gives to the cases.

    source names the data; ``report`` is called after each batch with the number of slates done.
    """
    truth = GroundTruth(bundle)
    explainers = {policy: Explainer(bundle, policy) for policy in policies}
    tallies = {policy: Tally() for policy in explainers}
    random = {policy: np.random.default_rng(0) for policy in explainers}
    slates = items = 0
    remaining = iter(cases)
    while batch := list(itertools.islice(remaining, _BATCH)):
        impressions = [case.impression for case in batch]
        effects = truth.effects(impressions)
        for policy, explainer in explainers.items():
            for case, explanation, effect in zip(batch, explainer.explain(impressions), effects, strict=True):
                tallies[policy].add(case, explanation, effect, truth, random[policy])
        slates += len(batch)
        items += sum(len(each["items"]) for each in impressions)
        report(slates)
    margin, ageing = bundle.manifest.citation_margin, bundle.manifest.citation_ageing
    return Evaluation(bundle.model_version, source, margin, ageing, slates, items, tallies)
