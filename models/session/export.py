"""From the trained transformer to the ONNX graph that the service runs.

The graph is written node by node rather than traced, so that it computes what is asked of it and no more: the last
layer runs for the newest row only, and the keys and values of that layer are never formed, since one query needs only
its own products with the rows (q·W_k is taken first). Tests hold it against the PyTorch model.

``without[b, j]`` is the session vector when event j is not there as an attention key, in any layer, for any row. Three
conventions make it total:

- The newest event is the one that asks. Without it, the event before it asks: the vector is the model's own answer to
  the shorter session. (Positions count from the oldest event, so this is deletion exactly.)
- Without the only event there is no session, and an empty session has the zero vector.
- Taking padding away takes nothing away: ``without[b, j]`` is the session vector.

It is exact and incremental. Taking key j away changes only the rows after j, so each pair (row i, key j < i) is one
row of work after the first layer, and padding costs nothing. The first layer's queries, keys and values do not depend
on j; there the context of row i without key j is, per head, (c_i - a_ij v_j) / (1 - a_ij), where c_i is the context
and a_ij the attention. As a_ij approaches 1 that loses every digit, so for the one key per row that can have more than
half of the attention, the largest, the softmax over the others is formed as such.

The *blank event* is an item index after the last, with an engagement index after the last: it says nothing, but keeps
its place, so that a session can be asked what it would be with an event's embedding zeroed.

``without`` costs many times what the rest does, so it is computed on demand only (``want_without``, default true).

``state`` is all that later rows read of a row: keys and values of each layer, and the normalised row that the last
layer reads. Attention looks back only, so a session that differs from another from some event on need not be run whole
(``models/session/incremental``).
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

# Far below every score, and far from overflow: a softmax over rows that are all hidden stays finite.
_NEVER = -1e30


def export_onnx(config: SessionConfig, weights: Weights) -> bytes:
    """Write the model as one ONNX graph of the bundle contract: any batch, any length up to config.max_length.

    weights are those of SessionTransformer.state_dict(), float32, as numpy arrays. Raises BundleError for a model of
    one layer, whose last layer is also its first.
    """
    if config.layers < 2:
        raise BundleError(f"export: expected at least 2 layers, got {config.layers}: train a deeper model.")
    return bytes(_Writer(config, weights).model().SerializeToString())


def with_blank(embedding: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Add the blank event to an embedding [n + 1, d]: a row of zeros after the last, which is not padding."""
    return np.pad(embedding, ((0, 1), (0, 0)))


@dataclass(frozen=True)
class _Attended:
    """A layer that ran for every row: the rows before and after it, and how they came about."""

    before: str  # [B, rows, d]
    after: str  # [B, rows, d]
    scores: str  # [B, heads, row, key], hidden keys far below all others
    attention: str  # [B, heads, row, key]
    values: str  # [B, heads, L, d / heads]
    context: str  # [B, heads, rows, d / heads]
    state: tuple[str, str]  # keys and values of the rows, [B, rows, d] each


@dataclass(frozen=True)
class _Around:
    """What the branches need of the graph around them."""

    valid: str  # [B, L]
    seen: str  # [B, row, key]
    others: str  # [J, key]
    left: str  # [B, J, key], the events without event j
    length: str  # [1]
    vector: str  # [B, 1, d]


class _Writer:
    def __init__(self, config: SessionConfig, weights: Weights) -> None:
        self.config = config
        self.weights = weights
        self.constants: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
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
        vector, attention = self.read(o, o.take(h, o.ints(-1), axis=1), o.widen(rows, 1), o.widen(valid, 1))

        # An empty session has the zero vector, and attends to nothing.
        present = o("Cast", o.take(valid, o.scalar(-1), axis=1), to=TensorProto.FLOAT)
        vector = o("Mul", vector, o.widen(present, 1, 2))  # [B, 1, d]
        o.name(o("Squeeze", vector, o.ints(1)), "session_vector")
        newest = [o.widen(o.take(each.attention, o.scalar(-1), axis=2), 1) for each in attended]
        o.name(o("Mul", o("Concat", *newest, attention, axis=1), o.widen(present, 1, 2, 3)), "attention")

        others = o("Not", o("Equal", o.widen(key, 1), o.widen(key, 0)))  # [J, key]
        left = o("And", o.widen(valid, 1), others)  # [B, J, key]
        nothing, everything = Nodes(self.constants, "no without/"), Nodes(self.constants, "without/")
        made = self.without(everything, attended, _Around(valid, seen, others, left, length, vector))
        o.nodes.append(
            helper.make_node(
                "If",
                ["want_without"],
                ["without"],
                name="without",
                then_branch=everything.branch(made),
                else_branch=nothing.branch(nothing("Slice", vector, o.ints(0), o.ints(0), o.ints(1))),
            )
        )
        return self.close(o)

    def close(self, o: Nodes) -> onnx.ModelProto:
        config, tensor = self.config, helper.make_tensor_value_info
        # An input that has a constant is an input with a default.
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
        """Turn the indices into rows [B, L, d]; positions count events, not padding."""
        scale = self.config.d**0.5
        items, engagements = (
            o.take(
                o.constant(name, with_blank(self.weights[f"{name}.weight"]) * np.float32(scale)),
                f"{name}_index",
            )
            for name in ("item", "engagement")
        )
        count = o("CumSum", o("Cast", o("Cast", "item_index", to=TensorProto.BOOL), to=TensorProto.INT64), o.scalar(1))
        place = o("Max", o("Sub", count, o.scalar(1)), o.scalar(0))
        positions = o.take(o.constant("position", sinusoids(self.config.max_length, self.config.d)), place)
        return o("Add", o("Add", items, engagements), positions)

    def attend(self, o: Nodes, depth: int, h: str, seen: str) -> _Attended:
        """Run a layer for every row of h [B, rows, d]; seen is bool [B, 1, row, key]."""
        layer = f"layers.{depth}"
        heads, width = self.config.heads, self.config.d // self.config.heads
        x = self.norm(o, h, f"{layer}.attention_norm")
        query, *state = (o("MatMul", x, self.matrix(o, f"{layer}.{part}")) for part in ("query", "key", "value"))
        query, key, value = (o.shape(each, 0, 0, heads, width) for each in (query, *state))
        query, key, value = o.swap(query, 0, 2, 1, 3), o.swap(key, 0, 2, 3, 1), o.swap(value, 0, 2, 1, 3)
        scores = o("Where", seen, o("Mul", o("MatMul", query, key), o.real(width**-0.5)), o.real(_NEVER))
        attention = o("Softmax", scores, axis=-1)
        context = o("MatMul", attention, value)
        joined = o.shape(o.swap(context, 0, 2, 1, 3), 0, 0, self.config.d)
        after = self.feed(o, depth, o("Add", h, o("MatMul", joined, self.matrix(o, f"{layer}.output"))))
        return _Attended(h, after, scores, attention, value, context, (state[0], state[1]))

    def read(self, o: Nodes, asking: str, x: str, seen: str) -> tuple[str, str]:
        """Run the last layer, the final norm and the projection for one row per J.

        asking [B, J, d] is the row before the layer, x [B, J, L, d] the normalised rows that it attends to, seen bool
        [B, J, L]. Returns the session vector [B, J, d] and its attention [B, J, heads, L].
        """
        depth = self.config.layers - 1
        layer, heads, d = f"layers.{depth}", self.config.heads, self.config.d
        width = d // heads
        key = self.weights[f"{layer}.key.weight"].reshape(heads, width, d) * np.float32(width**-0.5)
        value = self.weights[f"{layer}.value.weight"].reshape(heads, width, d).swapaxes(1, 2)
        query = o("MatMul", self.norm(o, asking, f"{layer}.attention_norm"), self.matrix(o, f"{layer}.query"))
        query = o.shape(query, 0, 0, heads, 1, width)
        query = o.shape(o("MatMul", query, o.constant(f"{layer} read key", key)), 0, 0, heads, d)
        scores = o("MatMul", query, o.swap(x, 0, 1, 3, 2))  # [B, J, heads, L]
        attention = o("Softmax", o("Where", o.widen(seen, 2), scores, o.real(_NEVER)), axis=-1)
        context = o.shape(o("MatMul", attention, x), 0, 0, heads, 1, d)
        joined = o.shape(o("MatMul", context, o.constant(f"{layer} read value", value)), 0, 0, d)
        after = self.feed(o, depth, o("Add", asking, o("MatMul", joined, self.matrix(o, f"{layer}.output"))))
        return self.project(o, after), attention

    def project(self, o: Nodes, h: str) -> str:
        """Turn rows after the last layer into session vectors."""
        weight, bias = self.linear(o, "projection")
        return o("Add", o("MatMul", self.norm(o, h, "final_norm"), weight), bias)

    def feed(self, o: Nodes, depth: int, h: str) -> str:
        """Add the feed-forward half of a layer to h [..., d]."""
        layer = f"layers.{depth}"
        flat = o.shape(self.norm(o, h, f"{layer}.feed_norm"), -1, self.config.d)
        inner = o("Relu", o("Gemm", flat, *self.linear(o, f"{layer}.feed_in")))
        outer = o("Gemm", inner, *self.linear(o, f"{layer}.feed_out"))
        return o("Add", h, o("Reshape", outer, o("Shape", h)))

    def norm(self, o: Nodes, h: str, name: str) -> str:
        scale, shift = (o.constant(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return o("LayerNormalization", h, scale, shift, axis=-1, epsilon=1e-5)

    def matrix(self, o: Nodes, name: str) -> str:
        return o.constant(name, self.weights[f"{name}.weight"].T)

    def linear(self, o: Nodes, name: str) -> tuple[str, str]:
        return self.matrix(o, name), o.constant(f"{name}.bias", self.weights[f"{name}.bias"])

    # The session vector without each event

    def without(self, o: Nodes, attended: list[_Attended], around: _Around) -> str:
        """[B, J, d], exact."""
        valid, seen, others, length = around.valid, around.seen, around.others, around.length
        pairs = o("And", o("And", seen, others), o.widen(valid, 2))
        each = self.first_without(o, attended[0], pairs, length)
        for depth in range(1, self.config.layers - 1):
            hidden = o("And", o.widen(seen, 1), o.widen(others, 1))  # [B, J, row, key]
            flat = o.shape(each, -1, length, self.config.d)
            rows = self.attend(o, depth, flat, o.shape(hidden, -1, 1, length, length)).after
            each = o.shape(rows, -1, length, length, self.config.d)

        # Who asks where j is gone: the newest row, but the row before it where j is the newest.
        newest = o("Sub", length, o.ints(1))
        before = o("Max", o("Sub", newest, o.ints(1)), o.ints(0))
        is_newest = o("Equal", o("Range", o.scalar(0), o("Squeeze", length), o.scalar(1)), newest)
        last = o.take(each, o.scalar(-1), axis=2)
        asking = o("Where", o.widen(is_newest, 1), o.take(attended[-1].after, before, axis=1), last)
        rows = self.norm(o, each, f"layers.{self.config.layers - 1}.attention_norm")
        without, _ = self.read(o, asking, rows, around.left)
        return self.settle(o, without, around)

    def settle(self, o: Nodes, without: str, around: _Around) -> str:
        """Nothing is left without the only event; nothing changes without padding."""
        some = o("ReduceMax", o("Cast", around.left, to=TensorProto.FLOAT), o.ints(2), keepdims=1)
        return o("Where", o.widen(around.valid, 2), o("Mul", without, some), around.vector)

    def first_without(self, o: Nodes, first: _Attended, pairs: str, length: str) -> str:
        """Rows after the first layer, once per event taken away: [B, J, L, d]."""
        heads, d = self.config.heads, self.config.d
        flat = o("Squeeze", o("NonZero", o.shape(pairs, -1)), o.ints(0))  # [P], each (b * L + row) * L + key
        row = o("Div", flat, length)  # b * L + row
        place = o("Sub", row, o("Mul", o("Div", row, length), length))
        key = o("Add", o("Sub", flat, o("Mul", row, length)), o("Sub", row, place))  # b * L + key

        # Per row: the context as it is, and the context without the key that has the largest share.
        largest = o("ArgMax", first.attention, axis=3, keepdims=1)
        is_largest = o("Equal", largest, o("Range", o.scalar(0), o("Squeeze", length), o.scalar(1)))
        rest = o("Softmax", o("Where", is_largest, o.real(_NEVER), first.scores), axis=-1)
        columns = [o.swap(part, 0, 2, 1, 3) for part in (first.context, o("MatMul", rest, first.values), first.values)]
        context, second, value = (o.shape(part, -1, heads, d // heads) for part in columns)  # [B * L, heads, d / heads]
        share, top = (o.swap(part, 0, 2, 3, 1) for part in (first.attention, is_largest))
        share, top = (o.take(o.shape(part, -1, heads, 1), flat) for part in (share, top))  # [P, heads, 1]

        # Every other key has at most half of the attention, so that this difference loses nothing.
        remains = o("Max", o("Sub", o.real(1.0), share), o.real(0.25))
        plain = o("Sub", o.take(context, row), o("Mul", o.take(value, key), share))
        changed = o.shape(o("Where", top, o.take(second, row), o("Div", plain, remains)), -1, d)
        mixed = o("MatMul", changed, self.matrix(o, "layers.0.output"))
        changed = self.feed(o, 0, o("Add", o.take(o.shape(first.before, -1, d), row), mixed))

        each = o("Expand", o.widen(first.after, 1), o("Concat", o.ints(1), length, o.ints(1, 1), axis=0))
        target = o("Add", o("Mul", key, length), place)  # (b * L + key) * L + row
        return o.shape(o("ScatterND", o.shape(each, -1, d), o.widen(target, 1), changed), -1, length, length, d)
