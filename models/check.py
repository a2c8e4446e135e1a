"""Checks of a bundle of any origin: what fits the contract, what does not, and why.

One list serves everybody: :func:`check` reports all of it, and a bundle that fails any of it is not opened to explain
(:func:`require`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from models.attribution.ablation import names
from models.attribution.treeshap import ContributionMismatch, TreeShap, UnsupportedModel
from models.bundle import OTHER, Bundle
from models.errors import BundleError
from models.exemplars.index import Exemplars
from models.reranker.runtime import Reranker
from models.selector.runtime import Selector
from models.session.runtime import SessionModel, SessionOutput, left_pad
from models.spread import Spread

_SESSIONS: Final = 12
_ROWS: Final = 200
_SLATE: Final = 20

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


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
    except (BundleError, UnsupportedModel, ContributionMismatch) as error:
        findings.append(Finding(_stage(findings), fits=False, says=str(error)))
    return findings


def require(findings: Iterator[Finding]) -> None:
    """Raise BundleError for the first finding that does not fit."""
    for finding in findings:
        if finding.fits is False:
            raise BundleError(f"{finding.what}: {finding.says}")


_STAGES: Final = ("bundle", "session model", "re-ranker", "exemplars", "selector")


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
    layers = f"{model.layers} layers of {model.heads} heads" if model.has_attention else "no attention"
    yield Finding("session model", fits=True, says=f"{layers}, up to {model.max_length} events")
    reranker = Reranker.load(bundle) if bundle.has_reranker else None
    spread = Spread.of(bundle, model, reranker)
    yield from session_checks(bundle, model, spread)
    yield _tolerance(bundle, spread)
    if reranker is None:
        yield Finding("re-ranker", fits=None, says="none: the session scores order the slate")
    else:
        says = f"{reranker.booster.num_trees()} trees, sent as the {reranker.link.name}"
        yield Finding("re-ranker", fits=True, says=says)
        yield from reranker_checks(bundle, reranker, TreeShap(reranker.booster))
    yield _exemplars(Exemplars.load(bundle))
    yield _selector(Selector.load(bundle))


@dataclass(frozen=True)
class _Trial:
    """Random sessions with what the graph says of them: together, twice, and each by itself."""

    items: list[Ints]
    engagements: list[Ints]
    together: SessionOutput
    again: SessionOutput
    alone: Floats
    unpadded: Floats

    @classmethod
    def of(cls, bundle: Bundle, model: SessionModel) -> _Trial:
        random = np.random.default_rng(0)
        width = model.max_length
        lengths = [1, 2, 3, width, *(int(n) for n in random.integers(1, width + 1, _SESSIONS - 4))]
        lengths = [min(length, width) for length in lengths]
        items = [random.integers(1, len(bundle.catalog) + 1, length) for length in lengths]
        items[0][:] = len(bundle.catalog)
        engagements = [random.integers(1, len(bundle.engagements) + 1, length) for length in lengths]
        columns = left_pad(items, width), left_pad(engagements, width)
        together, again = (model.run(*columns, without=False, least_width=width) for _ in range(2))
        pairs = [(left_pad([i], width), left_pad([e], width)) for i, e in zip(items, engagements, strict=True)]
        alone = [model.run(*pair, without=False, least_width=width).vector[0] for pair in pairs]
        unpadded = [model.run(*pair, without=False).vector[0] for pair in pairs]
        return cls(items, engagements, together, again, np.stack(alone), np.stack(unpadded))


def session_checks(bundle: Bundle, model: SessionModel, spread: Spread) -> Iterator[Finding]:
    """Try the session model on random sessions."""
    trial = _Trial.of(bundle, model)
    random = np.random.default_rng(0)
    candidates = bundle.item_vectors[1 + random.permutation(len(bundle.catalog))[:_SLATE]]
    tolerance = bundle.manifest.score_tolerance * spread.session
    vector = trial.together.vector

    def alike(what: str, one: Floats, other: Floats, says: str, remedy: str) -> Finding:
        error = _largest_difference(candidates, one, other)
        fits = error <= tolerance
        says = f"{says} differ by up to {error:.1e} (tolerance {tolerance:.1e})"
        return Finding(what, fits=fits, says=says if fits else f"{says}: {remedy}")

    yield alike(
        "repetition", vector, trial.again.vector, "scores of two runs",
        "the graph is random, for example because it contains dropout; export the model in inference mode",
    )  # fmt: skip
    yield alike(
        "batch", vector, trial.alone, "scores of a session in a batch and by itself",
        "a row depends on the other rows of its batch, for example by batch normalisation or by a mean over the batch; "
        "export the model so that each row is computed by itself",
    )  # fmt: skip
    yield alike(
        "padding", vector, trial.unpadded, "scores with little and with much padding",
        "the graph attends to padding; mask it, or set the manifest's fixed_length",
    )  # fmt: skip
    moved = _largest_difference(candidates, vector, vector[[-1, *range(len(vector) - 1)]])
    reads = moved > tolerance
    yield Finding(
        "session",
        fits=reads,
        says=f"scores of different sessions differ by up to {moved:.1e}"
        + ("" if reads else ": the graph ignores the session; export the model so that item_index is its input"),
    )
    if trial.together.attention is None:
        yield Finding("attention", fits=None, says="not in the graph: none is shown and none is archived")
    else:
        yield _attention(trial.together.attention, np.array([len(each) for each in trial.items]))
    yield _without(model, trial, tolerance)
    yield _ablations(bundle, model)
    yield _empty_session(bundle)
    if bundle.engagements[-1] is OTHER:
        yield Finding("engagements", fits=None, says="the session model does not read engagements, only items")


def _attention(attention: Floats, lengths: Ints) -> Finding:
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


def _without(model: SessionModel, trial: _Trial, tolerance: float) -> Finding:
    if not model.has_without:
        return Finding(
            "without", fits=None, says="not in the graph: effects of events come from deletion runs, which are slower"
        )
    columns = left_pad(trial.items, model.max_length), left_pad(trial.engagements, model.max_length)
    without = model.run(*columns).without
    if without is None:
        raise BundleError("session.onnx: expected the output without, got none: export the session model again.")
    padding = columns[0] == 0
    vectors = model.run(*columns, without=False).vector
    error = float(np.abs((without - vectors[:, None]) * padding[:, :, None]).max())
    effect = float(np.abs((without - vectors[:, None]) * ~padding[:, :, None]).max())
    fits = error <= tolerance and effect > 0
    return Finding(
        "without",
        fits=fits,
        says=f"in the graph; masking padding changes a vector by up to {error:.1e}, masking an event by {effect:.1e}"
        + ("" if fits else ": without[b, j] must be the session vector with column j masked, also where j is padding"),
    )


def _ablations(bundle: Bundle, model: SessionModel) -> Finding:
    made = names(model)
    says = f"citations are confirmed by {', '.join(made)}"
    if bundle.session_column is None and bundle.has_reranker:
        says = "nothing is cited: the re-ranker does not read the session score, so no past event moves the order"
    elif len(made) == 1:
        says += (
            " alone: a citation is then less certain; list substitution and some substitutes in the manifest, or "
            "export the graph with the input event_mask"
        )
    return Finding("ablations", fits=None, says=says)


def _empty_session(bundle: Bundle) -> Finding:
    means = {
        "zero": "the recommender gives it the vector 0",
        "run": "the recommender runs the session model on padding",
        "unknown": "not stated, so the only event of a session is never cited",
    }
    return Finding("empty session", fits=None, says=means[bundle.manifest.empty_session])


def _tolerance(bundle: Bundle, spread: Spread) -> Finding:
    """Say in the units of each score what counts as equal."""
    share = bundle.manifest.score_tolerance
    says = f"scores are the same if they differ by at most {share:g} of their spread: {share * spread.session:.1e} of "
    says += f"session scores, which spread by {spread.session:g}"
    if bundle.has_reranker:
        says += f", and {share * spread.reranker:.1e} of raw re-ranking scores, which spread by {spread.reranker:g}"
    return Finding("tolerance", fits=None, says=says)


def reranker_checks(bundle: Bundle, reranker: Reranker, treeshap: TreeShap) -> Iterator[Finding]:
    """Try the re-ranker on random rows."""
    X = np.random.default_rng(0).normal(size=(_ROWS, len(bundle.features))) * 50
    X[::7] = np.nan
    raw, score = reranker.raw(X), reranker.score(X)
    probability = bundle.manifest.reranker_output == "probability"
    fits = bool(np.isfinite(score).all() and (not probability or (score.min() >= 0 and score.max() <= 1)))
    yield Finding(
        "scores",
        fits=fits,
        says=f"from {score.min():.3f} to {score.max():.3f} on {_ROWS} random rows, some with all values missing"
        + ("" if fits else ": the objective gives no probability; correct reranker_output in the manifest"),
    )
    residual = float(np.abs(treeshap.contributions(X).sum(axis=1) - raw).max())
    yield Finding(
        "contributions",
        fits=residual <= 1e-6 * max(1.0, float(np.abs(raw).max())),
        says=f"SHAP values sum to the raw score within {residual:.1e}",
    )
    if reranker.session_column is not None and not reranker.reads_session_score:
        yield Finding("session score", fits=None, says="no tree reads it, so nothing is cited: train with it")
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


def _largest_difference(candidates: Floats, one: Floats, other: Floats) -> float:
    """Return the largest absolute difference between the candidates' scores under two (batches of) session vectors."""
    return float(np.abs((one - other) @ candidates.T).max())
