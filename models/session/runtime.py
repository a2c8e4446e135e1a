"""The session model of a bundle: its graph, run by ONNX Runtime, and incremental inference where the graph allows it.

The contract of the graph, whoever exported it:

- input ``item_index`` int64 [batch, length], 0 = padding on the left, newest event in the last column; optionally
  ``engagement_index``, the same shape; any length up to the manifest's max_length, or always its fixed_length;
- output ``session_vector`` float32 [batch, d]; optionally ``attention`` float32 [batch, layers, heads, length], from
  the newest position, and ``without`` float32 [batch, length, d], the session vector with each event masked out;
- optionally an input ``want_without``, a boolean scalar with a default: false saves the work of ``without``;
- optionally an input ``event_mask`` bool [batch, length]: no later position attends to an event for which it is false;
- optionally an output ``without_estimate`` float32 [batch, length, d], a cheap approximation of the session vector
  without each event, by which events are proposed that are then measured; optionally an input ``want_estimate`` as
  above;
- optionally an output ``state`` float32 [batch, length, s], the KV cache: all that later positions read of each
  position. A graph of our own export that has it gets incremental inference (``models/session/incremental``);
- optionally the metadata ``blank_event``: the index after the last item, with the index after the last engagement, is
  then the blank event, whose embedding is zero but for its position.

The score of item i is ``vector @ item_vectors[i]``. What the vector of an empty session is, the manifest says
(:attr:`SessionModel.empty_vector`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from models.bundle import Bundle
from models.errors import BundleError, SessionInputError
from models.manifest import AblationName
from models.session.config import BLANK_EVENT
from models.session.histories import Histories, Reading
from models.session.incremental import IncrementalInference

_EXTRAS = ("without", "state", "without_estimate")
_OUTPUTS = {"session_vector": 2, "attention": 4} | dict.fromkeys(_EXTRAS, 3)  # name: rank
_REQUIRED = "session_vector"
_NOT_FINITE = (
    " (The softmax of a row whose attention is masked throughout, such as a row of padding, is not finite: let such a "
    "row attend to itself.)"
)

# Events in one run of the graph, or pairs of events where ``without`` is asked for, padding included: few enough that
# what passes between the nodes stays in a core's cache.
_EVENTS_PER_RUN, _PAIRS_PER_RUN = 1_000, 2_500

# A session is padded to the next multiple of this number, whatever the batch. So a sum over its columns always rounds
# in the same way, a session gives the same bits in every batch, and an explanation can be reproduced exactly.
_WIDTH_STEP = 4


@dataclass(frozen=True, eq=False)
class SessionOutput:
    """The outputs of the graph for a batch.

    vector is float32 [B, d]; attention float32 [B, layers, heads, L], from the newest event, None for a model without
    attention; without float32 [B, L, d], the vector with each event masked (the vector itself at padding); cache
    float32 [B, L, s], the KV cache; estimate float32 [B, L, d], an approximation of the vector without each event. The
    last three are None where the graph has no such output or the caller did not ask for it.
    """

    vector: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32] | None
    without: npt.NDArray[np.float32] | None = None
    cache: npt.NDArray[np.float32] | None = None
    estimate: npt.NDArray[np.float32] | None = None


class SessionModel:
    """An opened session model; safe to call from several threads."""

    def __init__(self, bundle: Bundle, threads: int = 1, *, incremental: bool = True) -> None:
        """Open the bundle's graph and try it; raises BundleError where the graph breaks the contract.

        threads are those of ONNX Runtime within one run; with incremental=False the graph alone is run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised; onnxruntime would log them as well
        try:
            # By path, since a graph may keep its weights in files beside it (pinned like all others).
            self._session = onnxruntime.InferenceSession(
                str(bundle.session_onnx), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BundleError(
                f"session.onnx: expected a graph that ONNX Runtime {onnxruntime.__version__} opens, got {error}: "
                "export the model again, with an opset that this release knows."
            ) from error
        self._bundle = bundle
        self._d = bundle.item_vectors.shape[1]
        self._inputs = self._check_inputs()
        self._outputs = self._check_outputs()
        self.has_engagements = "engagement_index" in self._inputs
        self.has_attention = "attention" in self._outputs
        self.has_without = "without" in self._outputs
        self.has_estimate = "without_estimate" in self._outputs
        self.has_event_mask = "event_mask" in self._inputs
        self.cache_size = self._cache_size()
        self.has_blank = BLANK_EVENT in self._session.get_modelmeta().custom_metadata_map
        self.substitutes = bundle.catalog.index(bundle.manifest.substitutes)
        self.layers, self.heads = self._try()
        self.empty_vector = self._empty_vector()
        self.incremental = IncrementalInference.load(bundle, self.heads) if incremental else None
        if self.incremental is not None:
            by_graph = partial(self._read, without=False, cache=True)
            self.incremental.self_check(by_graph, self.max_length)

    @property
    def dimension(self) -> int:
        """Width of a session vector, and of an item's."""
        return int(self._d)

    @property
    def max_length(self) -> int:
        """Number of events that the model reads at most."""
        return self._bundle.manifest.max_length

    @property
    def ablations(self) -> tuple[AblationName, ...] | None:
        """The ablations that the manifest demands; None for those that the graph allows."""
        return self._bundle.manifest.ablations

    @property
    def blank_event(self) -> tuple[int, int]:
        """Item and engagement index of the blank event, for a graph that has one (has_blank)."""
        return len(self._bundle.catalog) + 1, len(self._bundle.engagements) + 1

    def with_incremental(self, inference: IncrementalInference | None) -> SessionModel:
        """Return this model with other incremental inference, or, with None, on the graph alone."""
        model = copy(self)
        model.incremental = inference
        return model

    def read(self, histories: Histories) -> Reading:
        """Run each history once, by incremental inference where the model has it, else by the graph."""
        if self.incremental is not None:
            reading = self.incremental.read(histories)
            reading.vector[histories.length == 0] = self.empty_vector
            return reading
        return self._read(histories, without=True, cache=False)

    def _read(self, histories: Histories, *, without: bool, cache: bool) -> Reading:
        output = self.run(histories.item, histories.engagement, without=without, cache=cache, estimate=True)
        attention = None if output.attention is None else output.attention.mean(axis=(1, 2))
        return Reading(histories, output.vector, attention, output.cache, output.without, output.estimate)

    def run(
        self,
        item_index: npt.NDArray[np.int64],
        engagement_index: npt.NDArray[np.int64],
        *,
        without: bool = True,
        cache: bool = False,
        estimate: bool = False,
        event_mask: npt.NDArray[np.bool_] | None = None,
        least_width: int = 0,
    ) -> SessionOutput:
        """Run the graph on a batch: int64 [B, L] each, left-padded with 0 (see left_pad), L from 0 to max_length.

        without, cache and estimate ask for these outputs, which the graph may lack. event_mask bool [B, L] is false at
        events that no later position may attend to, for a graph that has this input (has_event_mask).

        A session gives the same bits in every batch. least_width, at most max_length, is for trying out a graph: every
        session is padded to this many columns at least.

        Raises SessionInputError for arrays that are no such batch, BundleError where the graph fails on one that is.
        """
        self._check_batch(item_index, engagement_index)
        engagement_index = np.where(item_index > 0, engagement_index, 0)
        batch, length = item_index.shape
        asked = zip(_EXTRAS, (without, cache, estimate), strict=True)
        extras = [name for name, wanted in asked if wanted and name in self._outputs]
        widths = -(-(item_index > 0).sum(axis=1) // _WIDTH_STEP) * _WIDTH_STEP
        widths = np.where(widths > 0, np.maximum(np.minimum(widths, self.max_length), least_width), 0)
        lead = max(0, int(widths.max(initial=0)) - length)
        item_index, engagement_index = (np.pad(each, ((0, 0), (lead, 0))) for each in (item_index, engagement_index))
        mask = None if event_mask is None else np.pad(event_mask, ((0, 0), (lead, 0)), constant_values=True)
        length += lead
        vector = np.tile(self.empty_vector, (batch, 1))
        attention = np.zeros((batch, self.layers, self.heads, length), dtype=np.float32)
        sizes = {name: self.cache_size if name == "state" else self._d for name in extras}
        made = {name: np.zeros((batch, length, size), dtype=np.float32) for name, size in sizes.items()}
        for part, width in _runs(widths, bool({"without", "without_estimate"} & set(extras))):
            cut = slice(length - width, None)
            masked = None if mask is None else mask[part, cut]
            got = self._call(item_index[part, cut], engagement_index[part, cut], extras, masked)
            vector[part] = got["session_vector"]
            if self.has_attention:
                attention[part, ..., cut] = got["attention"]
            for name, each in made.items():
                if name != "state":
                    each[part] = vector[part, None]
                each[part, cut] = got[name]
        cut_back = {name: each[:, lead:] for name, each in made.items()}
        seen = attention[..., lead:] if self.has_attention else None
        return SessionOutput(vector, seen, *map(cut_back.get, _EXTRAS))

    def _call(
        self,
        item_index: npt.NDArray[np.int64],
        engagement_index: npt.NDArray[np.int64],
        extras: Sequence[str],
        event_mask: npt.NDArray[np.bool_] | None = None,
    ) -> dict[str, npt.NDArray[np.float32]]:
        length = item_index.shape[1]
        fixed = self._bundle.manifest.fixed_length
        mask = np.ones(item_index.shape, dtype=np.bool_) if event_mask is None else event_mask
        if fixed is not None:
            padding = ((0, 0), (fixed - length, 0))
            item_index, engagement_index = np.pad(item_index, padding), np.pad(engagement_index, padding)
            mask = np.pad(mask, padding, constant_values=True)
        batch, columns = item_index.shape
        feed: dict[str, Any] = {"item_index": item_index}
        if self.has_engagements:
            feed["engagement_index"] = engagement_index
        if self.has_event_mask:
            feed["event_mask"] = mask
        wants = {f"want_{name.removeprefix('without_')}": np.array(name in extras) for name in _EXTRAS}
        feed |= {name: wanted for name, wanted in wants.items() if name in self._inputs}
        names = ["session_vector", *(["attention"] if self.has_attention else []), *extras]
        try:
            got = dict(zip(names, self._session.run(names, feed), strict=True))
        except Exception as error:
            raise BundleError(
                f"session.onnx: expected it to run on item_index {list(item_index.shape)}, got {error}: export it with "
                "free batch and length, or give the manifest the fixed_length that it reads."
            ) from error
        self._check_run(got, extras, batch, columns)
        if fixed is not None:
            if self.has_attention:
                got["attention"] = got["attention"][..., fixed - length :]
            got |= {name: got[name][:, fixed - length :] for name in extras}
        return got

    def _check_run(
        self, got: dict[str, npt.NDArray[np.float32]], extras: Sequence[str], batch: int, columns: int
    ) -> None:
        """Check shapes and values of what the graph computed for item_index [batch, columns]."""
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(extras, (batch, columns, self._d))
        shapes["session_vector"] = (batch, self._d)
        if self.has_attention:
            shapes["attention"] = (batch, *got["attention"].shape[1:3], columns)
        shapes |= {"state": (batch, columns, self.cache_size)} if "state" in extras else {}
        for name, array in got.items():
            if array.shape != shapes[name] or array.dtype != np.float32 or not np.isfinite(array).all():
                finite = "" if np.isfinite(array).all() else ", not all finite"
                raise BundleError(
                    f"session.onnx: expected {name} float32 {list(shapes[name])} for item_index "
                    f"{[batch, columns]}, got {array.dtype} {list(array.shape)}{finite}: export it to the "
                    f"contract.{'' if np.isfinite(array).all() else _NOT_FINITE}"
                )

    def _check_inputs(self) -> set[str]:
        inputs = {each.name: each.type for each in self._session.get_inputs()}
        optional = {each.name: each.type for each in self._session.get_overridable_initializers()}
        known = {"item_index": "tensor(int64)", "engagement_index": "tensor(int64)"}
        known |= dict.fromkeys(("event_mask", "want_without", "want_estimate"), "tensor(bool)")
        wrong = {name: kind for name, kind in inputs.items() if known.get(name) != kind}
        if "item_index" not in inputs or wrong:
            narrow = any(kind == "tensor(int32)" for kind in wrong.values())
            remedy = "cast the ids to int64 when exporting" if narrow else "name the inputs so when exporting"
            raise BundleError(
                "session.onnx: expected the input item_index int64, optionally engagement_index int64 and event_mask "
                "bool, got "
                f"{', '.join(f'{name} {kind}' for name, kind in inputs.items())}: {remedy}."
            )
        return (set(inputs) | set(optional)) & set(known)

    def _check_outputs(self) -> set[str]:
        outputs = {each.name: each for each in self._session.get_outputs()}
        for name, rank in _OUTPUTS.items():
            if name not in outputs:
                if name != _REQUIRED:
                    continue
                raise BundleError(
                    f"session.onnx: expected an output {name}, got {', '.join(outputs)}: name the outputs so when "
                    "exporting."
                )
            kind, shape = outputs[name].type, outputs[name].shape
            if kind != "tensor(float)" or (shape and len(shape) != rank):
                raise BundleError(
                    f"session.onnx: expected {name} as float32 of rank {rank}, got {kind} {shape}: export it so."
                )
            d = shape[-1] if shape and name not in {"attention", "state"} else self._d
            if isinstance(d, int) and d != self._d:
                raise BundleError(
                    f"session.onnx: expected {name} of width {self._d}, as item_vectors.npy has, got {d}: save the "
                    "item vectors of this very model."
                )
        return set(outputs) & set(_OUTPUTS)

    def _cache_size(self) -> int:
        """Return the width of the output ``state``, 0 where the graph has none."""
        shapes = [each.shape for each in self._session.get_outputs() if each.name == "state"]
        if shapes and not isinstance(shapes[0][-1], int):
            raise BundleError(
                f"session.onnx: expected the output state [batch, length, s] with a known width s, got {shapes[0]}: "
                "export it so, or leave it out."
            )
        return int(shapes[0][-1]) if shapes else 0

    def _try(self) -> tuple[int, int]:
        """Run a session of one event and one of two, in one batch; return the numbers of layers and heads."""
        items = np.array([[0, 1], [1, min(2, len(self._bundle.catalog))]], dtype=np.int64)
        if len(self._bundle.catalog) == 0 or self.max_length < 2:
            items = items[1:, :1]
        extras = [name for name in _EXTRAS if name in self._outputs]
        got = self._call(items, (items > 0).astype(np.int64), extras)
        return got["attention"].shape[1:3] if self.has_attention else (0, 0)

    def _empty_vector(self) -> npt.NDArray[np.float32]:
        """Return the vector of an empty session, float32 [d]: zero, the graph's for padding, or NaN if unknown."""
        convention = self._bundle.manifest.empty_session
        if convention != "run":
            return np.full(self._d, 0 if convention == "zero" else np.nan, dtype=np.float32)
        padding = np.zeros((1, min(_WIDTH_STEP, self.max_length)), dtype=np.int64)
        vector: npt.NDArray[np.float32] = self._call(padding, padding, ())["session_vector"][0]
        return vector

    def _check_batch(self, item_index: npt.NDArray[np.int64], engagement_index: npt.NDArray[np.int64]) -> None:
        self._check_indices(item_index, engagement_index)
        empty = item_index == 0
        if (empty[:, 1:] & ~empty[:, :-1]).any():
            raise SessionInputError(
                "expected padding (0) on the left only, got some after an event: leave unknown items "
                "out, then left_pad."
            )

    def _check_indices(self, item_index: npt.NDArray[np.int64], engagement_index: npt.NDArray[np.int64]) -> None:
        if item_index.ndim != 2 or item_index.shape != engagement_index.shape:
            raise SessionInputError(
                f"expected two arrays of one shape [batch, length], got {list(item_index.shape)} and "
                f"{list(engagement_index.shape)}: pad the sessions with left_pad."
            )
        if item_index.dtype != np.int64 or engagement_index.dtype != np.int64:
            raise SessionInputError(
                f"expected int64, got {item_index.dtype} and {engagement_index.dtype}: use numpy.int64."
            )
        if item_index.shape[1] > self.max_length:
            raise SessionInputError(
                f"expected at most {self.max_length} events, got {item_index.shape[1]}: keep the newest "
                "ones, as left_pad does."
            )
        for name, array, most in (
            ("item", item_index, len(self._bundle.catalog) + self.has_blank),
            ("engagement", engagement_index, len(self._bundle.engagements) + self.has_blank),
        ):
            if array.size and (array.min() < 0 or array.max() > most):
                raise SessionInputError(
                    f"expected {name} indices from 0 to {most}, got {array.min()} to {array.max()}: look them up in "
                    "the bundle."
                )


def _runs(widths: npt.NDArray[np.int64], wanted: bool) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Group sessions by width: yield the rows and the width of each run. Empty sessions are in no run."""
    for width in np.unique(widths[widths > 0]).tolist():
        rows = np.flatnonzero(widths == width)
        most = max(1, _PAIRS_PER_RUN // width**2 if wanted else _EVENTS_PER_RUN // width)
        for start in range(0, len(rows), most):
            yield rows[start : start + most], width


def left_pad(rows: Sequence[npt.ArrayLike], max_length: int) -> npt.NDArray[np.int64]:
    """Return sequences of indices, oldest first, as int64 [B, L], padded with zeros on the left.

    Of each, the newest max_length stay; L is the length of the longest that remains.
    """
    kept = [np.asarray(row, dtype=np.int64)[-max_length:] for row in rows]
    length = max((len(row) for row in kept), default=0)
    padded = np.zeros((len(kept), length), dtype=np.int64)
    for row, values in zip(padded, kept, strict=True):
        if len(values):
            row[-len(values) :] = values
    return padded
