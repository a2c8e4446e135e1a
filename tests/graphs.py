"""Session graphs of other exporters: our own, reduced to what theirs have, and a mean of item vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from models.session.config import BLANK_EVENT
from models.session.graph import IR_VERSION, OPSET, Nodes


def reduced(graph: bytes, *, without: bool = False, cache: bool = False, blank: bool = False) -> bytes:
    """Keep of the optional parts of a graph only those named: masking, the KV cache, the blank event."""
    model = onnx.load_from_string(graph)
    dropped = {name for name, kept in (("without", without), ("state", cache)) if not kept}
    outputs = [output for output in model.graph.output if output.name not in dropped]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    if not blank:
        metadata = [each for each in model.metadata_props if each.key != BLANK_EVENT]
        del model.metadata_props[:]
        model.metadata_props.extend(metadata)
    return bytes(model.SerializeToString())


def counting_graph() -> bytes:
    """Export two history features: the number of events, and how many of them are of the candidate."""
    constants: dict[str, onnx.TensorProto] = {}
    nodes = Nodes(constants)
    floats = onnx.TensorProto.FLOAT
    there = nodes("Cast", nodes("Greater", "item_index", nodes.scalar(0)), to=floats)
    same = nodes("Cast", nodes("Equal", "item_index", nodes.widen("candidate_index", 1)), to=floats)
    counts = [nodes("ReduceSum", each, nodes.ints(1), keepdims=1) for each in (there, same)]
    nodes.name(nodes("Concat", *counts, axis=1), "features")
    inputs = [
        helper.make_tensor_value_info("item_index", onnx.TensorProto.INT64, ["n", "length"]),
        helper.make_tensor_value_info("candidate_index", onnx.TensorProto.INT64, ["n"]),
    ]
    outputs = [helper.make_tensor_value_info("features", floats, ["n", 2])]
    graph = helper.make_graph(nodes.nodes, "counts", inputs, outputs, list(constants.values()))
    opset = [helper.make_opsetid("", OPSET)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION).SerializeToString())


def mean_graph(item_vectors: npt.NDArray[np.float32], constant: npt.NDArray[np.float32]) -> bytes:
    """Export a constant plus the mean of the vectors of all events; the attention is the same on each of them."""
    constants: dict[str, onnx.TensorProto] = {}
    nodes = Nodes(constants)
    vectors, none = nodes.constant("item", item_vectors), nodes.constant("constant", constant)
    there = nodes("Cast", nodes("Greater", "item_index", nodes.scalar(0)), to=onnx.TensorProto.FLOAT)
    count = nodes("Max", nodes("ReduceSum", there, nodes.ints(1), keepdims=1), nodes.real(1.0))
    total = nodes("ReduceSum", nodes.take(vectors, "item_index"), nodes.ints(1), keepdims=0)
    nodes.name(nodes("Add", nodes("Div", total, count), none), "session_vector")
    nodes.name(nodes.widen(nodes("Div", there, count), 1, 2), "attention")
    floats = onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("item_index", onnx.TensorProto.INT64, ["batch", "length"])]
    outputs = [
        helper.make_tensor_value_info("session_vector", floats, ["batch", item_vectors.shape[1]]),
        helper.make_tensor_value_info("attention", floats, ["batch", 1, 1, "length"]),
    ]
    graph = helper.make_graph(nodes.nodes, "mean", inputs, outputs, list(constants.values()))
    opset = [helper.make_opsetid("", OPSET)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION).SerializeToString())
