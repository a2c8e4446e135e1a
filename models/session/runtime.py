"""Runs the session model of a bundle, whoever exported it, on ONNX Runtime.

The contract of the graph:

- input ``item_index`` int64 [batch, length], 0 = padding on the left, newest event in the last column; optionally
  ``engagement_index``, the same shape; any length up to the manifest's max_length, or always its fixed_length;
- outputs ``session_vector`` float32 [batch, d] and ``attention`` float32 [batch, layers, heads, length], from the
  newest position; optionally ``without`` float32 [batch, length, d], the session vector with each event masked out;
- optionally an input ``want_without``, a boolean scalar with a default: false saves the work of ``without``;
- optionally an output ``state`` float32 [batch, length, s], all that later rows read of each row: of our own export,
  sessions that differ from one already run need then not be run whole (``models/session/incremental``);
- optionally the metadata ``blank_event``: the index after the last item, with the index after the last engagement, is
  then an event that says nothing but keeps its place.

The score of item i is ``vector @ item_vectors[i]``. An empty session is never shown to a model: it has the zero vector,
so every item scores 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from models.bundle import Bundle
from models.errors import BundleError, SessionInputError
from models.session.config import BLANK_EVENT
from models.session.incremental import Reruns

_EXTRAS = ("without", "state")
_OUTPUTS = {"session_vector": 2, "attention": 4} | dict.fromkeys(_EXTRAS, 3)  # name: rank

# What passes between the nodes of one run stays in a core's cache: so many events, or pairs of events where ``without``
# is asked for, padding included.
_EVENTS_PER_RUN, _PAIRS_PER_RUN = 1_000, 2_500

# A session is padded to the next multiple of this, whatever stands beside it: sums over its columns then round in one
# way only, and a session gives the same bits alone as in any batch. So an explanation can be made again exactly.
_WIDTH_STEP = 4


@dataclass(frozen=True, eq=False)
class SessionOutput:
    """What a session model says about a batch.

    vector is float32 [B, d]; attention float32 [B, layers, heads, L], from the newest event; without float32 [B, L, d],
    the vector with each event masked out (the vector itself at padding); state float32 [B, L, s], what later rows read
    of each row. The last two are None where the model brings none or they were not asked for.
    """

    vector: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]
    without: npt.NDArray[np.float32] | None = None
    state: npt.NDArray[np.float32] | None = None


class SessionModel:
    """An opened session model; safe to call from several threads."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        """Open the bundle's graph and try it; raises BundleError where it does not keep the contract."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised; onnxruntime would say it twice
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
        self.has_without = "without" in self._outputs
        self.state_size = self._state_size()
        self.has_blank = BLANK_EVENT in self._session.get_modelmeta().custom_metadata_map
        self.layers, self.heads = self._try()
        self.reruns = Reruns.load(bundle, self.heads)
        if self.reruns is not None:
            self.reruns.self_check(self)

    @property
    def dimension(self) -> int:
        """Width of a session vector, and of an item's."""
        return int(self._d)

    @property
    def max_length(self) -> int:
        """The most events that the model reads."""
        return self._bundle.manifest.max_length

    @property
    def blank_event(self) -> tuple[int, int]:
        """Item and engagement index of the event that says nothing, where the graph knows one (has_blank)."""
        return len(self._bundle.catalog) + 1, len(self._bundle.manifest.engagements) + 1

    def run(
        self,
        item_index: npt.NDArray[np.int64],
        engagement_index: npt.NDArray[np.int64],
        *,
        without: bool = True,
        state: bool = False,
        least_width: int = 0,
    ) -> SessionOutput:
        """Run a batch: int64 [B, L] each, left-padded with 0 (see left_pad), L from 0 to max_length.

        Of without and state, what is asked for is given if the model has it.

        A session gives the same bits alone as in any batch. least_width, at most max_length, is for trying out a graph:
        the columns that every session has at least, whatever its length.

        Raises SessionInputError for arrays that are no such batch, BundleError where the graph fails on one that is.
        """
        self._check_batch(item_index, engagement_index)
        engagement_index = np.where(item_index > 0, engagement_index, 0)
        batch, length = item_index.shape
        asked = (without and self.has_without, state and self.state_size > 0)
        extras = [name for name, wanted in zip(_EXTRAS, asked, strict=True) if wanted]
        widths = -(-(item_index > 0).sum(axis=1) // _WIDTH_STEP) * _WIDTH_STEP
        widths = np.where(widths > 0, np.maximum(np.minimum(widths, self.max_length), least_width), 0)
        lead = max(0, int(widths.max(initial=0)) - length)
        item_index, engagement_index = (np.pad(each, ((0, 0), (lead, 0))) for each in (item_index, engagement_index))
        length += lead
        vector = np.zeros((batch, self._d), dtype=np.float32)
        attention = np.zeros((batch, self.layers, self.heads, length), dtype=np.float32)
        sizes = {name: self.state_size if name == "state" else self._d for name in extras}
        made = {name: np.zeros((batch, length, size), dtype=np.float32) for name, size in sizes.items()}
        for part, width in _runs(widths, "without" in extras):
            cut = slice(length - width, None)
            got = self._call(item_index[part, cut], engagement_index[part, cut], extras)
            vector[part], attention[part, ..., cut] = got["session_vector"], got["attention"]
            for name, each in made.items():
                if name != "state":
                    each[part] = vector[part, None]
                each[part, cut] = got[name]
        return SessionOutput(vector, attention[..., lead:], **{name: each[:, lead:] for name, each in made.items()})

    def _call(
        self,
        item_index: npt.NDArray[np.int64],
        engagement_index: npt.NDArray[np.int64],
        extras: Sequence[str],
    ) -> dict[str, npt.NDArray[np.float32]]:
        length = item_index.shape[1]
        fixed = self._bundle.manifest.fixed_length
        if fixed is not None:
            padding = ((0, 0), (fixed - length, 0))
            item_index, engagement_index = np.pad(item_index, padding), np.pad(engagement_index, padding)
        batch, columns = item_index.shape
        feed: dict[str, Any] = {"item_index": item_index}
        if self.has_engagements:
            feed["engagement_index"] = engagement_index
        if "want_without" in self._inputs:
            feed["want_without"] = np.array("without" in extras)
        names = ["session_vector", "attention", *extras]
        try:
            got = dict(zip(names, self._session.run(names, feed), strict=True))
        except Exception as error:
            raise BundleError(
                f"session.onnx: expected it to run on item_index {list(item_index.shape)}, got {error}: export it with "
                "free batch and length, or give the manifest the fixed_length that it reads."
            ) from error
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(extras, (batch, columns, self._d))
        shapes |= {"session_vector": (batch, self._d), "attention": (batch, *got["attention"].shape[1:3], columns)}
        shapes |= {"state": (batch, columns, self.state_size)} if "state" in extras else {}
        for name, array in got.items():
            if array.shape != shapes[name] or array.dtype != np.float32 or not np.isfinite(array).all():
                finite = "" if np.isfinite(array).all() else ", not all finite"
                raise BundleError(
                    f"session.onnx: expected {name} float32 {list(shapes[name])} for item_index "
                    f"{list(item_index.shape)}, got {array.dtype} {list(array.shape)}{finite}: export it to the "
                    "contract."
                )
        if fixed is not None:
            got["attention"] = got["attention"][..., fixed - length :]
            got |= {name: got[name][:, fixed - length :] for name in extras}
        return got

    def _check_inputs(self) -> set[str]:
        inputs = {each.name: each.type for each in self._session.get_inputs()}
        optional = {each.name: each.type for each in self._session.get_overridable_initializers()}
        known = {"item_index": "tensor(int64)", "engagement_index": "tensor(int64)", "want_without": "tensor(bool)"}
        wrong = {name: kind for name, kind in inputs.items() if known.get(name) != kind}
        if "item_index" not in inputs or wrong:
            raise BundleError(
                "session.onnx: expected the input item_index int64, optionally engagement_index int64, got "
                f"{', '.join(f'{name} {kind}' for name, kind in inputs.items())}: name the inputs so when exporting."
            )
        return (set(inputs) | set(optional)) & set(known)

    def _check_outputs(self) -> set[str]:
        outputs = {each.name: each for each in self._session.get_outputs()}
        for name, rank in _OUTPUTS.items():
            if name not in outputs:
                if name in _EXTRAS:
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

    def _state_size(self) -> int:
        """Give the width of ``state``, 0 where the model brings none."""
        shapes = [each.shape for each in self._session.get_outputs() if each.name == "state"]
        if shapes and not isinstance(shapes[0][-1], int):
            raise BundleError(
                f"session.onnx: expected the output state [batch, length, s] with a known width s, got {shapes[0]}: "
                "export it so, or leave it out."
            )
        return int(shapes[0][-1]) if shapes else 0

    def _try(self) -> tuple[int, int]:
        """Run one and two events, alone and side by side; returns layers and heads."""
        items = np.array([[0, 1], [1, min(2, len(self._bundle.catalog))]], dtype=np.int64)
        if len(self._bundle.catalog) == 0 or self.max_length < 2:
            items = items[1:, :1]
        extras = [name for name in _EXTRAS if name in self._outputs]
        _, layers, heads, _ = self._call(items, (items > 0).astype(np.int64), extras)["attention"].shape
        return layers, heads

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
            ("engagement", engagement_index, len(self._bundle.manifest.engagements) + self.has_blank),
        ):
            if array.size and (array.min() < 0 or array.max() > most):
                raise SessionInputError(
                    f"expected {name} indices from 0 to {most}, got {array.min()} to {array.max()}: look them up in "
                    "the bundle."
                )


def _runs(widths: npt.NDArray[np.int64], wanted: bool) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Put sessions of one width together: their rows, and the width of each run; empty ones in none."""
    for width in np.unique(widths[widths > 0]).tolist():
        rows = np.flatnonzero(widths == width)
        most = max(1, _PAIRS_PER_RUN // width**2 if wanted else _EVENTS_PER_RUN // width)
        for start in range(0, len(rows), most):
            yield rows[start : start + most], width


def left_pad(rows: Sequence[npt.ArrayLike], max_length: int) -> npt.NDArray[np.int64]:
    """Lay sequences of indices, oldest first, into int64 [B, L], zeros on the left; only the newest max_length stay.

    L is the longest that remains.
    """
    kept = [np.asarray(row, dtype=np.int64)[-max_length:] for row in rows]
    length = max((len(row) for row in kept), default=0)
    padded = np.zeros((len(kept), length), dtype=np.int64)
    for row, values in zip(padded, kept, strict=True):
        if len(values):
            row[-len(values) :] = values
    return padded
