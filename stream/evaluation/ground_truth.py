"""Ground truth: the effect of every session event on every item of the slate, measured by the reference in PyTorch.

The ground truth shares only two things with the pipeline: the bundle's files and the definition of the score drop that
the citation margin applies to. Weights are read out of the ONNX graph, ablations are run one at a time
(``models/attribution/reference.py``), and SHAP values are computed by LightGBM itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.attribution import reference
from models.bundle import Bundle
from models.reranker.runtime import read_trees
from models.session.restore import restore
from models.session.runtime import left_pad
from models.session.train import use_threads
from stream.explain.ablate.margin import RELATIVE, age_weights

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

IG_STEPS: Final = 16
"""Midpoints of the integral. In long sessions, 99 % of the top 5 are also in the top 5 by 512 midpoints (4: 95 %)."""

_TOP_EVENTS: Final = 5
_TOP_FEATURES: Final = 3
_BATCH: Final = 16
_ABLATIONS: Final = {"deletion": reference.deleted, "masking": reference.masked, "blanking": reference.zeroed}


@dataclass(frozen=True, eq=False)
class EventEffects:
    """Effects of the L events of a session on the N items of its slate.

    least_drop float64 [3, N, L]: the score drop that the citation margin applies to, under deletion, masking and
    blanking: the smaller of the score drop and the centred score drop / RELATIVE, multiplied by the age weight.
    centred_drop float64 [N, L]: the centred score drop under deletion. ig_top and ig_centred_top bool [N, L]: the event
    is among the top 5 by integrated gradients, raw and minus the slate's mean. watched bool [L]: the event is not a
    skip.
    """

    least_drop: Floats
    centred_drop: Floats
    ig_top: Bools
    ig_centred_top: Bools
    watched: Bools


class GroundTruth:
    """Measures the effects of session events on slates that one bundle ranked."""

    def __init__(self, bundle: Bundle) -> None:
        """Open a bundle.

        Raises:
            BundleError: the session model is not an export of this project.

        """
        use_threads(1)  # the matrices are small: more threads would wait for each other
        self._bundle = bundle
        self._net = restore(bundle)
        self._trees = read_trees(bundle.reranker_text.read_text(encoding="utf-8"))
        self._category = np.array([feature.is_category for feature in bundle.features])

    def effects(self, impressions: Sequence[Mapping[str, Any]]) -> list[EventEffects]:
        """Measure slates that all have the same number of items; one result per slate, in order.

        The bundle's catalogue must hold every event and item.
        """
        order = sorted(range(len(impressions)), key=lambda row: len(impressions[row]["session"]))
        measured: dict[int, EventEffects] = {}
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            measured |= zip(rows, self._batch([impressions[row] for row in rows]), strict=True)
        return [measured[row] for row in range(len(impressions))]

    def category_raises_score(self, impression: Mapping[str, Any], item: int) -> bool:
        """Whether a category feature is among the item's three largest SHAP values and raises the item's score."""
        shown = impression["items"][item]
        row = np.array([[*impression["user_features"], *shown["item_features"], shown["ranking_score"]]])
        contribution = np.asarray(self._trees.predict(row, pred_contrib=True, num_threads=1))[0, :-1]
        top = np.argsort(-np.abs(contribution), kind="stable")[:_TOP_FEATURES]
        return bool((self._category[top] & (contribution[top] > 0)).any())

    def _batch(self, impressions: Sequence[Mapping[str, Any]]) -> list[EventEffects]:
        catalog, known = self._bundle.catalog, self._bundle.manifest.engagement_names
        roles = {each.name: each.role for each in self._bundle.manifest.engagements}
        limit = self._bundle.manifest.max_length
        items = left_pad(
            [catalog.index([event["item_id"] for event in each["session"]]) for each in impressions], limit
        )
        engagements = left_pad(
            [[known.index(event["engagement"]) + 1 for event in each["session"]] for each in impressions], limit
        )
        slates = np.array([catalog.index([item["item_id"] for item in each["items"]]) for each in impressions])
        vectors = self._bundle.item_vectors[slates].astype(np.float64)  # [B, N, d]
        full_session = reference.session_vectors(self._net, items, engagements)
        least_drop, centred_drop = [], np.zeros(0)
        weight = age_weights(items.shape[1], self._bundle.manifest.citation_ageing)
        for kind, ablated in _ABLATIONS.items():
            drop = np.einsum("bld,bnd->bnl", full_session[:, None] - ablated(self._net, items, engagements), vectors)
            centred = drop - drop.mean(axis=1, keepdims=True)
            least_drop.append(np.minimum(drop, centred / RELATIVE) * weight)
            if kind == "deletion":
                centred_drop = centred
        gradients = reference.integrated_gradients(self._net, items, engagements, slates, steps=IG_STEPS).values
        gradients_centred = gradients - gradients.mean(axis=1, keepdims=True)
        measured = []
        for row, each in enumerate(impressions):
            events = slice(items.shape[1] - min(len(each["session"]), limit), None)
            measured.append(
                EventEffects(
                    least_drop=np.stack([table[row, :, events] for table in least_drop]),
                    centred_drop=centred_drop[row, :, events],
                    ig_top=_top_events(gradients[row, :, events]),
                    ig_centred_top=_top_events(gradients_centred[row, :, events]),
                    watched=np.array(
                        [roles[event["engagement"]] != "negative" for event in each["session"]], dtype=np.bool_
                    ),
                )
            )
        return measured


def _top_events(values: Floats) -> Bools:
    """Mark the five largest values of each row."""
    rank = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1)
    return np.asarray(rank < _TOP_EVENTS)
