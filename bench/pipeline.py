"""What explaining costs without Kafka: our pipeline beside the plain assembly of the same parts, in one run.

The plain assembly is what one writes first: per impression the session model, ``shap.TreeExplainer``, the attention
rules, fastavro. "Per slate" is the same with the session model once per slate and SHAP on its items together.
Both use the same models as ours, one thread, and say less: no citation is checked.

Run: python -m bench.pipeline --json FILE
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import fastavro
import numpy as np
import numpy.typing as npt
import shap

from bench.machine import describe, headline
from models.bundle import Bundle
from models.data.simulator import simulate
from models.data.slates import impressions
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel, left_pad
from schemas.codec import Codec, schema
from schemas.events import ENGAGEMENTS, Impression
from stream.explain.pipeline import Explained, Explainer
from stream.settings import BUNDLED_MODEL

Work = Callable[[Sequence[Impression]], None]


class PlainAssembly:
    """The same parts, put together the plain way."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._session = SessionModel(bundle)
        self._booster = Reranker.load(bundle).booster
        self._shap = shap.TreeExplainer(self._booster)  # which, for LightGBM, calls LightGBM's own contributions
        self._explanation = fastavro.parse_schema(schema("explanation"))

    def per_impression(self, slates: Sequence[Impression]) -> None:
        """Explain one item at a time."""
        for slate in slates:
            items = []
            for item in slate["items"]:
                vector, attention = self._look(slate)
                row = np.array([[*slate["user_features"], *item["item_features"], vector @ self._vector(item)]])
                items.append(self._say(slate, item, attention, self._shap.shap_values(row)[0], row[0]))
            self._write(slate, items)

    def per_slate(self, slates: Sequence[Impression]) -> None:
        """Explain the items of a slate together."""
        for slate in slates:
            vector, attention = self._look(slate)
            rows = np.array(
                [
                    [*slate["user_features"], *item["item_features"], vector @ self._vector(item)]
                    for item in slate["items"]
                ]
            )
            values = self._shap.shap_values(rows)
            items = [
                self._say(slate, item, attention, phi, row)
                for item, phi, row in zip(slate["items"], values, rows, strict=True)
            ]
            self._write(slate, items)

    def _look(self, slate: Impression) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        items = self._bundle.catalog.index([event["item_id"] for event in slate["session"]])
        kinds = np.array([1 + ENGAGEMENTS.index(event["engagement"]) for event in slate["session"]], dtype=np.int64)
        length = self._session.max_length
        found = self._session.run(left_pad([items], length), left_pad([kinds], length), without=False)
        return found.vector[0], found.attention[0].mean(axis=(0, 1))

    def _vector(self, item: Any) -> npt.NDArray[np.float32]:
        row: int = self._bundle.catalog.index([item["item_id"]])[0]
        vector: npt.NDArray[np.float32] = self._bundle.item_vectors[row]
        return vector

    def _say(
        self,
        slate: Impression,
        item: Any,
        attention: npt.NDArray[np.float32],
        phi: npt.NDArray[np.float64],
        row: npt.NDArray[np.float64],
    ) -> dict[str, Any]:
        """Apply the attention rules in their plainest form; what is said matters less here than what it costs."""
        newest_two = np.argsort(attention)[-2:][::-1]
        cites = float(attention[newest_two].sum()) > 0.5 and len(slate["session"]) > 1
        titles = [self._bundle.catalog.titles[int(i) % len(self._bundle.catalog.titles)] for i in newest_two]
        top = np.argsort(-np.abs(phi))[:5]
        features = self._bundle.features
        return {
            "item_id": item["item_id"],
            "position": item["position"],
            "type": "watch_history" if cites else "personalized",
            "status": "generic",
            "text": f"Because you watched {titles[0]} and {titles[1]}" if cites else "Chosen for you",
            "evidence": {
                "history": [],
                "features": [
                    {
                        "name": features[i].name,
                        "display_name": features[i].display_name,
                        "value": float(row[i]),
                        "contribution": float(phi[i]),
                    }
                    for i in top.tolist()
                ],
                "personal_share": None,
                "category_match": None,
                "residual": None,
            },
        }

    def _write(self, slate: Impression, items: list[dict[str, Any]]) -> None:
        fastavro.schemaless_writer(
            io.BytesIO(),
            self._explanation,
            {
                **{name: slate[name] for name in ("request_id", "timestamp_ms", "user_id_hash", "region", "locale")},
                "model_version": slate["model_version"],
                "policy": "plain",
                "produced_at_ms": int(time.time() * 1000),
                "items": items,
            },
        )


def ours(explainer: Explainer, codec: Codec) -> Work:
    """Return our pipeline from records to bytes, explanation and audit."""

    def work(slates: Sequence[Impression]) -> None:
        for outcome in explainer.run(slates):
            if not isinstance(outcome, Explained):
                raise SystemExit(f"a slate was rejected: {outcome}")
            codec.encode("explanation", outcome.explanation, "explanations")
            codec.encode("audit", outcome.audit, "audit")

    return work


def stages(bundle: Bundle, slates: Sequence[Impression], batch: int) -> dict[str, float]:
    """Microseconds per impression in each stage of the pipeline."""
    seconds: dict[str, float] = {}

    def observe(stage: str, elapsed_s: float) -> None:
        seconds[stage] = seconds.get(stage, 0.0) + elapsed_s

    explainer = Explainer(bundle, observe=observe)
    explainer.run(slates[:batch])
    seconds.clear()
    for start in range(0, len(slates), batch):
        explainer.run(slates[start : start + batch])
    items = sum(len(slate["items"]) for slate in slates)
    return {stage: spent / items * 1e6 for stage, spent in seconds.items()}


def measure(work: Work, slates: Sequence[Impression], batch: int, rounds: int) -> list[float]:
    """CPU microseconds per impression, a sample per round over fresh slates."""
    samples = []
    for number in range(rounds):
        part = [slates[(number * batch + i) % len(slates)] for i in range(batch)]
        started = time.process_time()
        work(part)
        samples.append((time.process_time() - started) / sum(len(slate["items"]) for slate in part) * 1e6)
    return samples


def main() -> None:
    """Measure in turn, so that a drifting machine drifts for all alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLED_MODEL)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="LightGBM binary classifier with TreeExplainer")

    bundle = Bundle.load(arguments.bundle)
    everyone = simulate(8_000, 5)
    slates = list(impressions(bundle, everyone.select(np.arange(1_000)), log=everyone, items=arguments.items))
    plain = PlainAssembly(bundle)
    contenders: dict[str, tuple[Work, int]] = {
        "plain, per impression": (plain.per_impression, 2),
        "plain, per slate": (plain.per_slate, 4),
        "whyrec, attention policy": (ours(Explainer(bundle, "attention"), Codec()), arguments.batch),
        "whyrec, evidence policy": (ours(Explainer(bundle, "evidence"), Codec()), arguments.batch),
    }
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for name, (work, batch) in contenders.items():  # compiled, loaded, warm
        measure(work, slates, batch, 1)
        samples[name].clear()
    for _ in range(arguments.rounds):
        for name, (work, batch) in contenders.items():
            samples[name] += measure(work, slates, batch, 1)
    base = float(np.median(samples["plain, per impression"]))
    events = np.mean([len(slate["session"]) for slate in slates])
    print(headline())
    print(f"slates of {arguments.items}, {events:.1f} events a session, one thread, CPU time, median of rounds\n")
    print(f"{'':28}{'µs per impression':>20}{'against plain':>16}")
    for name, found in samples.items():
        middle = float(np.median(found))
        print(f"{name:28}{middle:>20.1f}{base / middle:>15.1f}x")
    per_stage = stages(bundle, slates, arguments.batch)
    print("\nevidence policy, µs per impression by stage")
    for stage, spent in per_stage.items():
        print(f"{stage:28}{spent:>20.1f}")
    if arguments.json is not None:
        document = {"machine": describe(), "samples_us": samples, "stages_us": per_stage}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
