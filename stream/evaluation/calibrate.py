"""The margin of a bundle: as large as it can be while enough impressions keep a citation that holds.

A larger margin makes every citation surer, and leaves more impressions without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from models.bundle import Bundle
from schemas.events import Impression
from stream.explain.columns import Slates, to_columns
from stream.explain.evidence import verify
from stream.explain.models import Models
from stream.explain.scores import Scores, score

_MARGINS: Final = (0.0, *(float(f"{digits}e{power}") for power in (-4, -3, -2, -1) for digits in range(10, 100)))
_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Calibration:
    """A margin in logits, and the share of how many impressions that it leaves with a citation that holds."""

    margin: float
    confirmed_share: float
    impressions: int


def calibrate(bundle: Bundle, slates: Sequence[Impression], share: float) -> Calibration:
    """Find the largest margin of two digits that leaves a share of the impressions a citation; 0 where none does.

    slates are held-out ones of this bundle.
    """
    models = Models.open(replace(bundle, manifest=replace(bundle.manifest, citation_margin=0.0)))
    batches = []
    for start in range(0, len(slates), _BATCH):
        columns = to_columns(slates[start : start + _BATCH], bundle)
        batches.append((columns, score(columns, models)))
    low, high = 0, len(_MARGINS)  # the share falls as the margin rises
    confirmed = _share(models, batches, 0.0)
    while high - low > 1:
        middle = (low + high) // 2
        found = _share(models, batches, _MARGINS[middle])
        if found >= share:
            low, confirmed = middle, found
        else:
            high = middle
    return Calibration(_MARGINS[low], confirmed, sum(len(columns.item) for columns, _ in batches))


def _share(models: Models, batches: Sequence[tuple[Slates, Scores]], margin: float) -> float:
    manifest = replace(models.bundle.manifest, citation_margin=margin)
    asked = replace(models, bundle=replace(models.bundle, manifest=manifest))
    held = [verify("evidence", columns, scores, asked).holds[:, 0] for columns, scores in batches]
    return sum(float(each.sum()) for each in held) / max(1, sum(len(each) for each in held))
