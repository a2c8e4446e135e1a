"""The models of one bundle, opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from models.attribution.treeshap import TreeShap
from models.bundle import Bundle
from models.check import require, reranker_checks, session_checks
from models.exemplars.index import Exemplars
from models.reranker.history_features import HistoryFeatures
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel
from models.spread import Spread

_PROBES: Final = 100


@dataclass(frozen=True, slots=True)
class Models:
    """What scored the slates, if it was this bundle that did, and what takes its scores apart.

    reranker and treeshap are None for a bundle without a re-ranker; history_features for one that does not say how the
    features that derive from the history are computed.
    """

    bundle: Bundle
    session: SessionModel
    reranker: Reranker | None
    treeshap: TreeShap | None
    history_features: HistoryFeatures | None
    spread: Spread
    exemplars: Exemplars | None

    @classmethod
    def open(cls, bundle: Bundle, threads: int = 1) -> Self:
        """Open a bundle's models.

        Raises:
            BundleError: one of them does not run, or not as it should.
            UnsupportedModel, ContributionMismatch: the re-ranker's trees cannot be explained exactly.

        """
        session = SessionModel(bundle, threads=threads)
        reranker, treeshap = _open_reranker(bundle) if bundle.has_reranker else (None, None)
        spread = Spread.of(bundle, session, reranker)
        require(session_checks(bundle, session, spread))
        history_features = HistoryFeatures.load(bundle)
        return cls(bundle, session, reranker, treeshap, history_features, spread, Exemplars.load(bundle))


def _open_reranker(bundle: Bundle) -> tuple[Reranker, TreeShap]:
    """Compile the kernels and compare them with LightGBM now: the first slate neither waits nor finds out."""
    reranker = Reranker.load(bundle)
    treeshap = TreeShap(reranker.booster)
    treeshap.warm_up()
    probes = _probes(len(bundle.features))
    treeshap.self_check(probes)
    reranker.self_check(probes)
    require(reranker_checks(bundle, reranker, treeshap))
    return reranker, treeshap


def _probes(features: int) -> npt.NDArray[np.float64]:
    """Rows of magnitudes from 0.01 to 10,000, a tenth of the values missing: float64 [n, features]."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(_PROBES, features)) * 10.0 ** random.uniform(-2, 4, (_PROBES, features))
    rows[random.random(rows.shape) < 0.1] = np.nan
    return rows
