"""A session model of any origin is run by the contract, or refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from models.bundle import Bundle
from models.errors import BundleError, SessionInputError
from models.session.graph import IR_VERSION, OPSET, Nodes
from models.session.runtime import SessionModel, left_pad
from tests.bundles import ITEMS, TINY, tiny_bundle

D = TINY.d


def foreign_graph(
    *,
    outputs: tuple[str, ...] = ("session_vector", "attention"),
    length: str | int = "length",
    d: int = D,
    engagements: bool = False,
    item: str = "item_index",
    kind: int = TensorProto.INT64,
    poison: bool = False,
    masked: bool = True,
) -> bytes:
    """A mean of item vectors, with even attention: small, and nothing like our own export."""
    o = Nodes({})
    table = np.random.default_rng(0).standard_normal((ITEMS + 1, d)).astype(np.float32)
    index = o("Cast", item, to=TensorProto.INT64)
    valid = o("Cast", o("Cast", index, to=TensorProto.BOOL), to=TensorProto.FLOAT)
    if not masked:
        valid = o("Add", o("Mul", valid, o.real(0.0)), o.real(1.0))
    share = o("Div", valid, o("ReduceSum", valid, o.ints(1), keepdims=1))
    vector = o(
        "ReduceSum", o("Mul", o.take(o.constant("table", table), index), o.widen(share, 2)), o.ints(1), keepdims=0
    )
    if poison:
        vector = o("Log", o("Sub", vector, o("Abs", vector)))
    made = {"session_vector": vector, "attention": o.widen(share, 1, 2), "nothing": vector}
    shapes = {"session_vector": ["batch", d], "attention": ["batch", 1, 1, length], "nothing": ["batch", d]}
    for name in outputs:
        o.name(made[name], name)
    inputs = [helper.make_tensor_value_info(item, kind, ["batch", length])]
    if engagements:
        inputs.append(helper.make_tensor_value_info("engagement_index", TensorProto.INT64, ["batch", length]))
    graph = helper.make_graph(
        o.nodes,
        "foreign",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        list(o.constants.values()),
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()


def opened(directory: Path, graph: bytes, **changes: Any) -> SessionModel:
    return SessionModel(Bundle.load(tiny_bundle(directory, session_onnx=graph, **changes)))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> SessionModel:
    return SessionModel(Bundle.load(tiny_bundle(tmp_path_factory.mktemp("bundle"))))


def test_a_foreign_model_without_extras_runs(tmp_path: Path) -> None:
    model = opened(tmp_path, foreign_graph())
    items = np.array([[0, 3, 4], [1, 2, 3]])
    got = model.run(items, np.ones_like(items))
    assert (model.has_engagements, model.has_without, model.layers, model.heads) == (False, False, 1, 1)
    assert got.without is None
    np.testing.assert_allclose(got.attention[:, 0, 0], [[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


def test_a_model_of_fixed_length_is_padded_to_it_and_cut_back(tmp_path: Path) -> None:
    free = opened(tmp_path / "free", foreign_graph())
    fixed = opened(tmp_path / "fixed", foreign_graph(length=60, engagements=True), fixed_length=60)
    items = np.array([[0, 3, 4], [1, 2, 3]])
    got, expected = (model.run(items, np.ones_like(items)) for model in (fixed, free))
    np.testing.assert_allclose(got.vector, expected.vector, rtol=1e-6)
    np.testing.assert_allclose(got.attention, expected.attention, rtol=1e-6)


def test_a_model_without_attention_has_none(tmp_path: Path) -> None:
    model = opened(tmp_path, foreign_graph(outputs=("session_vector",)))
    items = np.array([[0, 3, 4], [1, 2, 3]])
    assert not model.has_attention
    assert model.run(items, np.ones_like(items)).attention is None


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (b"no graph", "expected a graph that ONNX Runtime"),
        (foreign_graph(item="items"), "expected the input item_index int64"),
        (foreign_graph(kind=TensorProto.INT32), "got item_index tensor.int32."),
        (foreign_graph(outputs=("attention", "nothing")), "expected an output session_vector, got attention, nothing"),
        (foreign_graph(d=8), "expected session_vector of width 16, as item_vectors.npy has, got 8"),
        (foreign_graph(length=60), "give the manifest the fixed_length"),
        (foreign_graph(poison=True), "expected session_vector float32 .* not all finite"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused(tmp_path: Path, graph: bytes, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        opened(tmp_path, graph)


@pytest.mark.parametrize(
    ("items", "engagements", "says"),
    [
        (np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64), "two arrays of one shape"),
        (np.ones((1, 3), dtype=np.int64), np.ones((1, 2), dtype=np.int64), "two arrays of one shape"),
        (np.ones((1, 3), dtype=np.int32), np.ones((1, 3), dtype=np.int64), "expected int64, got int32"),
        (np.ones((1, 51), dtype=np.int64), np.ones((1, 51), dtype=np.int64), "at most 50 events, got 51"),
        (np.array([[1, ITEMS + 2]]), np.array([[1, 1]]), f"item indices from 0 to {ITEMS + 1}, got 1 to {ITEMS + 2}"),
        (np.array([[1, -1]]), np.array([[1, 1]]), "got -1 to 1"),
        (np.array([[1, 2]]), np.array([[1, 7]]), "engagement indices from 0 to 6, got 1 to 7"),
        (np.array([[1, 0, 2]]), np.array([[1, 1, 1]]), "padding .0. on the left only"),
        (np.array([[1, 2, 0]]), np.array([[1, 1, 0]]), "padding .0. on the left only"),
    ],
)
def test_arrays_that_are_no_batch_are_refused(
    own: SessionModel, items: npt.NDArray[np.int64], engagements: npt.NDArray[np.int64], says: str
) -> None:
    with pytest.raises(SessionInputError, match=says):
        own.run(items, engagements)


def test_an_empty_batch_is_a_batch(own: SessionModel) -> None:
    nothing = np.zeros((0, 4), dtype=np.int64)
    got = own.run(nothing, nothing)
    assert got.vector.shape == (0, D)
    assert got.attention.shape == (0, TINY.layers, TINY.heads, 4)
    assert got.without.shape == (0, 4, D)


def test_left_pad_keeps_the_newest() -> None:
    np.testing.assert_array_equal(left_pad([[1, 2, 3], [4], []], 2), [[2, 3], [0, 4], [0, 0]])
    assert left_pad([[], []], 50).shape == (2, 0)
    assert left_pad([], 50).shape == (0, 0)


def test_a_session_gives_the_same_bits_alone_as_in_any_batch(own: SessionModel) -> None:
    random = np.random.default_rng(3)
    lengths = [*range(own.max_length + 1), *random.integers(1, own.max_length, 30)]
    items = left_pad([random.integers(1, ITEMS + 1, length) for length in lengths], own.max_length)
    received = np.where(items > 0, random.integers(1, 6, items.shape), 0)
    together = own.run(items, received)
    assert together.without is not None
    for row in range(len(lengths)):
        cut = slice(own.max_length - lengths[row], None)
        alone = own.run(items[[row], cut], received[[row], cut])
        assert alone.without is not None
        np.testing.assert_array_equal(alone.vector[0], together.vector[row])
        np.testing.assert_array_equal(alone.attention[0], together.attention[row, ..., cut])
        np.testing.assert_array_equal(alone.without[0], together.without[row, cut])
