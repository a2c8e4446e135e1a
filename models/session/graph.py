"""A small writer of ONNX graphs: every value is the name of a tensor, every call appends a node."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSET = 18
IR_VERSION = 10


class Nodes:
    """The nodes of a graph, or of a branch of one; branches share the constants of the whole."""

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
        """Give a tensor the name by which callers ask for it."""
        self.nodes.append(helper.make_node("Identity", [tensor], [name], name=name))

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Hold an array under a name, once."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(value, order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        """Hold int64 [n]."""
        return self.constant("ints " + " ".join(map(str, values)), np.array(values, dtype=np.int64))

    def scalar(self, value: int) -> str:
        """Hold an int64 scalar."""
        return self.constant(f"scalar {value}", np.array(value, dtype=np.int64))

    def real(self, value: float) -> str:
        """Hold a float32 scalar."""
        return self.constant(f"real {value}", np.array(value, dtype=np.float32))

    def shape(self, tensor: str, *sizes: str | int) -> str:
        """Reshape; a number is a size (0: as it was, -1: the rest), a name an int64 [1] known only at run time."""
        if not any(isinstance(size, str) for size in sizes):
            return self("Reshape", tensor, self.ints(*(int(size) for size in sizes)))
        parts = [size if isinstance(size, str) else self.ints(size) for size in sizes]
        return self("Reshape", tensor, self("Concat", *parts, axis=0))

    def size(self, tensor: str, axis: int) -> str:
        """Measure an axis: int64 [1]."""
        return self("Shape", tensor, start=axis, end=axis + 1)

    def take(self, tensor: str, index: str, axis: int = 0) -> str:
        """Gather along an axis; a scalar index drops it."""
        return self("Gather", tensor, index, axis=axis)

    def widen(self, tensor: str, *axes: int) -> str:
        """Insert axes of length 1."""
        return self("Unsqueeze", tensor, self.ints(*axes))

    def swap(self, tensor: str, *order: int) -> str:
        """Transpose."""
        return self("Transpose", tensor, perm=list(order))

    def branch(self, output: str) -> onnx.GraphProto:
        """Close these nodes as one branch of an If."""
        info = onnx.ValueInfoProto(name=output)
        return helper.make_graph(self.nodes, self.prefix.rstrip("/"), [], [info])
