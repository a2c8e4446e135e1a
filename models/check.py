"""Checks of a bundle of any origin: what fits the contract, what does not, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.attribution.treeshap import TreeShap
from models.bundle import Bundle
from models.errors import BundleError
from models.exemplars.index import Exemplars
from models.reranker.runtime import Reranker
from models.selector.runtime import Selector
from models.session.runtime import SessionModel, left_pad

_SESSIONS = 12
_ROWS = 200
_SLATE = 20


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: name of the check.
        fits: whether the bundle passes; None for information that is neither right nor wrong.
        says: what was found and, if the bundle does not pass, what to do.

    """

    what: str
    fits: bool | None
    says: str


def check(directory: Path) -> list[Finding]:
    """Run all checks that need no real events; stop at the first part of the bundle that cannot be loaded."""
    findings: list[Finding] = []
    try:
        for finding in _checks(directory):
            findings.append(finding)  # noqa: PERF402 - findings before an error are kept
    except BundleError as error:
        findings.append(Finding(_stage(findings), fits=False, says=str(error)))
    return findings


_STAGES = ("bundle", "session model", "re-ranker", "exemplars", "selector")


def _stage(findings: list[Finding]) -> str:
    """Name the part of the bundle that could not be loaded."""
    done = {finding.what for finding in findings}
    return next((stage for stage in _STAGES if stage not in done), "scores")


def _checks(directory: Path) -> Iterator[Finding]:
    bundle = Bundle.load(directory)
    d = bundle.item_vectors.shape[1]
    yield Finding(
        "bundle",
        fits=True,
        says=f"{bundle.model_version}: {len(bundle.catalog):,} items, vectors of {d} dimensions, "
        f"{len(bundle.features)} features; the hashes of all {len(bundle.manifest.files)} files match",
    )
    model = SessionModel(bundle)
    yield Finding(
        "session model",
        fits=True,
        says=f"{model.layers} layers of {model.heads} heads, up to {model.max_length} events",
    )
    yield from _session_checks(bundle, model)
    reranker = Reranker.load(bundle)
    yield Finding("re-ranker", fits=True, says=f"{reranker.booster.num_trees()} trees, output {reranker.output}")
    yield from _reranker_checks(bundle, reranker)
    yield _exemplars(Exemplars.load(bundle))
    yield _selector(Selector.load(bundle))


def _session_checks(bundle: Bundle, model: SessionModel) -> Iterator[Finding]:
    random = np.random.default_rng(0)
    width = model.max_length
    lengths = [1, 2, 3, width, *(int(n) for n in random.integers(1, width + 1, _SESSIONS - 4))]
    lengths = [min(length, width) for length in lengths]
    items = [random.integers(1, len(bundle.catalog) + 1, length) for length in lengths]
    engagements = [random.integers(1, len(bundle.manifest.engagements) + 1, length) for length in lengths]
    batch = model.run(left_pad(items, width), left_pad(engagements, width), least_width=width)
    singles = [model.run(left_pad([i], width), left_pad([e], width)) for i, e in zip(items, engagements, strict=True)]
    candidates = bundle.item_vectors[1 + random.permutation(len(bundle.catalog))[:_SLATE]]
    tolerance = bundle.manifest.score_tolerance

    error = max(
        _largest_difference(candidates, batch.vector[row], single.vector[0]) for row, single in enumerate(singles)
    )
    yield Finding(
        "padding",
        fits=error <= tolerance,
        says=f"scores with little and with much padding differ by up to {error:.1e} (tolerance {tolerance:g})"
        + ("" if error <= tolerance else ": the graph attends to padding; mask it, or set the manifest's fixed_length"),
    )
    repeated = model.run(left_pad(items, width), left_pad(engagements, width), without=False)
    error = _largest_difference(candidates, batch.vector, repeated.vector)
    yield Finding(
        "repetition",
        fits=error <= tolerance,
        says=f"scores of two runs differ by up to {error:.1e} (tolerance {tolerance:g})"
        + ("" if error <= tolerance else ": the graph may contain dropout; export the model in inference mode"),
    )
    yield _attention(batch.attention, np.array(lengths))
    yield _without(bundle, model, items, engagements)
    yield Finding(
        "blank event",
        fits=None,
        says="supported: citations are confirmed by masking, deletion and blanking"
        if model.has_blank
        else "not supported: citations are confirmed by masking and deletion, not by blanking",
    )
    if not model.has_engagements:
        yield Finding("engagements", fits=None, says="the session model does not read engagements, only items")


def _attention(attention: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]) -> Finding:
    padding = np.arange(attention.shape[3]) < attention.shape[3] - lengths[:, None]
    total = attention.sum(axis=3)
    on_padding = float(np.abs(attention * padding[:, None, None]).max())
    fits = bool(attention.min() >= 0 and total.max() <= 1.001 and on_padding <= 1e-6)
    return Finding(
        "attention",
        fits=fits,
        says=f"minimum {attention.min():.3f}, largest sum {total.max():.3f}, on padding up to {on_padding:.1e}"
        + ("" if fits else ": export the weights of the newest row after the softmax, with padding masked"),
    )


def _without(
    bundle: Bundle, model: SessionModel, items: list[npt.NDArray[np.int64]], engagements: list[npt.NDArray[np.int64]]
) -> Finding:
    if not model.has_without:
        return Finding(
            "without", fits=None, says="not in the graph: effects of events come from deletion runs, which are slower"
        )
    columns = left_pad(items, model.max_length), left_pad(engagements, model.max_length)
    without = model.run(*columns).without
    if without is None:
        raise BundleError("session.onnx: expected the output without, got none: export the session model again.")
    padding = columns[0] == 0
    vectors = model.run(*columns, without=False).vector
    error = float(np.abs((without - vectors[:, None]) * padding[:, :, None]).max())
    effect = float(np.abs((without - vectors[:, None]) * ~padding[:, :, None]).max())
    fits = error <= bundle.manifest.score_tolerance and effect > 0
    return Finding(
        "without",
        fits=fits,
        says=f"in the graph; masking padding changes a vector by up to {error:.1e}, masking an event by {effect:.1e}"
        + ("" if fits else ": without[b, j] must be the session vector with column j masked, also where j is padding"),
    )


def _reranker_checks(bundle: Bundle, reranker: Reranker) -> Iterator[Finding]:
    X = np.random.default_rng(0).normal(size=(_ROWS, len(bundle.features))) * 50
    X[::7] = np.nan
    raw, score = reranker.raw(X), reranker.score(X)
    fits = bool(np.isfinite(score).all() and (reranker.output == "raw" or (score.min() >= 0 and score.max() <= 1)))
    yield Finding(
        "scores",
        fits=fits,
        says=f"from {score.min():.3f} to {score.max():.3f} on {_ROWS} random rows, some with all values missing"
        + ("" if fits else f": expected {reranker.output} scores; correct reranker_output in the manifest"),
    )
    residual = float(np.abs(TreeShap(reranker.booster).contributions(X).sum(axis=1) - raw).max())
    yield Finding(
        "contributions",
        fits=residual <= 1e-6 * max(1.0, float(np.abs(raw).max())),
        says=f"SHAP values sum to the raw score within {residual:.1e}",
    )
    category = [feature.name for feature in bundle.features if feature.is_category]
    yield Finding(
        "category features",
        fits=None,
        says=", ".join(category) if category else "none: no explanation will be of the type category_match",
    )


def _exemplars(found: Exemplars | None) -> Finding:
    if found is None or not len(found.users):
        return Finding("exemplars", fits=None, says="none: only the user's own similar moments are shown")
    return Finding(
        "exemplars",
        fits=True,
        says=f"{len(found.users):,} moments, each shared by at least {found.users.min():,} users",
    )


def _selector(found: Selector | None) -> Finding:
    if found is None:
        return Finding("selector", fits=None, says="none: the policy learned is not available")
    return Finding("selector", fits=True, says=f"learned@{found.version}, explores in {found.exploration:.1%} of items")


def _largest_difference(
    candidates: npt.NDArray[np.float32], one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]
) -> float:
    """Return the largest absolute difference between the candidates' scores under two (batches of) session vectors."""
    return float(np.abs((one - other) @ candidates.T).max())
