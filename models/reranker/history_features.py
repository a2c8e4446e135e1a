"""Features that derive from the history, computed again for an edited history by a graph of the bundle's owner.

``history_features.onnx`` has the input ``item_index`` int64 [n, L], whole sessions, left-padded with 0, the newest
event last; optionally ``engagement_index`` int64 [n, L] and ``candidate_index`` int64 [n], the item that is scored; and
the output ``features`` float32 [n, K], the K features of the bundle that are marked ``is_history_derived``, in order.
"""

from __future__ import annotations

from typing import Final, Self

import numpy as np
import numpy.typing as npt
import onnxruntime

from models.bundle import HISTORY_FEATURES_FILE, Bundle
from models.errors import BundleError

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

TOLERANCE: Final = 1e-4
"""Relative difference (absolute below 1) up to which a feature that was sent counts as the one that is computed."""

_INPUTS: Final = ("item_index", "engagement_index", "candidate_index")


class HistoryFeatures:
    """The graph that computes history-derived features; safe to call from several threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Open the graph and try it; raises BundleError where it breaks the contract."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised; onnxruntime would log them as well
        path = str(bundle.path / HISTORY_FEATURES_FILE)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(
                f"{HISTORY_FEATURES_FILE}: expected a graph that ONNX Runtime {onnxruntime.__version__} opens, got "
                f"{error}: export it again, with an opset that this release knows."
            ) from error
        #: Which of the bundle's features the graph computes, int64 [K].
        self.columns: Ints = np.flatnonzero([feature.is_history_derived for feature in bundle.features])
        self._inputs = {each.name for each in self._session.get_inputs()}
        outputs = [each.name for each in self._session.get_outputs()]
        if "item_index" not in self._inputs or not self._inputs <= set(_INPUTS) or "features" not in outputs:
            raise BundleError(
                f"{HISTORY_FEATURES_FILE}: expected the input item_index, optionally {' and '.join(_INPUTS[1:])}, and "
                f"the output features, got {', '.join(sorted(self._inputs))} and {', '.join(outputs)}: name them so "
                "when exporting."
            )
        one = np.ones((2, 3), dtype=np.int64)
        self.values(one, one, one[:, 0])

    @classmethod
    def load(cls, bundle: Bundle) -> Self | None:
        """Open the graph of a bundle; None if the bundle has none."""
        return cls(bundle) if HISTORY_FEATURES_FILE in bundle.manifest.files else None

    def values(self, item_index: Ints, engagement_index: Ints, candidate_index: Ints) -> Doubles:
        """Compute the features of n candidates with whole sessions, int64 [n, L] and [n]: float64 [n, K]."""
        given = dict(zip(_INPUTS, (item_index, engagement_index, candidate_index), strict=True))
        try:
            [features] = self._session.run(["features"], {name: given[name] for name in self._inputs})
        except Exception as error:
            raise BundleError(
                f"{HISTORY_FEATURES_FILE}: expected it to run on item_index {list(item_index.shape)}, got {error}: "
                "export it with free batch and length."
            ) from error
        if features.shape != (len(item_index), len(self.columns)):
            raise BundleError(
                f"{HISTORY_FEATURES_FILE}: expected features [{len(item_index)}, {len(self.columns)}], one column for "
                f"each feature that is_history_derived, got {list(features.shape)}: export it so."
            )
        return np.asarray(features, dtype=np.float64)

    def agree(self, sent: Doubles, values: Doubles) -> npt.NDArray[np.bool_]:
        """Whether the features that were sent, float64 [n, K], are those that were computed: bool [n]."""
        close = np.isclose(values, sent, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        return np.asarray(close.all(axis=1))
