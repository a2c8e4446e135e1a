"""Export of the trained transformer to the ONNX graph that the service runs.

The graph is written node by node instead of being traced, so that it computes only what is needed. The last layer runs
for the newest row only. The keys and values of that layer are not computed: a single query needs only its products with
the rows, so that q·W_k is computed first. Tests compare the graph with the PyTorch model.

``without[b, j]`` is the session vector with event j masked: hidden as an attention key in all layers, for all rows. It
is defined for every column:

- The newest event is the query of the last layer and cannot be masked. Without it, the event before it is the query,
  and the vector is that of the shorter session. Since positions count from the oldest event, this equals deletion.
- Without its only event a session is empty, and the vector of an empty session is zero.
- For padding, ``without[b, j]`` is the session vector.

The computation is exact and incremental. Masking key j changes only the rows after j, so that each pair (row i, key
j < i) is one row of work after the first layer, and padding costs nothing. The first layer's queries, keys and values
do not depend on j; the context of row i without key j is, per head, (c_i - a_ij v_j) / (1 - a_ij), where c_i is the
context and a_ij the attention. This is numerically unstable as a_ij approaches 1. For the largest weight of each row,
the only one that can exceed one half, the softmax over the other keys is computed directly instead.

The *blank event* has the item index and the engagement index after the last ones. Its embedding is zero and it keeps
its position, so that a session can be run with an event blanked.

``without`` costs many times as much as the other outputs and is computed only on demand (``want_without``, true by
default).

``state`` is the KV cache: for each row, keys and values of every layer but the last, and the normalised input row of
the last layer. Attention is causal, so that a session which differs from another only after some event can be computed
from the cached rows before it (``models/session/incremental``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from models.errors import BundleError
from models.session.config import BLANK_EVENT, SessionConfig, sinusoids
from models.session.graph import IR_VERSION, OPSET, Nodes

Weights = Mapping[str, npt.NDArray[np.float32]]

# Score of a masked key: below every real score, but finite, so that a softmax over masked keys only is not NaN.
_MASKED_SCORE = -1e30


def export_onnx(config: SessionConfig, weights: Weights) -> bytes:
    """Write the model as an ONNX graph of the bundle contract, for any batch size and up to config.max_length events.

    Args:
        config: the model's size, with at least two layers.
        weights: the arrays of SessionTransformer.state_dict(), float32.

    Raises:
        BundleError: the model has a single layer; the graph treats the first and the last layer differently.

    """
    if config.layers < 2:
        raise BundleError(f"export: expected at least 2 layers, got {config.layers}: train a deeper model.")
    return bytes(_Writer(config, weights).model().SerializeToString())


def with_blank(embedding: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Append the blank event, a row of zeros, to an embedding table [n + 1, d]: [n + 2, d]."""
    return np.pad(embedding, ((0, 1), (0, 0)))


@dataclass(frozen=True)
class _Attended:
    """Names of the tensors of a layer that was computed for every row."""

    before: str  # [B, rows, d]
    after: str  # [B, rows, d]
    scores: str  # [B, heads, row, key], _MASKED_SCORE for masked keys
    attention: str  # [B, heads, row, key]
    values: str  # [B, heads, L, d / heads]
    context: str  # [B, heads, rows, d / heads]
    state: tuple[str, str]  # keys and values of the rows, [B, rows, d] each


@dataclass(frozen=True)
class _Outer:
    """Names of the tensors that the branches read from the enclosing graph."""

    valid: str  # [B, L]
    seen: str  # [B, row, key]
    others: str  # [J, key]
    remaining: str  # [B, J, key], the events without event j
    length: str  # [1]
    vector: str  # [B, 1, d]


class _Writer:
    def __init__(self, config: SessionConfig, weights: Weights) -> None:
        self.config = config
        self.weights = weights
        self.constants: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        """Write the whole graph."""
        config, o = self.config, Nodes(self.constants)
        valid = o("Cast", "item_index", to=TensorProto.BOOL)  # [B, L]
        length = o.size("item_index", 1)
        key = o("Range", o.scalar(0), o("Squeeze", length), o.scalar(1))
        seen = o("And", o.widen(valid, 1), o("GreaterOrEqual", o.widen(key, 1), o.widen(key, 0)))  # [B, row, key]

        h, attended = self.embed(o), []
        for depth in range(config.layers - 1):
            attended.append(self.attend(o, depth, h, o.widen(seen, 1)))
            h = attended[-1].after
        rows = self.norm(o, h, f"layers.{config.layers - 1}.attention_norm")
        o.name(o("Concat", *(part for each in attended for part in each.state), rows, axis=2), "state")
        vector, attention = self.last_layer(o, o.take(h, o.ints(-1), axis=1), o.widen(rows, 1), o.widen(valid, 1))

        # An empty session has a zero vector and no attention.
        present = o("Cast", o.take(valid, o.scalar(-1), axis=1), to=TensorProto.FLOAT)
        vector = o("Mul", vector, o.widen(present, 1, 2))  # [B, 1, d]
        o.name(o("Squeeze", vector, o.ints(1)), "session_vector")
        newest = [o.widen(o.take(each.attention, o.scalar(-1), axis=2), 1) for each in attended]
        o.name(o("Mul", o("Concat", *newest, attention, axis=1), o.widen(present, 1, 2, 3)), "attention")

        others = o("Not", o("Equal", o.widen(key, 1), o.widen(key, 0)))  # [J, key]
        remaining = o("And", o.widen(valid, 1), others)  # [B, J, key]
        no_branch, branch = Nodes(self.constants, "no without/"), Nodes(self.constants, "without/")
        without = self.without(branch, attended, _Outer(valid, seen, others, remaining, length, vector))
        o.nodes.append(
            helper.make_node(
                "If",
                ["want_without"],
                ["without"],
                name="without",
                then_branch=branch.branch(without),
                else_branch=no_branch.branch(no_branch("Slice", vector, o.ints(0), o.ints(0), o.ints(1))),
            )
        )
        return self.finished(o)

    def finished(self, o: Nodes) -> onnx.ModelProto:
        """Declare inputs and outputs, and check the graph."""
        config, tensor = self.config, helper.make_tensor_value_info
        # A constant with the name of an input is the default of that input.
        o.constant("want_without", np.array(True))
        state = (2 * config.layers - 1) * config.d
        graph = helper.make_graph(
            o.nodes,
            "session",
            inputs=[
                tensor("item_index", TensorProto.INT64, ["batch", "length"]),
                tensor("engagement_index", TensorProto.INT64, ["batch", "length"]),
                tensor("want_without", TensorProto.BOOL, []),
            ],
            outputs=[
                tensor("session_vector", TensorProto.FLOAT, ["batch", config.d]),
                tensor("attention", TensorProto.FLOAT, ["batch", config.layers, config.heads, "length"]),
                tensor("without", TensorProto.FLOAT, ["batch", "events", config.d]),
                tensor("state", TensorProto.FLOAT, ["batch", "length", state]),
            ],
            initializer=list(self.constants.values()),
        )
        model = helper.make_model(
            graph, producer_name="whyrec", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        helper.set_model_props(model, {BLANK_EVENT: "1"})
        onnx.checker.check_model(model, full_check=True)
        return model

    # The parts of the model

    def embed(self, o: Nodes) -> str:
        """Embed the indices, [B, L, d]; positions count events, not padding."""
        scale = self.config.d**0.5
        items, engagements = (
            o.take(
                o.constant(name, with_blank(self.weights[f"{name}.weight"]) * np.float32(scale)),
                f"{name}_index",
            )
            for name in ("item", "engagement")
        )
        count = o("CumSum", o("Cast", o("Cast", "item_index", to=TensorProto.BOOL), to=TensorProto.INT64), o.scalar(1))
        position = o("Max", o("Sub", count, o.scalar(1)), o.scalar(0))
        positions = o.take(o.constant("position", sinusoids(self.config.max_length, self.config.d)), position)
        return o("Add", o("Add", items, engagements), positions)

    def attend(self, o: Nodes, depth: int, h: str, seen: str) -> _Attended:
        """Compute a layer for every row of h [B, rows, d]; seen, bool [B, 1, row, key], marks unmasked keys."""
        layer = f"layers.{depth}"
        heads, width = self.config.heads, self.config.d // self.config.heads
        x = self.norm(o, h, f"{layer}.attention_norm")
        query, *state = (o("MatMul", x, self.matrix(o, f"{layer}.{part}")) for part in ("query", "key", "value"))
        query, key, value = (o.shape(each, 0, 0, heads, width) for each in (query, *state))
        query, key, value = o.swap(query, 0, 2, 1, 3), o.swap(key, 0, 2, 3, 1), o.swap(value, 0, 2, 1, 3)
        scores = o("Where", seen, o("Mul", o("MatMul", query, key), o.real(width**-0.5)), o.real(_MASKED_SCORE))
        attention = o("Softmax", scores, axis=-1)
        context = o("MatMul", attention, value)
        joined = o.shape(o.swap(context, 0, 2, 1, 3), 0, 0, self.config.d)
        after = self.feed(o, depth, o("Add", h, o("MatMul", joined, self.matrix(o, f"{layer}.output"))))
        return _Attended(h, after, scores, attention, value, context, (state[0], state[1]))

    def last_layer(self, o: Nodes, query_row: str, x: str, seen: str) -> tuple[str, str]:
        """Compute the last layer, the final norm and the projection for one query row per J.

        query_row [B, J, d] is the row before the layer, x [B, J, L, d] are the normalised rows to attend to, seen bool
        [B, J, L] marks unmasked keys. Returns the session vector [B, J, d] and its attention [B, J, heads, L].
        """
        depth = self.config.layers - 1
        layer, heads, d = f"layers.{depth}", self.config.heads, self.config.d
        width = d // heads
        key = self.weights[f"{layer}.key.weight"].reshape(heads, width, d) * np.float32(width**-0.5)
        value = self.weights[f"{layer}.value.weight"].reshape(heads, width, d).swapaxes(1, 2)
        query = o("MatMul", self.norm(o, query_row, f"{layer}.attention_norm"), self.matrix(o, f"{layer}.query"))
        query = o.shape(query, 0, 0, heads, 1, width)
        query = o.shape(o("MatMul", query, o.constant(f"{layer} read key", key)), 0, 0, heads, d)
        scores = o("MatMul", query, o.swap(x, 0, 1, 3, 2))  # [B, J, heads, L]
        attention = o("Softmax", o("Where", o.widen(seen, 2), scores, o.real(_MASKED_SCORE)), axis=-1)
        context = o.shape(o("MatMul", attention, x), 0, 0, heads, 1, d)
        joined = o.shape(o("MatMul", context, o.constant(f"{layer} read value", value)), 0, 0, d)
        after = self.feed(o, depth, o("Add", query_row, o("MatMul", joined, self.matrix(o, f"{layer}.output"))))
        return self.project(o, after), attention

    def project(self, o: Nodes, h: str) -> str:
        """Map rows after the last layer to session vectors."""
        weight, bias = self.linear(o, "projection")
        return o("Add", o("MatMul", self.norm(o, h, "final_norm"), weight), bias)

    def feed(self, o: Nodes, depth: int, h: str) -> str:
        """Compute the feed-forward block of a layer with its residual connection, for h [..., d]."""
        layer = f"layers.{depth}"
        flat = o.shape(self.norm(o, h, f"{layer}.feed_norm"), -1, self.config.d)
        inner = o("Relu", o("Gemm", flat, *self.linear(o, f"{layer}.feed_in")))
        outer = o("Gemm", inner, *self.linear(o, f"{layer}.feed_out"))
        return o("Add", h, o("Reshape", outer, o("Shape", h)))

    def norm(self, o: Nodes, h: str, name: str) -> str:
        """Apply the layer normalisation of this name."""
        scale, shift = (o.constant(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return o("LayerNormalization", h, scale, shift, axis=-1, epsilon=1e-5)

    def matrix(self, o: Nodes, name: str) -> str:
        """Hold a weight matrix, transposed for products from the left."""
        return o.constant(name, self.weights[f"{name}.weight"].T)

    def linear(self, o: Nodes, name: str) -> tuple[str, str]:
        """Hold a weight matrix and its bias."""
        return self.matrix(o, name), o.constant(f"{name}.bias", self.weights[f"{name}.bias"])

    # The session vector with each event masked

    def without(self, o: Nodes, attended: list[_Attended], outer: _Outer) -> str:
        """Compute the session vector with each event j masked: [B, J, d]."""
        valid, seen, others, length = outer.valid, outer.seen, outer.others, outer.length
        pairs = o("And", o("And", seen, others), o.widen(valid, 2))
        each = self.first_without(o, attended[0], pairs, length)
        for depth in range(1, self.config.layers - 1):
            unmasked = o("And", o.widen(seen, 1), o.widen(others, 1))  # [B, J, row, key]
            flat = o.shape(each, -1, length, self.config.d)
            rows = self.attend(o, depth, flat, o.shape(unmasked, -1, 1, length, length)).after
            each = o.shape(rows, -1, length, length, self.config.d)

        # The query is the newest row; if j is the newest event, it is the row before.
        newest = o("Sub", length, o.ints(1))
        before = o("Max", o("Sub", newest, o.ints(1)), o.ints(0))
        is_newest = o("Equal", o("Range", o.scalar(0), o("Squeeze", length), o.scalar(1)), newest)
        last = o.take(each, o.scalar(-1), axis=2)
        query_row = o("Where", o.widen(is_newest, 1), o.take(attended[-1].after, before, axis=1), last)
        rows = self.norm(o, each, f"layers.{self.config.layers - 1}.attention_norm")
        without, _ = self.last_layer(o, query_row, rows, outer.remaining)
        return self.with_conventions(o, without, outer)

    def with_conventions(self, o: Nodes, without: str, outer: _Outer) -> str:
        """Set the vector to zero where no event remains, and to the session vector where j is padding."""
        some = o("ReduceMax", o("Cast", outer.remaining, to=TensorProto.FLOAT), o.ints(2), keepdims=1)
        return o("Where", o.widen(outer.valid, 2), o("Mul", without, some), outer.vector)

    def first_without(self, o: Nodes, first: _Attended, pairs: str, length: str) -> str:
        """Compute the rows after the first layer for each masked event: [B, J, L, d]."""
        heads, d = self.config.heads, self.config.d
        flat = o("Squeeze", o("NonZero", o.shape(pairs, -1)), o.ints(0))  # [P], each (b * L + row) * L + key
        row = o("Div", flat, length)  # b * L + row
        position = o("Sub", row, o("Mul", o("Div", row, length), length))
        key = o("Add", o("Sub", flat, o("Mul", row, length)), o("Sub", row, position))  # b * L + key

        # For each row: its context, and its context without the key of the largest attention.
        largest = o("ArgMax", first.attention, axis=3, keepdims=1)
        is_largest = o("Equal", largest, o("Range", o.scalar(0), o("Squeeze", length), o.scalar(1)))
        rest = o("Softmax", o("Where", is_largest, o.real(_MASKED_SCORE), first.scores), axis=-1)
        columns = [o.swap(part, 0, 2, 1, 3) for part in (first.context, o("MatMul", rest, first.values), first.values)]
        context, second, value = (o.shape(part, -1, heads, d // heads) for part in columns)  # [B * L, heads, d / heads]
        share, top = (o.swap(part, 0, 2, 3, 1) for part in (first.attention, is_largest))
        share, top = (o.take(o.shape(part, -1, heads, 1), flat) for part in (share, top))  # [P, heads, 1]

        # Every other key has at most half of the attention, so that this difference is numerically stable.
        remainder = o("Max", o("Sub", o.real(1.0), share), o.real(0.25))
        plain = o("Sub", o.take(context, row), o("Mul", o.take(value, key), share))
        changed = o.shape(o("Where", top, o.take(second, row), o("Div", plain, remainder)), -1, d)
        mixed = o("MatMul", changed, self.matrix(o, "layers.0.output"))
        changed = self.feed(o, 0, o("Add", o.take(o.shape(first.before, -1, d), row), mixed))

        each = o("Expand", o.widen(first.after, 1), o("Concat", o.ints(1), length, o.ints(1, 1), axis=0))
        target = o("Add", o("Mul", key, length), position)  # (b * L + key) * L + row
        return o.shape(o("ScatterND", o.shape(each, -1, d), o.widen(target, 1), changed), -1, length, length, d)
