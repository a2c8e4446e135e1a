"""Whether the session model could be run in fewer bits: how many impressions would still get the same citations.

The matrices of the layers are rounded to bfloat16, or to int8 with a scale for each column; everything else, the
activations too, stays float32: the best case of either. Citations are compared with those of the model as it is, once
with every run rounded, and once with the ablations alone. A session score that is off by more than the bundle's
tolerance is not the one that was served, and nothing may be said of its item.

Run: python -m bench.precision [--slates N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from bench.machine import describe, headline
from bench.pipeline import slates_of
from models.bundle import Bundle
from models.session.histories import Histories, Reading
from models.session.incremental import IncrementalInference, _arrange
from stream.explain.ablate import ablate
from stream.explain.decode import decode_records
from stream.explain.models import Models
from stream.explain.score import score
from stream.explain.slates import Slates
from stream.settings import BUNDLED_MODEL

Floats = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int64]

_BATCH: Final = 50
_KEPT: Final = ("item", "engagement", "position")
"""Tables that are read, not multiplied."""


def bfloat16(matrix: Floats) -> Floats:
    """Round to the nearest number with 8 significant bits, ties to even."""
    bits = np.ascontiguousarray(matrix).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def int8(matrix: Floats) -> Floats:
    """Round to one of 255 numbers, evenly spaced up to the largest of each column [..., depth, wide]."""
    scale = np.abs(matrix).max(axis=-2, keepdims=True) / 127
    return np.asarray(np.rint(matrix / np.where(scale > 0, scale, 1)) * scale, dtype=np.float32)


ROUNDINGS: Final[dict[str, Callable[[Floats], Floats]]] = {"bfloat16": bfloat16, "int8": int8}


@dataclass(frozen=True, slots=True)
class AblationsAlone(IncrementalInference):
    """Reads histories with exact weights and computes edited histories with rounded weights."""

    exact: IncrementalInference

    @classmethod
    def of(cls, exact: IncrementalInference, low: IncrementalInference) -> AblationsAlone:
        """Take the weights of edited histories from ``low``."""
        return cls(low.heads, low.dimension, low.weights, exact)

    def read(self, histories: Histories) -> Reading:
        """Run complete histories."""
        return self.exact.read(histories)


def rounded(bundle: Bundle, exact: IncrementalInference, rounding: Callable[[Floats], Floats]) -> IncrementalInference:
    """Round the matrices of a bundle's graph."""
    graph = onnx.load(bundle.session_onnx).graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    matrices = {name for name, values in held.items() if values.ndim > 1 and name not in _KEPT}
    return replace(
        exact, weights=_arrange({name: rounding(each) if name in matrices else each for name, each in held.items()})
    )


def cite(models: Models, batches: Sequence[Slates]) -> tuple[Columns, float]:
    """Citations of each impression, int64 [T, 2], and the share of impressions whose scores are the ones served.

    That is only counted: citations are given all the same.
    """
    cited, matches = [], []
    for slates in batches:
        scores = score(slates, models)
        matches.append(scores.matches)
        scores = replace(scores, matches=np.ones_like(scores.matches))
        cited.append(ablate("evidence", slates, scores, models).column)
    return np.concatenate(cited), float(np.concatenate(matches).mean())


def compare(bundle: Bundle, count: int) -> dict[str, dict[str, float]]:
    """Shares of impressions, by what is rounded."""
    models = Models.open(bundle, 1)
    slates = slates_of(bundle, 20, count)
    batches = [decode_records(slates[start : start + _BATCH], bundle) for start in range(0, len(slates), _BATCH)]
    exact = models.session.incremental
    if exact is None:
        raise SystemExit("this bundle's graph has no kernel, whose weights could be rounded")
    truth, _ = cite(models, batches)
    found = {}
    for name, rounding in ROUNDINGS.items():
        low = rounded(bundle, exact, rounding)
        for what, inference in (("every run", low), ("ablations", AblationsAlone.of(exact, low))):
            session = models.session.with_incremental(inference)
            cited, served = cite(replace(models, session=session), batches)
            found[f"{name}, {what}"] = {
                "same citations": float((cited == truth).all(axis=1).mean()),
                "same first": float((cited[:, 0] == truth[:, 0]).mean()),
                "scores as served": served,
            }
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLED_MODEL)
    parser.add_argument("--slates", type=int, default=1_000, help="slates of 20, each of another user (default: 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    found = compare(Bundle.load(arguments.bundle), arguments.slates)
    print(headline())
    print(f"{arguments.slates * 20:,} impressions\n")
    print(f"{'':24}" + "".join(f"{name:>18}" for name in next(iter(found.values()))))
    for name, shares in found.items():
        print(f"{name:24}" + "".join(f"{share:>17.2%} " for share in shares.values()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": describe(), "shares": found}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
