"""The judge: what every event of a session truly does to every item of its slate, by the slow reference in PyTorch.

Nothing is shared with the pipeline but the bundle's files and what the margin is of: weights are read out of the graph,
removals are run one by one (``models/attribution/reference.py``), and SHAP values come from LightGBM itself.
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
from stream.explain.laboratory import RELATIVE, weights_by_age

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

IG_STEPS: Final = 16
"""Midpoints of the integral: of the five largest in long sessions, 99 % are those of 512 (of 4 midpoints, 95 %)."""

_TOP: Final = 5
_TOP_FEATURES: Final = 3
_BATCH: Final = 16
_REMOVALS: Final = {"deletion": reference.deleted, "masking": reference.masked, "blanking": reference.zeroed}


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the L events of a session do to the N items of its slate.

    least float64 [3, N, L]: an item's fall by deletion, masking and blanking, as the margin has it: in itself, or
    relative to the slate over RELATIVE, if that is smaller, weighed by the event's age; relative float64 [N, L]: the
    relative fall by deletion; ig_top and ig_centred_top bool [N, L]: the event is among the five largest by integrated
    gradients, raw and centred on the slate; watched bool [L]: it was no skip.
    """

    least: Floats
    relative: Floats
    ig_top: Bools
    ig_centred_top: Bools
    watched: Bools


class Judge:
    """Judges impressions that a bundle of ours has served."""

    def __init__(self, bundle: Bundle) -> None:
        """Open the bundle; raises BundleError where its graph is not our own export."""
        use_threads(1)  # small matrices: more threads would only wait for each other
        self._bundle = bundle
        self._net = restore(bundle)
        self._trees = read_trees(bundle.reranker_text.read_text(encoding="utf-8"))
        self._category = np.array([feature.is_category for feature in bundle.features])

    def judge(self, impressions: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Judge slates of one size, in order; every event and item must be known to the bundle."""
        order = sorted(range(len(impressions)), key=lambda row: len(impressions[row]["session"]))
        verdicts: dict[int, Verdict] = {}
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            verdicts |= zip(rows, self._batch([impressions[row] for row in rows]), strict=True)
        return [verdicts[row] for row in range(len(impressions))]

    def category_pushes_up(self, impression: Mapping[str, Any], item: int) -> bool:
        """Tell whether a category feature is among the item's three largest SHAP values and raises its score."""
        it = impression["items"][item]
        row = np.array([[*impression["user_features"], *it["item_features"], it["ranking_score"]]])
        contribution = np.asarray(self._trees.predict(row, pred_contrib=True, num_threads=1))[0, :-1]
        top = np.argsort(-np.abs(contribution), kind="stable")[:_TOP_FEATURES]
        return bool((self._category[top] & (contribution[top] > 0)).any())

    def _batch(self, impressions: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        catalog, known = self._bundle.catalog, self._bundle.manifest.engagements
        limit = self._bundle.manifest.max_length
        items = left_pad(
            [catalog.index([event["item_id"] for event in each["session"]]) for each in impressions], limit
        )
        received = left_pad(
            [[known.index(event["engagement"]) + 1 for event in each["session"]] for each in impressions], limit
        )
        slates = np.array([catalog.index([item["item_id"] for item in each["items"]]) for each in impressions])
        vectors = self._bundle.item_vectors[slates].astype(np.float64)  # [B, N, d]
        whole = reference.session_vectors(self._net, items, received)
        least, relative = [], np.zeros(0)
        weight = weights_by_age(items.shape[1], self._bundle.manifest.citation_ageing)
        for name, removal in _REMOVALS.items():
            raw = np.einsum("bld,bnd->bnl", whole[:, None] - removal(self._net, items, received), vectors)
            centred = raw - raw.mean(axis=1, keepdims=True)
            least.append(np.minimum(raw, centred / RELATIVE) * weight)
            if name == "deletion":
                relative = centred
        gradients = reference.integrated_gradients(self._net, items, received, slates, steps=IG_STEPS).values
        gradients_centred = gradients - gradients.mean(axis=1, keepdims=True)
        verdicts = []
        for row, each in enumerate(impressions):
            cut = slice(items.shape[1] - min(len(each["session"]), limit), None)
            verdicts.append(
                Verdict(
                    least=np.stack([table[row, :, cut] for table in least]),
                    relative=relative[row, :, cut],
                    ig_top=_largest(gradients[row, :, cut]),
                    ig_centred_top=_largest(gradients_centred[row, :, cut]),
                    watched=np.array([event["engagement"] != "skip" for event in each["session"]], dtype=np.bool_),
                )
            )
        return verdicts


def _largest(values: Floats) -> Bools:
    """Mark the five largest of each row."""
    place = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1)
    return np.asarray(place < _TOP)
