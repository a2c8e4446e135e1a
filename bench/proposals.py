"""What proposing events by approximate masking costs in citations, beside exact masking, on held-out slates.

Either way an event is cited only when exact masking, deletion and blanking confirm it; a worse proposal can only miss.

Run: python -m bench.proposals [--slates N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.machine import describe, headline
from bench.pipeline import slates_of
from models.bundle import Bundle
from models.session.runtime import SessionModel
from stream.explain.ablate import ablate
from stream.explain.decode import decode_records
from stream.explain.models import Models
from stream.explain.score import score
from stream.settings import BUNDLED_MODEL

_BATCH = 100


def compare(models: Models, slates: Sequence[Any]) -> dict[str, float]:
    """Share of impressions with a citation and mean drop of the first, by either proposal, and how often they agree."""
    exact = replace(models, session=SessionModel(models.bundle, incremental=False))
    found: list[tuple[npt.NDArray[Any], ...]] = []
    for start in range(0, len(slates), _BATCH):
        columns = decode_records(slates[start : start + _BATCH], models.bundle)
        ours, truth = (ablate("evidence", columns, score(columns, each), each) for each in (models, exact))
        found.append((ours.column[:, 0], truth.column[:, 0], ours.drop_centred[:, 0], truth.drop_centred[:, 0]))
    near, best, near_drop, best_drop = (np.concatenate(each) for each in zip(*found, strict=True))
    both = (near >= 0) & (best >= 0)
    return {
        "impressions": len(near),
        "cited": float((near >= 0).mean()),
        "cited, proposed exactly": float((best >= 0).mean()),
        "same first event": float((near == best).mean()),
        "share of the drop": float(near_drop[both].mean() / best_drop[both].mean()),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLED_MODEL)
    parser.add_argument("--slates", type=int, default=2_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    models = Models.open(Bundle.load(arguments.bundle))
    figures = compare(models, slates_of(models.bundle, 20, arguments.slates))
    print(headline())
    for name, value in figures.items():
        print(f"{name:28}{value:>12,.4f}" if value <= 1 else f"{name:28}{value:>12,.0f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": describe(), "figures": figures}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
