"""The models of one bundle, opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from models.attribution.treeshap import TreeShap
from models.bundle import Bundle
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel


@dataclass(frozen=True, slots=True)
class Models:
    """What scored the slates, if it was this bundle that did, and what takes its scores apart."""

    bundle: Bundle
    session: SessionModel
    reranker: Reranker
    treeshap: TreeShap

    @classmethod
    def open(cls, bundle: Bundle, threads: int = 1) -> Self:
        """Open a bundle's models; raises BundleError where one of them does not run."""
        reranker = Reranker.load(bundle)
        treeshap = TreeShap(reranker.booster)
        # Compiled now, so that the first slate does not wait for it.
        treeshap.warm_up()
        return cls(bundle, SessionModel(bundle, threads=threads), reranker, treeshap)
