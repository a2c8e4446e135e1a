"""Training of a bundle from histories: session model, baseline, re-ranker, evaluation and card."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models import card
from models.bundle import Bundle, write_bundle
from models.data.sessions import ENGAGEMENTS, Sessions
from models.manifest import CONTRACT, Manifest
from models.plans import Plan
from models.reranker import train as reranker
from models.session import train as session
from models.session.config import SessionConfig
from models.session.describe import measure_causes
from models.session.evaluate import Metrics, evaluate_model, evaluate_popularity
from models.session.export import export_onnx
from models.session.heads import describe_heads
from models.session.lstm import SessionLstm
from models.session.runtime import SessionModel
from models.session.train import Progress
from models.session.transformer import SessionTransformer

_VALIDATION = 2_000
_DESCRIBED = 200

# (stage, done, total, remark); done increases to total within each stage
Report = Callable[[str, int, int, str], None]


def build(
    directory: Path,
    plan: Plan,
    sessions: Sessions,
    *,
    evaluated: Sessions | None = None,
    report: Report = lambda *_: None,
) -> Bundle:
    """Train all models of a bundle and write the bundle into directory; needs the extra `train` (torch).

    Seeds are fixed, so that equal arguments give the same bundle on the same machine.

    Args:
        directory: where to write the bundle.
        plan: what to train.
        sessions: the histories of all users.
        evaluated: histories of the same users by which the best epoch is selected and ranking is evaluated; by default
            sessions. For data with few users, overlapping histories make the selection less random.
        report: called with the progress of each stage.

    """
    session.use_threads(plan.threads)
    training, reranking, test = sessions.parts()
    _, validation, held_out = (sessions if evaluated is None else evaluated).parts()
    validation = validation.select(np.arange(min(len(validation), _VALIDATION)))
    config = SessionConfig(items=len(sessions.catalog), engagements=len(ENGAGEMENTS), dropout=plan.dropout)

    rank: dict[str, Metrics] = {}
    trainings = []
    transformer = session.new_model(SessionTransformer, config, plan.recipe.seed)
    trainings.append(_fit("transformer", transformer, training, validation, plan, report))
    if plan.baseline:
        lstm = session.new_model(SessionLstm, config, plan.recipe.seed)
        trainings.append(_fit("LSTM", lstm, training, validation, plan, report))
        rank["LSTM of the same size"] = evaluate_model(
            session.vectors_of(lstm), session.weights_of(lstm), held_out, config.max_length
        )
    rank["popularity"] = evaluate_popularity(training, held_out)

    weights = session.as_numpy(transformer)
    item_vectors = weights["item.weight"]
    graph = export_onnx(config, weights)
    # From here on, all scores come from the exported graph, as they do when the bundle is served.
    model = _open(directory, plan, config, graph, item_vectors, sessions)

    def encode(items: npt.NDArray[np.int64], engagements: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return model.run(items, engagements, without=False).vector

    rank = {"transformer": evaluate_model(encode, item_vectors, held_out, config.max_length)} | rank
    report("re-ranker", 0, 1, "")
    log = sessions if plan.statistics_of_all else None
    trained = reranker.train(
        reranking,
        encode,
        item_vectors,
        log=log,
        seed=plan.recipe.seed,
        slates_per_history=plan.slates_per_history,
        trees=plan.trees,
        parameters=plan.lightgbm,
    )
    report("re-ranker", 1, 1, f"AUC {trained.metrics['auc']:.4f}")
    report("card", 0, 1, "")
    facts = card.Facts(
        model_version=f"{plan.name}@{plan.version}",
        title=plan.title,
        data=_data(plan, sessions),
        rank=rank,
        trainings=trainings,
        reranker=trained.metrics,
        heads=describe_heads(transformer.eval(), test.select(np.arange(min(len(test), _DESCRIBED)))),
        causes=measure_causes(model, item_vectors, test),
        limits=plan.limits,
        command=plan.command,
    )
    report("card", 1, 1, "")
    return write_bundle(
        directory,
        name=plan.name,
        version=plan.version,
        session_onnx=graph,
        item_vectors=item_vectors,
        catalog=sessions.catalog,
        reranker_text=trained.model_text,
        features=trained.features,
        card=card.render(facts),
        engagements=ENGAGEMENTS,
        feature_set=trained.feature_set,
        max_length=config.max_length,
        empty_session="zero",
        reranker_output="raw",
        citation_margin=plan.citation_margin,
        score_tolerance=plan.score_tolerance,
        citation_ageing=plan.citation_ageing,
    )


def _fit(
    name: str, model: session.SessionNet, sessions: Sessions, validation: Sessions, plan: Plan, report: Report
) -> card.Training:
    start = time.monotonic()
    remark = ""

    def progress(now: Progress) -> None:
        nonlocal remark
        if now.metrics is not None:
            remark = f", NDCG@10 {now.metrics.ndcg_at_10:.4f}"
        report(name, now.step, now.steps, f"epoch {now.epoch}, loss {now.loss:.3f}{remark}")

    session.train(model, sessions, validation, plan.recipe, progress)
    return card.Training(name, session.count_weights(model), plan.recipe.epochs, time.monotonic() - start)


def _open(
    directory: Path,
    plan: Plan,
    config: SessionConfig,
    graph: bytes,
    item_vectors: npt.NDArray[np.float32],
    sessions: Sessions,
) -> SessionModel:
    """Open the session model while the rest of the bundle does not exist yet."""
    directory.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        name=plan.name,
        version=plan.version,
        contract=CONTRACT,
        files={},
        max_length=config.max_length,
        engagements=ENGAGEMENTS,
        feature_set="none",
    )
    no_bias = np.zeros(len(item_vectors), dtype=np.float32)
    bundle = Bundle(directory, manifest, sessions.catalog, item_vectors, no_bias, ())
    bundle.session_onnx.write_bytes(graph)
    return SessionModel(bundle, plan.threads)


def _data(plan: Plan, sessions: Sessions) -> dict[str, str]:
    lengths = sessions.lengths
    return dict(plan.data) | {
        "users": f"{len(np.unique(sessions.user_id_hash)):,}",
        "histories": f"{len(sessions):,}, of {lengths.min()} to {lengths.max()} events (mean {lengths.mean():.1f})",
        "events": f"{len(sessions.item):,}",
        "items": f"{len(sessions.catalog):,} in {len(sessions.catalog.category_names) - 1} categories",
    }
