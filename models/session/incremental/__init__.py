"""Incremental inference: session vectors from a KV cache, of which only the changed part is computed.

The transformer is causal: a position attends to itself and to the positions before it. Where an edited history differs
from a history that was read, all positions before the first difference have the keys and values of that reading, so
only the positions after it are computed: five of twenty on average, one if an event is masked for the newest position
only. A batch of slates needs a thousand such runs, each so small that ONNX Runtime spent most of its time between the
matrix products. So they have a kernel of their own, which reads the weights of the exported graph. Histories are read
by the same kernel: a counterfactual vector and the vector that it is compared with are then computed in the same way,
and of the wide layer, most of whose activations are zero, only the others are multiplied. Whenever a bundle is opened,
the kernel is compared with the graph (:meth:`IncrementalInference.self_check`). A graph of another origin is run by
ONNX Runtime alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from models.bundle import Bundle
from models.errors import BundleError, SessionInputError
from models.session.histories import Histories, Reading
from models.session.incremental.kernel import BEGIN, COMPUTED, END, MASKED, PREFIX, SESSION, SHIFT, Batch, Output, infer
from models.session.incremental.product import LANES, STEP, packed

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_TOLERANCE: Final = 1e-4
_PROBES: Final = 24
_PROBE_EVENTS: Final = 24


class Weights(NamedTuple):
    """Weights in the layout of the kernel: matrices packed (``product.packed``), one row per layer or head.

    d is the width of a position. item float32 [items + 2, d] and engagement float32 [engagements + 2, d], scaled, each
    with the blank event after the last; position [max_length, d]; norms [2 layers + 1, 2, d], scale and shift; triple
    [layers - 1, 3 d d], for queries, keys and values; feed_out [layers, d_ff d] not packed, since the kernel reads few
    of its rows. Of the last layer, read_key [heads, ...] holds W_k of each head, so that a query is compared with the
    positions themselves and their keys are never formed, and read_value [heads, ...] W_v of each head, its columns
    padded to a multiple of 16.
    """

    item: Floats
    engagement: Floats
    position: Floats
    norms: Floats
    triple: Floats
    output: Floats
    feed_in: Floats
    feed_in_bias: Floats
    feed_out: Floats
    feed_out_bias: Floats
    read_query: Floats
    read_key: Floats
    read_value: Floats
    read_output: Floats
    projection: Floats
    projection_bias: Floats


@dataclass(frozen=True, slots=True)
class IncrementalInference:
    """The kernel with the weights of one bundle; safe to call from several threads."""

    heads: int
    dimension: int
    weights: Weights

    @classmethod
    def load(cls, bundle: Bundle, heads: int) -> IncrementalInference | None:
        """Read the weights of a bundle's graph.

        None for a graph without the output ``state``, of another origin, or of a size that the kernel does not support.
        """
        graph = onnx.load(bundle.session_onnx).graph
        if not any(output.name == "state" for output in graph.output):
            return None
        held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        try:
            weights = _arrange(held)
        except KeyError:
            return None
        d, d_ff = weights.projection_bias.shape[0], weights.feed_in_bias.shape[1]
        if d % LANES or d_ff % LANES or d // heads % STEP:
            return None
        return cls(heads, d, weights)

    def read(self, histories: Histories) -> Reading:
        """Run complete histories; raises SessionInputError for one that is longer than the model reads."""
        if int(histories.length.max(initial=0)) > len(self.weights.position):
            raise SessionInputError(
                f"expected at most {len(self.weights.position)} events, got {histories.length.max()}: keep the newest "
                "ones."
            )
        output = self._complete(histories)
        return Reading(histories, output.vector, output.attention, output.cache, None)

    def _complete(self, histories: Histories) -> Output:
        count, width = histories.item.shape
        output = self._output(count, count, width)
        if count:
            order, begin = np.arange(count), width - histories.length
            runs = plan(order, begin, np.zeros_like(begin), histories.length, width, np.full_like(begin, -1))
            runs[:, PREFIX] = runs[:, COMPUTED] = begin
            no_cache = np.zeros((1, 1, output.cache.shape[2]), dtype=np.float32)
            batch = Batch(runs, order, histories.item, histories.engagement, no_cache)
            infer(output, batch, self.heads, self.weights)
        return output

    def vectors(self, cache: Floats, item: Ints, engagement: Ints, runs: Ints) -> Floats:
        """Session vectors of edited histories, float32 [n, d].

        cache float32 [K, W, s] is that of the reading of the K original histories; item and engagement int64 [n, W]
        hold the edited histories, of which the columns to be computed are read; runs int64 [n, 7] is what :func:`plan`
        returned.
        """
        output = self._output(len(runs), 0, 0)
        if len(runs):
            # Edits of one session share most of the first layer's input.
            order = np.argsort(runs[:, SESSION], kind="stable")
            batch = Batch(runs[order], order, item, engagement, np.ascontiguousarray(cache))
            infer(output, batch, self.heads, self.weights)
        return output.vector

    def _output(self, runs: int, histories: int, width: int) -> Output:
        size = (2 * len(self.weights.feed_in_bias) - 1) * self.dimension
        shapes = (runs, self.dimension), (histories, width, size), (histories, width)
        return Output(*(np.zeros(shape, dtype=np.float32) for shape in shapes))

    def self_check(self, graph: Callable[[Histories], Reading], max_length: int) -> float:
        """Compare with the graph on random sessions, complete and edited, and return the largest difference.

        graph reads histories of at most max_length events by the graph alone, with their KV cache. The difference is
        relative to the largest number of the outputs compared, where that is above 1.

        Raises:
            BundleError: the difference exceeds float noise.

        """
        random = np.random.default_rng(0)
        items, kinds = len(self.weights.item) - 2, len(self.weights.engagement) - 2
        width = min(max_length, _PROBE_EVENTS)
        length = random.integers(1, width + 1, _PROBES)
        there = np.arange(width) >= width - length[:, None]
        item = np.where(there, random.integers(1, items + 1, there.shape), 0)
        engagement = np.where(there, random.integers(1, kinds + 1, there.shape), 0)
        kept = width - 1 - (random.random(_PROBES) * length).astype(np.int64)
        other = np.where(np.arange(width) >= kept[:, None], random.integers(1, items + 1, there.shape), item)
        histories, edited = Histories(item, engagement, length), Histories(other, engagement, length)
        expected = graph(histories)
        if expected.cache is None:
            raise BundleError("session.onnx: expected the output `state` of our own export, got none: export it again.")
        runs = plan(np.arange(_PROBES), kept, np.zeros_like(kept), length, width, np.full_like(kept, -1))
        complete = self._complete(histories)
        if expected.attention is None:
            raise BundleError(
                "session.onnx: expected the output `attention` of our own export, got none: export it again."
            )
        pairs = (
            (complete.vector, expected.vector),
            (complete.cache * there[..., None], expected.cache * there[..., None]),
            (complete.attention, expected.attention),
            (self.vectors(complete.cache, other, engagement, runs), graph(edited).vector),
        )
        worst = max(
            float(np.abs(ours - theirs).max()) / max(1.0, float(np.abs(theirs).max())) for ours, theirs in pairs
        )
        if not worst <= _TOLERANCE:
            raise BundleError(
                f"session.onnx: expected incremental inference to agree with the graph, got a difference of {worst:g}: "
                "do not serve explanations of this model, and report it."
            )
        return worst


def plan(session: Ints, kept: Ints, moved: Ints, length: Ints, width: int, masked: Ints) -> Ints:
    """Plan the runs of n edited histories, `width` columns wide, with `length` events each: int64 [n, 7].

    Column c of history `session` as it was read is, for c < `kept`, column c + `moved` of the edited history; all int64
    [n]. ``masked`` is a column to which no later position attends, -1 for none: the first that differs, or a column
    before it.
    """
    runs = np.empty((len(session), 7), dtype=np.int64)
    prefix = kept + moved
    runs[:, SESSION], runs[:, SHIFT] = session, moved
    runs[:, BEGIN], runs[:, END] = width - length, width
    # At least the newest position is computed: it gives the session vector.
    runs[:, PREFIX] = np.minimum(prefix, width - 1)
    runs[:, COMPUTED] = np.minimum(prefix + (masked == prefix), width - 1)
    runs[:, MASKED] = np.where(masked == prefix, -1, masked)
    return runs


def _arrange(held: Mapping[str, Floats]) -> Weights:
    """Arrange the constants of a graph that ``models/session/export.py`` wrote; raises KeyError for any other graph."""
    layers = 1 + max((int(name.split(".")[1]) for name in held if re.match(r"layers\.\d+\.", name)), default=0)
    depths, last = range(layers), f"layers.{layers - 1}"
    norms = [f"layers.{depth}.{part}" for depth in depths for part in ("attention_norm", "feed_norm")]
    value = held[f"{last} read value"]
    heads, d, width = value.shape
    beside = -width % LANES  # columns of zeros, which fill the last panel of each head
    value = np.pad(value, ((0, 0), (0, 0), (0, beside)))
    output = np.pad(held[f"{last}.output"].reshape(heads, width, d), ((0, 0), (0, beside), (0, 0)))

    def triple(depth: int) -> Floats:
        return np.concatenate([held[f"layers.{depth}.{part}"] for part in ("query", "key", "value")], axis=1)

    def stacked(part: str, depths: range = depths) -> Floats:
        return np.stack([packed(held[f"layers.{depth}.{part}"]) for depth in depths])

    def biases(part: str) -> Floats:
        return np.stack([held[f"layers.{depth}.{part}.bias"] for depth in depths])

    return Weights(
        item=held["item"],
        engagement=held["engagement"],
        position=held["position"],
        norms=np.stack([[held[f"{norm}.weight"], held[f"{norm}.bias"]] for norm in (*norms, "final_norm")]),
        triple=np.stack([packed(triple(depth)) for depth in depths[:-1]]),
        output=stacked("output", depths[:-1]),
        feed_in=stacked("feed_in"),
        feed_in_bias=biases("feed_in"),
        feed_out=np.stack([held[f"layers.{depth}.feed_out"].ravel() for depth in depths]),
        feed_out_bias=biases("feed_out"),
        read_query=packed(held[f"{last}.query"]),
        read_key=np.stack([packed(each) for each in held[f"{last} read key"]]),
        read_value=np.stack([packed(each) for each in value]),
        read_output=packed(output.reshape(-1, d)),
        projection=packed(held["projection"]),
        projection_bias=held["projection.bias"],
    )
