"""How personal the shipped bundle's recommendations are: ``python -m bench.basis``.

Prints the quantiles of ``personal_share`` on held-out impressions, the terciles among them, and what share of the items
each step of ``stream/explain/basis.py`` gets.
"""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from models.bundle import Bundle
from stream.explain.basis import POPULAR_BELOW, steps
from stream.explain.pipeline import Explainer
from stream.kafka.load import movielens, simulated

_SEED: Final = 20_000_000  # users that no model was trained on
_BATCH: Final = 50


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("models/bundles/streamrec"))
    parser.add_argument("--movielens", type=Path, help="a copy of MovieLens 100K, for a bundle trained on it")
    parser.add_argument("--slates", type=int, default=500)
    options = parser.parse_args()
    explainer = Explainer(bundle := Bundle.load(options.bundle))
    slates = (
        movielens(bundle, options.movielens, items=20, seed=_SEED)
        if options.movielens
        else simulated(bundle, items=20, seed=_SEED)
    )
    shares: list[float] = []
    for _ in range(-(-options.slates // _BATCH)):
        for explanation in explainer.explain(list(islice(slates, _BATCH))):
            found = (item["evidence"]["personal_share"] for item in explanation["items"])
            shares += [share for share in found if share is not None]
    print(f"{bundle.model_version}: personal_share of {len(shares):,} items")
    for name, quantile in (("least", 0.0), ("5 %", 0.05), ("lower tercile", 1 / 3), ("median", 0.5),
                           ("upper tercile", 2 / 3), ("95 %", 0.95), ("most", 1.0)):  # fmt: skip
        print(f"  {name:<14} {np.quantile(shares, quantile):.3f}")
    counts = Counter(steps(np.array(shares, dtype=np.float32)))
    print("  " + ", ".join(f"{name} {counts[name] / len(shares):.0%}" for name in ("personal", "mixed", "popular")))
    popular = [1 - share for share in shares if share < POPULAR_BELOW]
    print(f"  where it is called popular, {min(popular):.0%} or more of the score is not the user's")


if __name__ == "__main__":
    main()
