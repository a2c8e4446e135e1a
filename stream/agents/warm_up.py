"""Warm-up of the explain agent: compile and load every kernel, and explain synthetic slates of several sizes.

A worker warms up before it asks for partitions, so that a worker that is ready answers its first message as fast as its
thousandth. Numba keeps compiled kernels in a cache: ``python -m stream.agents.warm_up`` fills the cache ahead of the
first start. The build of an image and ``make demo`` run it. On a processor with another instruction set than the one
that filled the cache, the first start compiles the kernels again.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Final

import structlog
from rich.console import Console

from models.attribution.treeshap import TreeShap
from models.bundle import Bundle
from models.data.synthetic import SyntheticSlates
from models.reranker.runtime import Reranker
from models.session.runtime import SessionModel
from schemas.codec import Codec
from stream.agents.batch import BatchWork, Received
from stream.explain.pipeline import Explainer
from stream.settings import BUNDLED_MODEL, Settings

log = structlog.get_logger("whyrec.explain")

_BATCHES: Final = (1, 1, 8, 64)
"""Slates in each batch."""

_EVENTS: Final = (20, 1, 5, 12, 50, 0)
"""Events in the sessions, in turn: up to more than a session model reads, and none."""

_ITEMS: Final = 20


def warm_up(work: BatchWork, slates: SyntheticSlates) -> None:
    """Answer batches of synthetic slates; the answers are sent nowhere."""
    codec, number = Codec(), 0
    for size in _BATCHES:
        batch = []
        for _ in range(size):
            slate: dict[str, Any] = dict(slates.slate(events=_EVENTS[number % len(_EVENTS)], items=_ITEMS))
            # A slate that asks for detail runs stages of its own.
            encoded = codec.encode("impression", slate | {"detail": number == 1}, "")
            batch.append(Received("", 0, number, None, encoded.value, encoded.headers))
            number += 1
        for letter in work.answer(batch).dead_letters.values():
            log.warning("a synthetic slate cannot be explained", stage=letter.stage, error=letter.error)


def fill_cache(console: Console) -> None:
    """Compile every kernel with the bundle that is shipped, and print how long each part took.

    The kernels of the two models do not depend on each other: two processes compile them side by side. The pipeline
    calls the kernels of both, so that it comes last.
    """
    console.print("Compiling the kernels (once on a machine; kept in numba's cache)")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=len(_MODELS), mp_context=spawn) as processes:
        parts = {name: processes.submit(_seconds, part) for name, part in _MODELS.items()}
        for name, took in parts.items():
            _report(console, name, took)
        _report(console, "pipeline", processes.submit(_seconds, _pipeline))


def _report(console: Console, name: str, took: Future[float]) -> None:
    with console.status(f"  {name}"):
        seconds = took.result()
    console.print(f"  {name:<14}{seconds:>4.0f} s", highlight=False)


def _seconds(part: Callable[[], object]) -> float:
    began = time.perf_counter()
    part()
    return time.perf_counter() - began


def _session_model() -> None:
    SessionModel(Bundle.load(BUNDLED_MODEL))


def _reranker() -> None:
    TreeShap(Reranker.load(Bundle.load(BUNDLED_MODEL)).booster).warm_up()


def _pipeline() -> None:
    bundle = Bundle.load(BUNDLED_MODEL)
    warm_up(BatchWork(Explainer(bundle), Codec(), Settings()), SyntheticSlates(bundle))


_MODELS: Final = {"session model": _session_model, "re-ranker": _reranker}

if __name__ == "__main__":
    fill_cache(Console())
