"""A guard on what explaining costs: work that is counted, the same on every machine, and ratios within one run.

Bounds are a fifth above what was counted, and half of the ratio that was measured, when they were last set.
"""

from __future__ import annotations

import cProfile
import pstats
import warnings
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest

from models.attribution.treeshap import TreeShap
from models.bundle import Bundle
from models.reranker.runtime import Reranker
from stream.settings import BUNDLED_MODEL

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # shap's, about matplotlib
    from bench.pipeline import Ours, measure, slates_of, watch_rows
    from bench.plain import PlainAssembly

pytestmark = pytest.mark.filterwarnings("ignore:LightGBM binary classifier with TreeExplainer")

ITEMS = 20
BATCH = 64
SLATES = 4 * BATCH


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(BUNDLED_MODEL)


@pytest.fixture(scope="module")
def slates(bundle: Bundle) -> list[Any]:
    return slates_of(bundle, ITEMS, SLATES)


@pytest.fixture(scope="module")
def ours(bundle: Bundle, slates: list[Any]) -> Iterator[Ours]:
    made = Ours(bundle)
    made(made.messages(slates[:BATCH]))  # compiled, and every language loaded
    return made


def batches(ours: Ours, slates: list[Any]) -> Iterator[list[Any]]:
    messages = ours.messages(slates)
    return (messages[start : start + BATCH] for start in range(0, len(messages), BATCH))


def test_a_slate_asks_for_few_rows_of_the_models(ours: Ours, slates: list[Any]) -> None:
    counts = watch_rows(ours.explainer._models.reranker)
    ours.watch()
    for batch in batches(ours, slates):
        ours(batch)
    rows = {stage: work.rows / SLATES for stage, work in ours.works.items() if work.rows}
    assert set(rows) == {"score", "verify"}
    # Each session's 20 rows once, and once more the newest row for the ten watched events to which it listened.
    assert rows["score"] < 36
    assert rows["verify"] < 66
    met, sums = (count / SLATES for count in counts)
    # Each item meets the trees once, and is scored again once for each event that holds.
    assert met <= ITEMS
    assert sums < 136


def test_a_batch_takes_few_calls_in_python(bundle: Bundle, slates: list[Any]) -> None:
    ours = Ours(bundle)
    ours(ours.messages(slates[:BATCH]))
    profile = cProfile.Profile()
    for batch in batches(ours, slates):
        profile.runcall(ours, batch)
    calls = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    assert calls / (SLATES * ITEMS) < 16


def test_checking_every_claim_costs_a_fraction_of_what_the_plain_assembly_costs(
    bundle: Bundle, slates: list[Any]
) -> None:
    plain, evidence = PlainAssembly(bundle), Ours(bundle)
    messages = evidence.messages(slates)
    ratios = []
    for turn in range(-1, 3):
        whole = measure(plain.per_impression, slates, ITEMS, turn, 2)
        checked = measure(evidence, messages, ITEMS, turn, BATCH)
        if turn >= 0:
            ratios.append(whole / checked)
    assert np.median(ratios) > 11


def test_contributions_cost_a_fraction_of_lightgbms_own(bundle: Bundle) -> None:
    booster = Reranker.load(bundle).booster
    shap = TreeShap(booster)
    shap.warm_up()
    random = np.random.default_rng(0)
    rows = random.normal(size=(256, len(bundle.features)))
    fresh = count()

    def job(batch: Any) -> None:
        shap.contributions(rows + next(fresh) * 1e-3)

    def peer(batch: Any) -> None:
        booster.predict(rows[:16], pred_contrib=True, num_threads=1)

    ratios = []
    for turn in range(-1, 5):
        theirs = measure(peer, rows, 1, turn, 16)
        own = measure(job, rows, 1, turn, 256)
        if turn >= 0:
            ratios.append(theirs / own)
    assert np.median(ratios) > 50
