"""The slow truth itself, against first principles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.attribution import reference
from models.session.transformer import SessionTransformer
from tests.bundles import TINY, random_weights

ITEMS = np.array([[0, 0, 5, 9, 7, 3], [2, 8, 4, 6, 1, 5], [0, 0, 0, 0, 0, 4]])
RECEIVED = np.where(ITEMS > 0, 1 + ITEMS % 5, 0)
CANDIDATES = np.array([[1, 2, 3], [11, 12, 13], [5, 6, 7]])


@pytest.fixture(scope="module")
def model() -> SessionTransformer:
    made = SessionTransformer(TINY).eval()
    made.load_state_dict({name: torch.from_numpy(value) for name, value in random_weights(TINY).items()})
    return made


def scores(model: SessionTransformer, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.einsum("b...d,bnd->bn...", vectors, model.item_vectors.detach().numpy()[CANDIDATES])


@pytest.mark.slow
def test_integrated_gradients_add_up_to_the_score_difference(model: SessionTransformer) -> None:
    coarse, fine = (
        reference.integrated_gradients(model, ITEMS, RECEIVED, CANDIDATES, steps=steps) for steps in (8, 256)
    )
    assert np.abs(fine.residual).max() < 2e-2
    assert np.abs(fine.residual).max() < np.abs(coarse.residual).max()
    assert not (fine.values * (ITEMS == 0)[:, None]).any()


def test_deletion_is_the_model_on_the_shorter_session(model: SessionTransformer) -> None:
    deleted = reference.deleted(model, ITEMS, RECEIVED)
    shorter = reference.session_vectors(model, np.array([[2, 8, 6, 1, 5]]), np.array([[3, 4, 2, 2, 1]]))
    np.testing.assert_allclose(deleted[1, 2], shorter[0], rtol=1e-4, atol=1e-5)


def test_the_only_event_takes_everything_with_it(model: SessionTransformer) -> None:
    assert not reference.deleted(model, ITEMS, RECEIVED)[2, -1].any()
    assert not reference.masked(model, ITEMS, RECEIVED)[2, -1].any()


@pytest.mark.parametrize("method", [reference.deleted, reference.masked, reference.zeroed])
def test_taking_padding_away_takes_nothing_away(model: SessionTransformer, method: object) -> None:
    whole = reference.session_vectors(model, ITEMS, RECEIVED)
    without = method(model, ITEMS, RECEIVED)  # type: ignore[operator]
    np.testing.assert_array_equal(without[0, :2], np.tile(whole[0], (2, 1)))
    assert (np.abs(without - whole[:, None]).max(axis=2)[ITEMS > 0] > 1e-3).all()


def test_the_three_meanings_differ_where_positions_move(model: SessionTransformer) -> None:
    deleted, masked, zeroed = (
        scores(model, method(model, ITEMS, RECEIVED))
        for method in (reference.deleted, reference.masked, reference.zeroed)
    )
    assert np.abs(deleted - masked)[1, :, :-1].max() > 1e-3
    assert np.abs(zeroed - masked)[1].max() > 1e-3
    np.testing.assert_allclose(deleted[1, :, -1], masked[1, :, -1], rtol=1e-4, atol=1e-5)


def test_an_empty_batch_has_empty_answers(model: SessionTransformer) -> None:
    nothing = np.zeros((2, 0), dtype=np.int64)
    assert reference.deleted(model, nothing, nothing).shape == (2, 0, TINY.d)
    assert not reference.session_vectors(model, nothing, nothing).any()
