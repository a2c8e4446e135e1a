"""Compile every kernel of the pipeline into numba's cache, once: seconds that no start of a worker then takes.

An image's build runs ``python -m stream.explain.warm``. On a processor with other instructions than the build's, numba
compiles again at the first start, and keeps that.
"""

from __future__ import annotations

from models.bundle import Bundle
from models.data.simulator import simulate
from models.data.slates import impressions
from stream.explain.pipeline import Explainer
from stream.settings import BUNDLED_MODEL


def warm_up() -> None:
    """Explain a few simulated slates with the bundle that is shipped."""
    bundle = Bundle.load(BUNDLED_MODEL)
    Explainer(bundle).explain(list(impressions(bundle, simulate(4, 0), items=20)))


if __name__ == "__main__":
    warm_up()
