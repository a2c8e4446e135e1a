"""A bundle that cannot be explained truly is not opened, and the refusal names the cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import convert_model_to_external_data

from models.bundle import Bundle, write_bundle
from models.check import check
from models.errors import BundleError
from models.feature import Feature
from models.session.graph import IR_VERSION, OPSET
from stream.explain.pipeline import Explainer
from tests.bundles import TINY, random_weights, tiny_bundle, tiny_impression
from tests.graphs import mean_graph

SMALL = replace(TINY, items=20, max_length=5)
WEIGHTS = random_weights(SMALL)["item.weight"]
FIT = (Feature("fit", "session", "Fit"), Feature("price", "item", "Price"))


def graph_of(change: Callable[[list[onnx.NodeProto], str], str]) -> bytes:
    """Return the mean graph with its session vector changed by further nodes."""
    model = onnx.load_from_string(mean_graph(WEIGHTS, WEIGHTS[1]))
    for node in model.graph.node:
        node.output[:] = ["first" if name == "session_vector" else name for name in node.output]
    added: list[onnx.NodeProto] = []
    result = change(added, "first")
    added.append(helper.make_node("Identity", [result], ["session_vector"]))
    model.graph.node.extend(added)
    return bytes(model.SerializeToString())


def of_the_batch(nodes: list[onnx.NodeProto], vector: str) -> str:
    nodes.append(helper.make_node("ReduceMean", [vector], ["mean"], keepdims=1, axes=None))
    nodes.append(helper.make_node("Add", [vector, "mean"], ["mixed"]))
    return "mixed"


def random(nodes: list[onnx.NodeProto], vector: str) -> str:
    nodes.append(helper.make_node("RandomNormalLike", [vector], ["noise"]))
    nodes.append(helper.make_node("Add", [vector, "noise"], ["noisy"]))
    return "noisy"


def always_the_same(nodes: list[onnx.NodeProto], vector: str) -> str:
    nodes.append(helper.make_node("Sub", [vector, vector], ["zero"]))
    return "zero"


GRAPHS = {
    "depends on the rest of the batch": (of_the_batch, "a row depends on the other rows of its batch"),
    "is random": (random, "the graph is random"),
    "ignores the session": (always_the_same, "the graph ignores the session"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_misbehaves_is_refused_by_the_check_and_when_it_is_opened(name: str, tmp_path: Path) -> None:
    change, says = GRAPHS[name]
    folder = tiny_bundle(tmp_path, config=SMALL, session_onnx=graph_of(change))
    findings = [finding for finding in check(folder) if finding.fits is False]
    assert any(says in finding.says for finding in findings), findings
    with pytest.raises(BundleError, match=says):
        Explainer.load(folder)


def trees(**settings: Any) -> str:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    label = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0) if settings.get("num_class") else X[:, 0]
    rounds = settings.pop("rounds", 5)
    data = lightgbm.Dataset(X, label, feature_name=["fit", "price"], params={"verbosity": -1})
    given = {"verbosity": -1, "num_threads": 1} | settings
    booster = lightgbm.train(given, data, rounds) if rounds else lightgbm.Booster(given, data)
    return str(booster.model_to_string())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objective": "multiclass", "num_class": 3}, "got a model of 3 classes"),
        ({"objective": "regression", "rounds": 0}, "expected trees, got a model without any"),
    ],
)
def test_a_reranker_that_gives_no_score_to_rank_by_is_refused(
    settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    text = trees(**settings)
    folder = tiny_bundle(tmp_path, config=SMALL, features=FIT, reranker_text=text)
    assert any(says in finding.says for finding in check(folder) if finding.fits is False)
    with pytest.raises(BundleError, match=says):
        Explainer.load(folder)


def test_names_of_features_may_have_blanks(tmp_path: Path) -> None:
    features = (Feature("fit to session", "session", "Fit"), Feature("list price", "item", "Price"))
    X = np.random.default_rng(0).normal(size=(600, 2))
    data = lightgbm.Dataset(X, X[:, 0], feature_name=["fit to session", "list price"], params={"verbosity": -1})
    settings = {"verbosity": -1, "num_threads": 1, "objective": "regression"}
    text = str(lightgbm.train(settings, data, 5).model_to_string())
    bundle = Bundle.load(tiny_bundle(tmp_path, config=SMALL, features=features, reranker_text=text))
    [explanation] = Explainer(bundle).explain([tiny_impression(bundle, session=4, items=6)])
    assert "model_mismatch" not in {item["status"] for item in explanation["items"]}


def test_weights_beside_the_graph_are_pinned_or_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(mean_graph(WEIGHTS, WEIGHTS[1]))
    convert_model_to_external_data(model, location="weights.bin", size_threshold=500)
    onnx.save_model(model, tmp_path / "graph.onnx")
    graph, weights = (tmp_path / "graph.onnx").read_bytes(), (tmp_path / "weights.bin").read_bytes()
    with pytest.raises(BundleError, match=r"does not name weights\.bin"):
        tiny_bundle(tmp_path / "without", config=SMALL, session_onnx=graph)
    folder = tiny_bundle(tmp_path / "with", config=SMALL, session_onnx=graph, files={"weights.bin": weights})
    assert all(finding.fits is not False for finding in check(folder))
    (folder / "weights.bin").write_bytes(weights[:-4] + b"\0\0\0\0")
    with pytest.raises(BundleError, match=r"weights\.bin: expected SHA-256"):
        Explainer.load(folder)


def test_ids_of_32_bits_are_named_as_the_cause(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("item_index", TensorProto.INT32, ["batch", "length"])]
    outputs = [helper.make_tensor_value_info("session_vector", TensorProto.FLOAT, ["batch", 16])]
    nodes = [helper.make_node("Cast", ["item_index"], ["floats"], to=TensorProto.FLOAT),
             helper.make_node("Identity", ["floats"], ["session_vector"])]  # fmt: skip
    graph = helper.make_graph(nodes, "narrow", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    folder = tiny_bundle(tmp_path, config=SMALL, session_onnx=bytes(model.SerializeToString()))
    with pytest.raises(BundleError, match="cast the ids to int64 when exporting"):
        Explainer.load(folder)


def test_the_writer_takes_roles_from_names_of_contract_1(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path, engagements=("view", "like", "complete", "share", "skip"))
    roles = [each.role for each in Bundle.load(folder).manifest.engagements]
    assert roles == ["neutral", "positive", "positive", "positive", "negative"]
    assert write_bundle.__doc__
