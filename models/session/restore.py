"""Rebuilds the PyTorch model from an exported graph, so that a bundle can be evaluated without its training code."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from models.bundle import Bundle
from models.errors import BundleError
from models.session.config import SessionConfig
from models.session.transformer import SessionTransformer

_LINEAR = ("query", "key", "value", "output", "feed_in", "feed_out")


def restore(bundle: Bundle) -> SessionTransformer:
    """Rebuild the transformer of a bundle from the graph that models/session/export.py wrote.

    The outputs are equal up to rounding.

    Raises:
        BundleError: the graph has another origin, so that its weights have unknown names.

    """
    graph = onnx.load(bundle.session_onnx).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    try:
        config = _config(bundle, graph, constants)
        weights = _weights(bundle, config, constants)
        model = SessionTransformer(config)
        model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    except (KeyError, StopIteration, RuntimeError, ValueError) as error:
        raise BundleError(
            f"session.onnx: expected a graph exported by whyrec, got a graph in which {error} is missing or different: "
            "export the model with whyrec, or rely on deletion instead of the reference methods."
        ) from error
    model.eval()
    return model


def _config(bundle: Bundle, graph: onnx.GraphProto, constants: dict[str, npt.NDArray[np.float32]]) -> SessionConfig:
    attention = next(each for each in graph.output if each.name == "attention").type.tensor_type.shape
    layers, heads = (axis.dim_value for axis in attention.dim[1:3])
    length, d = constants["position"].shape
    return SessionConfig(
        items=len(bundle.catalog),
        engagements=len(bundle.manifest.engagements),
        d=d,
        layers=layers,
        heads=heads,
        d_ff=constants["layers.0.feed_in.bias"].shape[0],
        max_length=length,
    )


def _weights(
    bundle: Bundle, config: SessionConfig, constants: dict[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float32]]:
    scale, last = np.float32(config.d**0.5), f"layers.{config.layers - 1}"
    weights = {
        "item.weight": bundle.item_vectors,
        "engagement.weight": constants["engagement"][: config.engagements + 1] / scale,  # the blank event is left out
        # In the graph, the last layer's matrices are split by head, and its keys include the scale of the scores.
        f"{last}.key.weight": constants[f"{last} read key"].reshape(config.d, config.d)
        * np.float32((config.d // config.heads) ** 0.5),
        f"{last}.value.weight": constants[f"{last} read value"].swapaxes(1, 2).reshape(config.d, config.d),
    }
    weights |= {"projection.weight": constants["projection"].T, "projection.bias": constants["projection.bias"]}
    norms = ["final_norm"]
    for depth in range(config.layers):
        layer = f"layers.{depth}"
        norms += [f"{layer}.attention_norm", f"{layer}.feed_norm"]
        for part in _LINEAR:
            if f"{layer}.{part}.weight" not in weights:
                weights[f"{layer}.{part}.weight"] = constants[f"{layer}.{part}"].T
        for part in ("feed_in", "feed_out"):
            weights[f"{layer}.{part}.bias"] = constants[f"{layer}.{part}.bias"]
    for norm in norms:
        weights |= {f"{norm}.{part}": constants[f"{norm}.{part}"] for part in ("weight", "bias")}
    return weights
