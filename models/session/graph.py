"""A small builder of ONNX graphs: values are names of tensors, and each call appends a node."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSET = 18
IR_VERSION = 10


class Nodes:
    """The nodes of a graph or of a branch; a graph and its branches share their constants."""

    def __init__(self, constants: dict[str, onnx.TensorProto], prefix: str = "") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants = constants
        self.prefix = prefix

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output; returns the output's name."""
        name = f"{self.prefix}{len(self.nodes)}_{operator}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def name(self, tensor: str, name: str) -> None:
        """Give a tensor the name of an output."""
        self.nodes.append(helper.make_node("Identity", [tensor], [name], name=name))

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Add an array as a constant, unless the name exists; returns the name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(value, order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        """Add a constant int64 [n]."""
        return self.constant("ints " + " ".join(map(str, values)), np.array(values, dtype=np.int64))

    def scalar(self, value: int) -> str:
        """Add a constant int64 scalar."""
        return self.constant(f"scalar {value}", np.array(value, dtype=np.int64))

    def real(self, value: float) -> str:
        """Add a constant float32 scalar."""
        return self.constant(f"real {value}", np.array(value, dtype=np.float32))

    def shape(self, tensor: str, *sizes: str | int) -> str:
        """Reshape; a size is a number (0 keeps it, -1 infers it) or the name of an int64 [1] known at run time."""
        if not any(isinstance(size, str) for size in sizes):
            return self("Reshape", tensor, self.ints(*(int(size) for size in sizes)))
        parts = [size if isinstance(size, str) else self.ints(size) for size in sizes]
        return self("Reshape", tensor, self("Concat", *parts, axis=0))

    def size(self, tensor: str, axis: int) -> str:
        """Return the size of an axis, int64 [1]."""
        return self("Shape", tensor, start=axis, end=axis + 1)

    def take(self, tensor: str, index: str, axis: int = 0) -> str:
        """Gather along an axis; a scalar index removes the axis."""
        return self("Gather", tensor, index, axis=axis)

    def widen(self, tensor: str, *axes: int) -> str:
        """Insert axes of length 1."""
        return self("Unsqueeze", tensor, self.ints(*axes))

    def swap(self, tensor: str, *order: int) -> str:
        """Transpose."""
        return self("Transpose", tensor, perm=list(order))

    def branch(self, output: str) -> onnx.GraphProto:
        """Return the nodes as a branch of an If node with this output."""
        info = onnx.ValueInfoProto(name=output)
        return helper.make_graph(self.nodes, self.prefix.rstrip("/"), [], [info])
