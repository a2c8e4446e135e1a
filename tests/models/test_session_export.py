"""The exported graph agrees with the PyTorch model for any padding, including the output ``without``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attribution import reference
from models.bundle import Bundle
from models.errors import BundleError
from models.session.config import SessionConfig
from models.session.export import export_onnx
from models.session.restore import restore
from models.session.runtime import SessionModel, SessionOutput
from models.session.transformer import SessionTransformer
from tests.bundles import ITEMS, TINY, random_weights, tiny_bundle

pytestmark = pytest.mark.slow

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

batches = st.lists(
    st.lists(st.tuples(st.integers(1, ITEMS), st.integers(1, 5)), min_size=0, max_size=9), min_size=1, max_size=5
)


class Pair:
    """One set of weights, in PyTorch and as a bundle."""

    def __init__(
        self,
        directory: Path,
        config: SessionConfig = TINY,
        weights: dict[str, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        weights = weights or random_weights(config)
        self.torch = SessionTransformer(config).eval()
        self.torch.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        self.bundle = Bundle.load(
            tiny_bundle(
                directory,
                config=config,
                session_onnx=export_onnx(config, weights),
                item_vectors=weights["item.weight"],
            )
        )
        self.onnx = SessionModel(self.bundle)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("bundle"))


def columns(
    sessions: list[list[tuple[int, int]]], extra: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Item and engagement indices int64 [B, L], left-padded with `extra` columns more than needed."""
    length = max((len(session) for session in sessions), default=0) + extra
    out = np.zeros((2, len(sessions), length), dtype=np.int64)
    for row, session in enumerate(sessions):
        if session:
            out[:, row, length - len(session) :] = np.array(session).T
    return out[0], out[1]


def agrees(
    got: SessionOutput, model: SessionTransformer, items: npt.NDArray[np.int64], engagements: npt.NDArray[np.int64]
) -> None:
    np.testing.assert_allclose(got.vector, reference.session_vectors(model, items, engagements), **CLOSE)
    np.testing.assert_allclose(got.without, reference.masked(model, items, engagements), **CLOSE)


@SETTINGS
@given(sessions=batches, extra=st.integers(0, 3))
def test_vectors_and_masked_vectors_equal_those_of_torch(
    pair: Pair, sessions: list[list[tuple[int, int]]], extra: int
) -> None:
    items, engagements = columns(sessions, extra)
    agrees(pair.onnx.run(items, engagements), pair.torch, items, engagements)


@SETTINGS
@given(sessions=batches, extra=st.integers(1, 6))
def test_padding_has_no_effect(pair: Pair, sessions: list[list[tuple[int, int]]], extra: int) -> None:
    plain, padded = (pair.onnx.run(*columns(sessions, more)) for more in (0, extra))
    np.testing.assert_allclose(padded.vector, plain.vector, **CLOSE)
    np.testing.assert_allclose(padded.attention[..., extra:], plain.attention, **CLOSE)
    np.testing.assert_allclose(padded.without[:, extra:], plain.without, **CLOSE)
    assert not padded.attention[..., :extra].any()
    np.testing.assert_array_equal(padded.without[:, :extra], np.repeat(padded.vector[:, None], extra, axis=1))


@SETTINGS
@given(sessions=batches)
def test_a_session_has_the_same_output_alone_and_in_a_batch(pair: Pair, sessions: list[list[tuple[int, int]]]) -> None:
    together = pair.onnx.run(*columns(sessions))
    for row, session in enumerate(sessions):
        alone = pair.onnx.run(*columns([session]))
        np.testing.assert_allclose(together.vector[row], alone.vector[0], **CLOSE)
        if session:
            np.testing.assert_allclose(together.without[row, -len(session) :], alone.without[0], **CLOSE)


def test_full_length_sessions_agree_over_several_runs(pair: Pair) -> None:
    random = np.random.default_rng(3)
    items, engagements = random.integers(1, ITEMS + 1, (5, 50)), random.integers(1, 6, (5, 50))
    items[1, :20] = engagements[1, :20] = 0
    agrees(pair.onnx.run(items, engagements), pair.torch, items, engagements)


def test_masking_the_newest_event_equals_deletion(pair: Pair) -> None:
    items, engagements = columns([[(4, 1), (9, 2), (7, 5)]])
    got = pair.onnx.run(items, engagements)
    shorter = pair.onnx.run(items[:, :-1], engagements[:, :-1])
    np.testing.assert_allclose(got.without[:, -1], shorter.vector, **CLOSE)
    np.testing.assert_allclose(got.without, reference.masked(pair.torch, items, engagements), **CLOSE)
    np.testing.assert_allclose(got.without[:, -1], reference.deleted(pair.torch, items, engagements)[:, -1], **CLOSE)


def test_without_its_only_event_a_session_is_empty(pair: Pair) -> None:
    got = pair.onnx.run(*columns([[(5, 1)]]))
    assert got.vector.any()
    assert not got.without.any()


@pytest.mark.parametrize("length", [0, 1, 4])
def test_an_empty_session_has_the_zero_vector_and_no_attention(pair: Pair, length: int) -> None:
    nothing = np.zeros((2, length), dtype=np.int64)
    got = pair.onnx.run(nothing, nothing)
    assert got.vector.shape == (2, TINY.d)
    assert got.attention.shape == (2, TINY.layers, TINY.heads, length)
    assert got.without.shape == (2, length, TINY.d)
    assert not any(array.any() for array in (got.vector, got.attention, got.without))


def test_attention_is_that_of_the_newest_event(pair: Pair) -> None:
    items, engagements = columns([[(4, 1), (9, 2), (7, 5), (8, 3)], [(1, 1), (2, 2)]])
    attention = pair.onnx.run(items, engagements).attention
    np.testing.assert_allclose(attention.sum(axis=3), 1.0, rtol=1e-5)
    assert not attention[1, ..., :2].any()
    # The first layer's, by hand.
    layer = pair.torch.layers[0]
    with torch.no_grad():
        x = layer.attention_norm(pair.torch.embed(*map(torch.from_numpy, (items[:1], engagements[:1]))))
        q, k = layer.split(layer.query(x)), layer.split(layer.key(x))
        scores = q[:, :, -1:] @ k.transpose(-1, -2) / (TINY.d // TINY.heads) ** 0.5
    np.testing.assert_allclose(attention[0, 0], torch.softmax(scores, -1)[0, :, 0], **CLOSE)


def test_without_is_exact_if_one_event_has_nearly_all_attention(tmp_path: Path) -> None:
    weights = random_weights(TINY, seed=4)
    for depth in range(TINY.layers):
        weights[f"layers.{depth}.query.weight"] *= 12
    pair = Pair(tmp_path, weights=weights)
    random = np.random.default_rng(5)
    items, engagements = random.integers(1, ITEMS + 1, (12, 10)), random.integers(1, 6, (12, 10))
    got = pair.onnx.run(items, engagements)
    assert got.attention[:, 0].max() > 1 - 1e-6
    np.testing.assert_allclose(got.without, reference.masked(pair.torch, items, engagements), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layers", [3, 4])
def test_deeper_models_are_exported(tmp_path: Path, layers: int) -> None:
    config = SessionConfig(items=ITEMS, d=16, layers=layers, heads=4, d_ff=24)
    pair = Pair(tmp_path, config)
    items, engagements = columns([[(4, 1), (9, 2), (7, 5), (8, 3), (1, 1)], [(1, 1), (2, 2)], [(3, 4)]])
    agrees(pair.onnx.run(items, engagements), pair.torch, items, engagements)


def test_a_model_of_one_layer_is_rejected() -> None:
    config = SessionConfig(items=ITEMS, d=16, layers=1, heads=4, d_ff=24)
    with pytest.raises(BundleError, match="at least 2 layers, got 1"):
        export_onnx(config, random_weights(config))


def test_without_is_computed_on_demand_only(pair: Pair) -> None:
    items, engagements = columns([[(4, 1), (9, 2)], [(7, 5)]])
    whole, less = (pair.onnx.run(items, engagements, without=each) for each in (True, False))
    assert less.without is None
    np.testing.assert_array_equal(less.vector, whole.vector)
    np.testing.assert_array_equal(less.attention, whole.attention)


def test_the_exported_graph_is_restored_to_torch(pair: Pair) -> None:
    items, engagements = columns([[(4, 1), (9, 2), (7, 5), (8, 3)], [(1, 1), (2, 2)]])
    restored = restore(pair.bundle)
    for method in (reference.session_vectors, reference.deleted, reference.zeroed):
        np.testing.assert_allclose(
            method(restored, items, engagements), method(pair.torch, items, engagements), rtol=1e-4, atol=1e-5
        )


def test_export_is_deterministic() -> None:
    weights = random_weights(TINY)
    assert export_onnx(TINY, weights) == export_onnx(TINY, weights)
