"""The estimate of the session vector without an event, by which adapted graphs propose what is then measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.adapters.adapted import Adapted
from models.adapters.bert4rec import bert4rec
from models.adapters.sasrec import sasrec
from tests.adapters.originals import Bert4recOriginal, SasrecOriginal
from tests.adapters.written import written


def sasrec_of(layers: int) -> Adapted:
    return sasrec(SasrecOriginal(30, 16, 12, layers, 2, "original").randomised(1).state_dict(), heads=2)


def bert4rec_of(layers: int) -> Adapted:
    return bert4rec(Bert4recOriginal(30, 16, 13, layers, 2).randomised(1).state_dict(), heads=2)


@pytest.mark.parametrize("adapted", [sasrec_of, bert4rec_of])
def test_with_one_layer_the_estimate_is_the_masking_of_the_event(adapted: object, tmp_path: Path) -> None:
    model = written(tmp_path, adapted(1))  # type: ignore[operator]
    items = np.random.default_rng(0).integers(1, 31, (4, 9))
    kinds = np.ones_like(items)
    found = model.run(items, kinds, without=False, estimate=True)
    assert found.estimate is not None
    for column in range(8):
        mask = np.ones(items.shape, dtype=np.bool_)
        mask[:, column] = False
        expected = model.run(items, kinds, without=False, event_mask=mask).vector
        np.testing.assert_allclose(found.estimate[:, column], expected, atol=1e-5)


def test_more_layers_keep_the_order_of_the_effects_of_events(tmp_path: Path) -> None:
    model = written(tmp_path, sasrec_of(2))
    items = np.random.default_rng(1).integers(1, 31, (40, 10))
    kinds = np.ones_like(items)
    found = model.run(items, kinds, without=False, estimate=True)
    assert found.estimate is not None
    estimated, measured = [], []
    for column in range(9):
        mask = np.ones(items.shape, dtype=np.bool_)
        mask[:, column] = False
        measured.append(found.vector - model.run(items, kinds, without=False, event_mask=mask).vector)
        estimated.append(found.vector - found.estimate[:, column])
    assert np.corrcoef(np.ravel(estimated), np.ravel(measured))[0, 1] > 0.6


def test_a_run_that_wants_no_estimate_gives_the_same_bits_without(tmp_path: Path) -> None:
    model = written(tmp_path, sasrec_of(2))
    items = np.random.default_rng(2).integers(1, 31, (3, 7))
    with_it, without_it = (
        model.run(items, np.ones_like(items), without=False, estimate=wanted) for wanted in (True, False)
    )
    assert without_it.estimate is None
    np.testing.assert_array_equal(with_it.vector, without_it.vector)
