"""Feedback to learn from: slates of simulated users, explained at random among what holds, and what they answered."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

import numpy as np

from models.bundle import Bundle
from models.data.feedback import probability_of_helping
from models.data.simulator import simulate
from models.data.slates import impressions
from models.selector.features import TYPES
from models.selector.train import Feedback
from stream.explain.ablate import ablate
from stream.explain.attribute import attribute
from stream.explain.decode import decode_records
from stream.explain.findings import Findings
from stream.explain.kinds import KINDS
from stream.explain.models import Models
from stream.explain.policy import CLAIMS, context
from stream.explain.score import score

_BATCH: Final = 64


def simulated(bundle: Bundle, slates: int, seed: int, seen: Callable[[int], None] = lambda _: None) -> Feedback:
    """Ask simulated users, one slate each, about every item of which several types hold; ``seen`` counts slates.

    Each is shown one of the types that hold, all equally likely. The same arguments give the same answers.
    """
    models = Models.open(bundle)
    rng = np.random.default_rng([seed, 31])
    parts: list[Feedback] = []
    made = impressions(bundle, simulate(slates, seed), seed=seed)
    first = 0
    while batch := list(islice(made, _BATCH)):
        columns = decode_records(batch, bundle)
        scores = score(columns, models)
        citations = ablate(CLAIMS, columns, scores, models)
        findings = Findings(bundle, columns, scores, attribute(columns, scores, models), citations)
        holds = np.stack([KINDS[name].rules[CLAIMS](findings) & scores.matches for name in TYPES], axis=1)
        several = np.flatnonzero(holds.sum(axis=1) > 1)
        held, about, user = holds[several], context(findings)[several], first + columns.slate[several]
        count = held.sum(axis=1)
        nth = (rng.random(len(several)) * count).astype(np.int64)
        shown = (np.cumsum(held, axis=1) <= nth[:, None]).sum(axis=1)
        helpful = rng.random(len(several)) < probability_of_helping(about, user, shown, seed)
        parts.append(Feedback(about, held, shown, 1 / count, helpful, user))
        first += len(batch)
        seen(len(batch))
    return Feedback(*(np.concatenate(each) for each in zip(*map(_columns, parts), strict=True)))


def _columns(part: Feedback) -> tuple[np.ndarray, ...]:
    return part.context, part.holds, part.shown, part.propensity, part.helpful, part.user
