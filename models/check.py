"""Tries out a bundle, whoever made it: what fits, what does not, and why."""

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
    """One thing that was looked at: fits is None for what is neither right nor wrong, but good to know."""

    what: str
    fits: bool | None
    says: str


def check(directory: Path) -> list[Finding]:
    """Look at everything that can be looked at without real events; stops where nothing further can be."""
    findings: list[Finding] = []
    try:
        for finding in _checks(directory):
            findings.append(finding)  # noqa: PERF402 - what was found before an error counts
    except BundleError as error:
        findings.append(Finding(_stage(findings), fits=False, says=str(error)))
    return findings


_STAGES = ("bundle", "session model", "re-ranker", "exemplars", "selector")


def _stage(findings: list[Finding]) -> str:
    """Name what could not even be opened."""
    done = {finding.what for finding in findings}
    return next((stage for stage in _STAGES if stage not in done), "scores")


def _checks(directory: Path) -> Iterator[Finding]:
    bundle = Bundle.load(directory)
    d = bundle.item_vectors.shape[1]
    yield Finding(
        "bundle",
        fits=True,
        says=f"{bundle.model_version}: {len(bundle.catalog):,} items, vectors of {d}, {len(bundle.features)} features; "
        f"all {len(bundle.manifest.files)} files have their hashes",
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
    most = model.max_length
    lengths = [1, 2, 3, most, *(int(n) for n in random.integers(1, most + 1, _SESSIONS - 4))]
    lengths = [min(length, most) for length in lengths]
    items = [random.integers(1, len(bundle.catalog) + 1, length) for length in lengths]
    received = [random.integers(1, len(bundle.manifest.engagements) + 1, length) for length in lengths]
    together = model.run(left_pad(items, most), left_pad(received, most), least_width=most)
    alone = [model.run(left_pad([i], most), left_pad([e], most)) for i, e in zip(items, received, strict=True)]
    candidates = bundle.item_vectors[1 + random.permutation(len(bundle.catalog))[:_SLATE]]
    tolerance = bundle.manifest.score_tolerance

    apart = max(_apart(candidates, together.vector[row], single.vector[0]) for row, single in enumerate(alone))
    yield Finding(
        "padding",
        fits=apart <= tolerance,
        says=f"scores with little and with much padding differ by up to {apart:.1e} (tolerance {tolerance:g})"
        + (
            ""
            if apart <= tolerance
            else ": the graph attends to its padding; mask it, or set the manifest's fixed_length"
        ),
    )
    again = model.run(left_pad(items, most), left_pad(received, most), without=False)
    apart = _apart(candidates, together.vector, again.vector)
    yield Finding(
        "repetition",
        fits=apart <= tolerance,
        says=f"scores of two runs differ by up to {apart:.1e} (tolerance {tolerance:g})"
        + ("" if apart <= tolerance else ": is there dropout left in the graph? Export it in inference mode"),
    )
    yield _attention(together.attention, np.array(lengths))
    yield _without(bundle, model, items, received)
    yield Finding(
        "blank event",
        fits=None,
        says="known: what is cited survives masking, deletion and blanking"
        if model.has_blank
        else "not known: what is cited survives masking and deletion, but is not tried by blanking",
    )
    if not model.has_engagements:
        yield Finding("engagements", fits=None, says="the model does not read what users did with the items")


def _attention(attention: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]) -> Finding:
    padding = np.arange(attention.shape[3]) < attention.shape[3] - lengths[:, None]
    total = attention.sum(axis=3)
    on_padding = float(np.abs(attention * padding[:, None, None]).max())
    fits = bool(attention.min() >= 0 and total.max() <= 1.001 and on_padding <= 1e-6)
    return Finding(
        "attention",
        fits=fits,
        says=f"from {attention.min():.3f}, in sum up to {total.max():.3f}, on padding up to {on_padding:.1e}"
        + ("" if fits else ": export the weights after the softmax, from the newest row, with padding masked"),
    )


def _without(
    bundle: Bundle, model: SessionModel, items: list[npt.NDArray[np.int64]], received: list[npt.NDArray[np.int64]]
) -> Finding:
    if not model.has_without:
        return Finding("without", fits=None, says="not in the graph: effects of events come from deletion runs, slower")
    most = model.max_length
    got = model.run(left_pad(items, most), left_pad(received, most)).without
    if got is None:
        raise BundleError("session.onnx: expected its output without, got none: export it again.")
    padding = left_pad(items, most) == 0
    vectors = model.run(left_pad(items, most), left_pad(received, most), without=False).vector
    apart = float(np.abs((got - vectors[:, None]) * padding[:, :, None]).max())
    moved = float(np.abs((got - vectors[:, None]) * ~padding[:, :, None]).max())
    fits = apart <= bundle.manifest.score_tolerance and moved > 0
    return Finding(
        "without",
        fits=fits,
        says=f"in the graph; taking padding away changes a vector by up to {apart:.1e}, taking an event by {moved:.1e}"
        + ("" if fits else ": without[b, j] must be the session vector with event j masked, and with padding as it is"),
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
        + ("" if fits else f": not what {reranker.output} scores are; correct reranker_output in the manifest"),
    )
    residual = float(np.abs(TreeShap(reranker.booster).contributions(X).sum(axis=1) - raw).max())
    yield Finding(
        "contributions",
        fits=residual <= 1e-6 * max(1.0, float(np.abs(raw).max())),
        says=f"TreeSHAP adds up to the raw score within {residual:.1e}",
    )
    category = [feature.name for feature in bundle.features if feature.is_category]
    yield Finding(
        "category features",
        fits=None,
        says=", ".join(category) if category else "none: category_match will never be said",
    )


def _exemplars(found: Exemplars | None) -> Finding:
    if found is None or not len(found.users):
        return Finding("exemplars", fits=None, says="none: of similar moments only the user's own are told")
    return Finding(
        "exemplars", fits=True, says=f"{len(found.users):,} moments, each shared by {found.users.min():,} users or more"
    )


def _selector(found: Selector | None) -> Finding:
    if found is None:
        return Finding("selector", fits=None, says="none: the policy learned cannot be served")
    return Finding("selector", fits=True, says=f"learned@{found.version}, explores in {found.exploration:.1%} of items")


def _apart(candidates: npt.NDArray[np.float32], one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(np.abs((one - other) @ candidates.T).max())
