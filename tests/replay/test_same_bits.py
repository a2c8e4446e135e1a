"""What is said of a slate does not depend on the slates beside it: replayed alone, it gives the same bits."""

from __future__ import annotations

import pytest

from models.bundle import Bundle
from models.data.simulator import simulate
from models.data.slates import impressions
from stream.explain.pipeline import Explainer
from stream.settings import BUNDLED_MODEL

pytestmark = pytest.mark.slow


def test_an_explanation_is_the_same_alone_and_in_a_batch() -> None:
    bundle = Bundle.load(BUNDLED_MODEL)
    slates = list(impressions(bundle, simulate(64, 11)))
    for number, slate in enumerate(slates):
        if number % 2:
            slate["items"] = slate["items"][: number % 5]
    explainer = Explainer(bundle)
    together = explainer.explain(slates)
    for slate, beside in zip(slates, together, strict=True):
        [alone] = explainer.explain([slate])
        # As text, since a missing feature is NaN, and NaN does not equal itself.
        assert repr(alone["items"]) == repr(beside["items"])
