"""A tiny model bundle, untrained and quick to make, and impressions whose scores it reproduces."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

from models.bundle import Bundle, Catalog, Feature, write_bundle
from models.data.sessions import ENGAGEMENTS
from models.manifest import OutputKind
from models.reranker.features import FEATURE_SET, FEATURES
from models.session.config import SessionConfig
from models.session.export import export_onnx
from models.session.runtime import SessionModel, left_pad

ITEMS = 60
CATEGORIES = ("Comedy", "Crime", "Nature", "Space")
TINY = SessionConfig(items=ITEMS, engagements=len(ENGAGEMENTS), d=16, layers=2, heads=2, d_ff=32, max_length=50)

_ADJECTIVES = ("Quiet", "Golden", "Broken", "Second", "Distant", "Paper", "Winter", "Hollow", "Crimson", "Borrowed")
_NOUNS = ("Harbour", "Orchard", "Signal", "Lantern", "Meridian", "Orbit")
_NOW_MS = 1_760_000_000_000


def random_weights(config: SessionConfig, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Weights as SessionTransformer.state_dict() names them, large enough that every event matters."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, std: float) -> npt.NDArray[np.float32]:
        return (random.standard_normal(shape) * std).astype(np.float32)

    d = config.d
    weights = {
        "item.weight": normal(config.items + 1, d, std=d**-0.5),
        "engagement.weight": normal(config.engagements + 1, d, std=d**-0.5),
        "final_norm.weight": np.ones(d, dtype=np.float32),
        "final_norm.bias": np.zeros(d, dtype=np.float32),
        "projection.weight": normal(d, d, std=d**-0.5),
        "projection.bias": normal(d, std=0.1),
    }
    weights["item.weight"][0] = weights["engagement.weight"][0] = 0
    for depth in range(config.layers):
        for part in ("query", "key", "value", "output"):
            weights[f"layers.{depth}.{part}.weight"] = normal(d, d, std=1.5 * d**-0.5)
        for norm in ("attention_norm", "feed_norm"):
            weights[f"layers.{depth}.{norm}.weight"] = 1 + normal(d, std=0.1)
            weights[f"layers.{depth}.{norm}.bias"] = normal(d, std=0.1)
        weights[f"layers.{depth}.feed_in.weight"] = normal(config.d_ff, d, std=d**-0.5)
        weights[f"layers.{depth}.feed_in.bias"] = normal(config.d_ff, std=0.1)
        weights[f"layers.{depth}.feed_out.weight"] = normal(d, config.d_ff, std=config.d_ff**-0.5)
        weights[f"layers.{depth}.feed_out.bias"] = normal(d, std=0.1)
    return weights


def tiny_catalog(items: int = ITEMS) -> Catalog:
    """`items` (at most 60) items with ids s001, s002, ... and distinct titles, evenly over the categories."""
    titles = [f"The {adjective} {noun}" for noun in _NOUNS for adjective in _ADJECTIVES]
    popularity = np.zeros(items + 1, dtype=np.float32)
    popularity[1:] = 100.0 * (1 + np.random.default_rng(1).permutation(items)) / items
    return Catalog(
        tuple(f"s{number:03d}" for number in range(1, items + 1)),
        tuple(titles[:items]),
        tuple(CATEGORIES[number % len(CATEGORIES)] for number in range(items)),
        popularity,
    )


def tiny_reranker(features: Iterable[Feature] = FEATURES, seed: int = 0, output: OutputKind = "raw") -> str:
    """A small LightGBM model, as text, that likes a high session_score and some of the other features."""
    features = tuple(features)
    random = np.random.default_rng(seed)
    X = _feature_values(features, 400, random)
    weight = random.normal(size=len(features)) * (random.random(len(features)) < 0.4)
    signal = np.where(np.isnan(X), 0, (X - np.nanmean(X, axis=0)) / np.nanstd(X, axis=0)) @ weight + 2 * X[:, -1]
    parameters = {
        "objective": "binary" if output == "probability" else "regression",
        "num_leaves": 8,
        "min_data_in_leaf": 5,
        "verbosity": -1,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
    }
    label = (signal > np.median(signal)).astype(float) if output == "probability" else signal
    data = lightgbm.Dataset(X, label, feature_name=[feature.name for feature in features], params={"verbosity": -1})
    return str(lightgbm.train(parameters, data, num_boost_round=20).model_to_string())


def tiny_bundle(
    directory: Path,
    *,
    config: SessionConfig = TINY,
    features: Iterable[Feature] = FEATURES,
    output: OutputKind = "raw",
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a bundle with random weights into directory; changes go to write_bundle. Returns directory."""
    weights = random_weights(config, seed)
    parts: dict[str, Any] = {
        "name": "tiny",
        "version": "1",
        "session_onnx": export_onnx(config, weights),
        "item_vectors": weights["item.weight"],
        "catalog": tiny_catalog(config.items),
        "reranker_text": changes["reranker_text"]
        if "reranker_text" in changes
        else tiny_reranker(features, seed, output),
        "features": features,
        "card": "# tiny\n\nUntrained, for tests.\n",
        "engagements": ENGAGEMENTS,
        "feature_set": FEATURE_SET,
        "max_length": config.max_length,
        "empty_session": "zero",
        "reranker_output": output,
        # In logits: the unit is 1.
        "session_score_spread": 1.0,
        "reranker_score_spread": 1.0,
        "citation_margin": 0.05,
        "score_tolerance": 1e-3,
        "citation_ageing": 0.5,
    }
    write_bundle(directory, **parts | changes)
    return directory


def tiny_impression(
    bundle: Bundle, *, session: int = 8, items: int = 6, seed: int = 0, locale: str = "en-GB", region: str = "GB"
) -> dict[str, Any]:
    """One impression event with made-up features, whose scores are those of the bundle, best item first."""
    random = np.random.default_rng(seed)
    index = random.integers(1, len(bundle.catalog) + 1, size=session)
    engagement = random.integers(1, len(bundle.engagements) + 1, size=session)
    candidate = 1 + random.permutation(len(bundle.catalog))[:items]
    limit = bundle.manifest.max_length
    vector = SessionModel(bundle).run(left_pad([index], limit), left_pad([engagement], limit), without=False).vector[0]
    ranking = (bundle.item_vectors[candidate] @ vector + bundle.item_bias[candidate]).astype(np.float32)

    rows = _feature_values(bundle.features, max(1, items), random)
    shared = [feature.owner != "item" for feature in bundle.features]
    rows[:, shared] = rows[:1, shared]
    if bundle.session_column is not None:
        rows[:items, bundle.session_column] = ranking
    booster = lightgbm.Booster(model_str=bundle.reranker_text.read_text(encoding="utf-8"))
    reranking = np.asarray(booster.predict(rows, raw_score=bundle.manifest.reranker_output == "raw"), dtype=np.float32)[
        :items
    ]
    owned = {owner: rows[:, [each.owner == owner for each in bundle.features]] for owner in ("user", "context", "item")}
    return {
        "request_id": str(uuid.UUID(bytes=random.bytes(16), version=4)),
        "timestamp_ms": _NOW_MS,
        "user_id_hash": f"{random.integers(2**63):016x}",
        "region": region,
        "locale": locale,
        "feature_set": bundle.manifest.feature_set,
        "model_version": bundle.model_version,
        "session": [
            {
                "item_id": bundle.catalog.item_ids[i - 1],
                "engagement": bundle.engagements[e - 1].name,
                "timestamp_ms": _NOW_MS - 60_000 * (session - place),
            }
            for place, (i, e) in enumerate(zip(index, engagement, strict=True))
        ],
        "user_features": owned["user"][0].tolist(),
        "context_features": owned["context"][0].tolist(),
        "items": [
            {
                "item_id": bundle.catalog.item_ids[candidate[k] - 1],
                "position": place,
                "ranking_score": float(np.float32(ranking[k])),
                "reranking_score": float(reranking[k]),
                "item_features": owned["item"][k].tolist(),
            }
            for place, k in enumerate(np.argsort(-reranking, kind="stable"), start=1)
        ],
    }


def _feature_values(features: Iterable[Feature], rows: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw plausible values, a few of them missing: [rows, features], representable as float32."""
    features = tuple(features)
    most = np.array([100.0 if feature.unit in {"%", "percentile"} else 2.0 for feature in features])
    values = random.random((rows, len(features))) * most
    lacking = random.random(values.shape) < 0.05
    lacking[:, [feature.name == "session_score" for feature in features]] = False
    return np.where(lacking, np.nan, values).astype(np.float32).astype(np.float64)
