"""Reading sessions, and taking them up again: what the model would say had one event been other.

The transformer looks back only. Where a history differs from one that was read from some event on, everything before
stands in that reading's ``state``, and only the rows behind are computed: five of twenty on average, one if the event
is only hidden from the newest row. A batch of slates has a thousand such runs, each too small for ONNX Runtime, which
spent most of their time between the matrix products. So they have a kernel of their own, which reads the weights of the
exported graph. The sessions themselves go through it, too: what is compared is then computed in the same way, and of
the wide layer, where few numbers are not zero, only those are multiplied. That it says what the graph says is checked
whenever a bundle is opened (:meth:`Reruns.self_check`); a graph of another origin is run by ONNX Runtime alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from models.bundle import Bundle
from models.errors import BundleError, SessionInputError
from models.session.incremental.kernel import BEGIN, GAP, KNOWN, LAST, MOVED, OWN, READ, Told, rerun
from models.session.incremental.product import LANES, STEP, packed

if TYPE_CHECKING:
    from models.session.runtime import SessionModel

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_TOLERANCE: Final = 1e-4
_PROBES: Final = 24


class Weights(NamedTuple):
    """What the kernel reads: matrices packed (``product.packed``), one row a layer or head; d a row of a session.

    item float32 [items + 2, d] and engagement float32 [engagements + 2, d], scaled, each with the blank event behind
    the last; position [max_length, d]; norms [2 layers + 1, 2, d], scale and shift; triple [layers - 1, 3 d d], for
    queries, keys and values; feed_out [layers, d_ff d] as it is, since few of its rows are read. Of the last layer,
    read_key [heads, ...] holds W_k of each head, by which a query meets the rows as they are, and read_value
    [heads, ...] W_v of each head, its columns padded to a multiple of 16.
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
class Reruns:
    """The kernel with the weights of one bundle; safe to call from several threads."""

    heads: int
    dimension: int
    weights: Weights

    @classmethod
    def load(cls, bundle: Bundle, heads: int) -> Reruns | None:
        """Read the weights out of a bundle's graph; None for a graph of another origin, or a size without a kernel."""
        graph = onnx.load(bundle.session_onnx).graph
        held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        try:
            weights = _arrange(held)
        except KeyError:
            return None
        d, d_ff = weights.projection_bias.shape[0], weights.feed_in_bias.shape[1]
        if d % LANES or d_ff % LANES or d // heads % STEP:
            return None
        return cls(heads, d, weights)

    def vectors(self, state: Floats, item: Ints, engagement: Ints, runs: Ints) -> Floats:
        """Session vectors of runs, float32 [n, d].

        state float32 [K, W, s] is that of sessions of at most W events; item and engagement int64 [n, W] hold the runs'
        own events, in the columns that :func:`plan` says; runs int64 [n, 7] is what it returned.
        """
        told = self._told(len(runs), 0, 0)
        if len(runs):
            # Runs of one session share most of what enters the first layer.
            order = np.argsort(runs[:, READ], kind="stable")
            rerun(told, np.ascontiguousarray(state), runs[order], order, item, engagement, self.heads, self.weights)
        return told.vector

    def read(self, item: Ints, engagement: Ints, length: Ints) -> Told:
        """Run whole sessions: vector [n, d], state [n, W, s] and attention [n, W], all zeros for an empty session.

        item and engagement int64 [n, W] hold the newest `length` events, int64 [n], on the right. Raises
        SessionInputError for sessions that are longer than the model reads.
        """
        count, width = item.shape
        if int(length.max(initial=0)) > len(self.weights.position):
            raise SessionInputError(
                f"expected at most {len(self.weights.position)} events, got {length.max()}: keep the newest ones."
            )
        told = self._told(count, count, width)
        if count:
            order, begin = np.arange(count), width - length
            runs = plan(order, begin, np.zeros_like(begin), length, width, np.full_like(begin, -1))
            runs[:, KNOWN] = runs[:, OWN] = begin
            nothing = np.zeros((1, 1, told.state.shape[2]), dtype=np.float32)
            rerun(told, nothing, runs, order, item, engagement, self.heads, self.weights)
        return told

    def _told(self, runs: int, whole: int, width: int) -> Told:
        size = (2 * len(self.weights.feed_in_bias) - 1) * self.dimension
        shapes = (runs, self.dimension), (whole, width, size), (whole, width)
        return Told(*(np.zeros(shape, dtype=np.float32) for shape in shapes))

    def self_check(self, model: SessionModel) -> float:
        """Compare with whole runs of the graph, on random sessions cut at random, and return the largest difference.

        Raises:
            BundleError: they differ by more than float noise, relative to the largest number of a vector.

        """
        random = np.random.default_rng(0)
        items, kinds = len(self.weights.item) - 2, len(self.weights.engagement) - 2
        width = min(model.max_length, 24)
        length = random.integers(1, width + 1, _PROBES)
        there = np.arange(width) >= width - length[:, None]
        item = np.where(there, random.integers(1, items + 1, there.shape), 0)
        engagement = np.where(there, random.integers(1, kinds + 1, there.shape), 0)
        whole = model.run(item, engagement, without=False, state=True)
        if whole.state is None:
            raise BundleError("session.onnx: expected the output `state` of our own export, got none: export it again.")
        kept = width - 1 - (random.random(_PROBES) * length).astype(np.int64)
        other = np.where(np.arange(width) >= kept[:, None], random.integers(1, items + 1, there.shape), item)
        runs = plan(np.arange(_PROBES), kept, np.zeros_like(kept), length, width, np.full_like(kept, -1))
        read = self.read(item, engagement, length)
        pairs = (
            (read.vector, whole.vector),
            (read.state * there[..., None], whole.state * there[..., None]),
            (read.attention, whole.attention.mean(axis=(1, 2))),
            (self.vectors(read.state, other, engagement, runs), model.run(other, engagement, without=False).vector),
        )
        worst = max(
            float(np.abs(ours - theirs).max()) / max(1.0, float(np.abs(theirs).max())) for ours, theirs in pairs
        )
        if not worst <= _TOLERANCE:
            raise BundleError(
                "session.onnx: expected sessions that are read, and taken up again, to say what the graph says, got a "
                f"difference of {worst:g}: do not serve explanations of this model, and report it."
            )
        return worst


def plan(row: Ints, kept: Ints, moved: Ints, length: Ints, width: int, hidden: Ints) -> Ints:
    """Say how to run histories, `width` columns wide with `length` events each, that differ from those read: [n, 7].

    What stands before column `kept` of history `row` also stands in them, `moved` columns to the right; all int64 [n].
    ``hidden`` is a column that keeps its place and is there for nobody, -1 for none: the first that differs, or any
    known one.
    """
    runs = np.empty((len(row), 7), dtype=np.int64)
    known = kept + moved
    runs[:, READ], runs[:, MOVED] = row, moved
    runs[:, BEGIN], runs[:, LAST] = width - length, width
    # Somebody has to ask: where all is known, the newest row is computed again.
    runs[:, KNOWN] = np.minimum(known, width - 1)
    runs[:, OWN] = np.minimum(known + (hidden == known), width - 1)
    runs[:, GAP] = np.where(hidden == known, -1, hidden)
    return runs


def _arrange(held: Mapping[str, Floats]) -> Weights:
    """Lay out the constants of a graph that ``models/session/export.py`` wrote; raises KeyError for any other."""
    layers = 1 + max((int(name.split(".")[1]) for name in held if re.match(r"layers\.\d+\.", name)), default=0)
    depths, last = range(layers), f"layers.{layers - 1}"
    norms = [f"layers.{depth}.{part}" for depth in depths for part in ("attention_norm", "feed_norm")]
    value = held[f"{last} read value"]
    heads, d, width = value.shape
    beside = -width % LANES  # columns, so that each head has whole panels
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
