"""The deletion judge: every citation of explained impressions, judged by running the recommender again without it.

It works for a bundle of any origin, and shares neither incremental inference nor the tree kernels with the pipeline:
the graph of the bundle scores whole sessions of which one event is left out, and LightGBM ranks the slate. Only
citations are judged, that is whether what was said is true, not whether something better could have been said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.bundle import Bundle
from models.reranker.history_features import HistoryFeatures
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel, left_pad
from models.spread import Spread
from schemas.columnar import to_records
from stream.explain.pipeline import Explainer

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NOISE: Final = 1e-3
"""Difference between two runs of a model, in spreads of its scores, that is no difference."""

ROUNDING: Final = 8 * float(np.finfo(np.float32).eps)
"""Rounding of two float32 scores and of their difference, as a share of the scores."""


@dataclass
class Verdict:
    """What the judge found.

    slates and items: how many were explained; verified: items whose explanation cites events; citations: cited events;
    wrong_drops: of these, how many have another score drop than was stated; no_drops: whose deletion does not lower the
    score; wrong_ranks: after whose deletion the item has another rank than was stated; rejected: impressions that could
    not be explained; mismatched: items whose scores the bundle does not reproduce.
    """

    slates: int = 0
    items: int = 0
    mismatched: int = 0
    verified: int = 0
    citations: int = 0
    wrong_drops: int = 0
    no_drops: int = 0
    wrong_ranks: int = 0
    rejected: int = 0

    def record(self) -> dict[str, int]:
        """Return the figures for JSON."""
        return asdict(self)


class _Recommender:
    """Ranks slates for whole sessions with the bundle's graph and LightGBM."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._model = SessionModel(bundle, incremental=False)
        self._reranker = Reranker.load(bundle) if bundle.has_reranker else None
        self._history_features = HistoryFeatures.load(bundle)
        self.spread = Spread.of(bundle, self._model, self._reranker).session

    def known(self, impression: Mapping[str, Any]) -> tuple[list[int], list[int], list[int]]:
        """Return indices of items and engagements of the events that the bundle knows, and their places as sent."""
        bundle = self.bundle
        index = {each.name: number for number, each in enumerate(bundle.engagements, start=1)}
        other = 0 if bundle.manifest.engagements == bundle.engagements else len(bundle.engagements)
        items = bundle.catalog.index([event["item_id"] for event in impression["session"]]).tolist()
        kinds = [index.get(event["engagement"], other) for event in impression["session"]]
        there = [place for place, (item, kind) in enumerate(zip(items, kinds, strict=True)) if item and kind]
        return [items[place] for place in there], [kinds[place] for place in there], there

    def session_scores(self, sessions: Sequence[tuple[list[int], list[int]]], slate: Ints) -> Floats:
        """Score the slate for sessions of items and engagements: float32 [sessions, N]."""
        limit = self._model.max_length
        columns = (left_pad([each[part] for each in sessions], limit) for part in (0, 1))
        vectors = self._model.run(*columns, without=False).vector
        scores: Floats = vectors @ self.bundle.item_vectors[slate].T + self.bundle.item_bias[slate]
        return scores

    def ranks(self, impression: Mapping[str, Any], scores: Floats, left: tuple[list[int], list[int]]) -> list[int]:
        """Rank the slate's items by session scores float32 [N] and what is left of the session."""
        final = scores.astype(np.float64)
        if self._reranker is not None:
            rows = self._rows(impression, scores, left)
            final = np.asarray(self._reranker.booster.predict(rows, raw_score=True, num_threads=1))
        positions = [item["position"] for item in impression["items"]]
        order = np.lexsort((positions, -final.astype(np.float32)))
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(1, len(order) + 1)
        return [int(rank) for rank in ranks]

    def _rows(
        self, impression: Mapping[str, Any], scores: Floats, left: tuple[list[int], list[int]]
    ) -> npt.NDArray[np.float64]:
        rows = np.empty((len(scores), len(self.bundle.features)))
        shared = {owner: iter(impression[f"{owner}_features"]) for owner in ("user", "context")}
        own = [iter(item["item_features"]) for item in impression["items"]]
        for column, feature in enumerate(self.bundle.features):
            if feature.owner == "session":
                rows[:, column] = scores
            elif feature.owner == "item":
                rows[:, column] = [next(each) for each in own]
            else:
                rows[:, column] = next(shared[feature.owner])
        if self._history_features is not None:
            slate = self.bundle.catalog.index([item["item_id"] for item in impression["items"]])
            items, kinds = (left_pad([each] * len(slate), max(1, len(each))) for each in left)
            rows[:, self._history_features.columns] = self._history_features.values(items, kinds, slate)
        return rows


def judge(bundle: Bundle, batches: Iterable[pa.RecordBatch], policy: str = "evidence") -> Verdict:
    """Explain impressions, ``impression.avsc`` in Arrow, and judge each citation.

    Raises:
        BundleError: a model of the bundle does not run.

    """
    explainer, recommender, verdict = Explainer(bundle, policy, clock=lambda: 2.0**50), _Recommender(bundle), Verdict()
    for batch in batches:
        explained = explainer.run(batch)
        verdict.rejected += len(explained.rejected)
        impressions = to_records("impression", batch.take(pa.array(explained.rows)))
        for impression, explanation in zip(impressions, to_records("explanation", explained.explanations), strict=True):
            _judge(recommender, impression, explanation, verdict)
    return verdict


def _judge(
    recommender: _Recommender, impression: Mapping[str, Any], explanation: Mapping[str, Any], verdict: Verdict
) -> None:
    items = explanation["items"]
    verdict.slates += 1
    verdict.items += len(items)
    verdict.mismatched += sum(item["status"] == "model_mismatch" for item in items)
    verdict.verified += sum(bool(item["evidence"]["history"]) for item in items)
    cited = sorted({each["event"] for item in items for each in item["evidence"]["history"]})
    if not cited:
        return
    session, kinds, places = recommender.known(impression)
    slate = recommender.bundle.catalog.index([item["item_id"] for item in impression["items"]])
    without = [places.index(event) for event in cited]
    left = [(session[:at] + session[at + 1 :], kinds[:at] + kinds[at + 1 :]) for at in without]
    scores = recommender.session_scores([(session, kinds), *left], slate)
    noise = NOISE * recommender.spread + ROUNDING * float(np.abs(scores).max())
    ranks = {
        event: recommender.ranks(impression, after, rest)
        for event, after, rest in zip(cited, scores[1:], left, strict=True)
    }
    for row, item in enumerate(items):
        for citation in item["evidence"]["history"]:
            event = citation["event"]
            drop = float(scores[0, row] - scores[1 + cited.index(event), row])
            verdict.citations += 1
            verdict.wrong_drops += not abs(drop - citation["score_drop"]) <= noise
            verdict.no_drops += not drop > 0
            verdict.wrong_ranks += ranks[event][row] != citation["rank_without"]
