"""Calibrate a bundle's citation margin: the largest margin that leaves enough impressions with a confirmed citation.

A larger margin makes each citation safer and leaves more impressions without a citation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from models.bundle import Bundle
from schemas.events import Impression
from stream.explain.ablate import ablate
from stream.explain.decode import decode_records
from stream.explain.models import Models
from stream.explain.score import Scores, score
from stream.explain.slates import Slates

_MARGINS: Final = (0.0, *(float(f"{digits}e{power}") for power in (-4, -3, -2, -1) for digits in range(10, 100)))
_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibrated margin, in logits, and what it was calibrated on.

    impressions is the number of impressions whose scores the bundle reproduces, and mismatched that of the others, for
    which no event can be cited. confirmed_share is the share of the reproduced impressions that have a confirmed
    citation at this margin.
    """

    margin: float
    confirmed_share: float
    impressions: int
    mismatched: int


def calibrate(bundle: Bundle, slates: Sequence[Impression], share: float) -> Calibration:
    """Find the largest margin of two digits at which at least ``share`` of the impressions have a confirmed citation.

    The slates should be held-out slates that this bundle ranked; items whose scores it does not reproduce are left out.
    The margin is 0 where no margin reaches the share.
    """
    models = Models.open(replace(bundle, manifest=replace(bundle.manifest, citation_margin=0.0)))
    batches = []
    for start in range(0, len(slates), _BATCH):
        columns = decode_records(slates[start : start + _BATCH], bundle)
        batches.append((columns, score(columns, models)))
    low, high = 0, len(_MARGINS)  # a bisection: the share never grows with the margin
    confirmed = _confirmed_share(models, batches, 0.0)
    while high - low > 1:
        middle = (low + high) // 2
        found = _confirmed_share(models, batches, _MARGINS[middle])
        if found >= share:
            low, confirmed = middle, found
        else:
            high = middle
    reproduced = sum(int(scores.matches.sum()) for _, scores in batches)
    return Calibration(
        _MARGINS[low], confirmed, reproduced, sum(len(columns.item) for columns, _ in batches) - reproduced
    )


def _confirmed_share(models: Models, batches: Sequence[tuple[Slates, Scores]], margin: float) -> float:
    manifest = replace(models.bundle.manifest, citation_margin=margin)
    with_margin = replace(models, bundle=replace(models.bundle, manifest=manifest))
    confirmed = [
        ablate("evidence", columns, scores, with_margin).holds[scores.matches, 0] for columns, scores in batches
    ]
    return sum(float(each.sum()) for each in confirmed) / max(1, sum(len(each) for each in confirmed))
