"""A worker put together: settings, models, producer and agents, in the order they are needed and taken down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

import structlog

from stream import logs
from stream.app import WorkerApp, serve
from stream.cluster import Cluster
from stream.connections import codec_of
from stream.metrics import Metrics
from stream.settings import Settings

log = structlog.get_logger("whyrec.worker")

Prepare = Callable[[Settings, ExitStack], Callable[[WorkerApp], object]]


def run(settings: Settings, agents: Sequence[str]) -> int:
    """Run a worker with these agents until it is told to end, and return its exit status.

    Raises:
        ConfigurationError: the topics are not there or do not fit.
        BundleError: the models cannot be used.

    """
    logs.configure(settings)
    Cluster(settings).require()
    with ExitStack() as resources:
        # What is slow or can be refused comes before joining the group: partitions go only to workers that can work.
        attachments = [AGENTS[name](settings, resources) for name in agents]

        def build() -> WorkerApp:
            app = WorkerApp(settings, Metrics())
            for attach in attachments:
                attach(app)
            return app

        return serve(build)


def _explain(settings: Settings, resources: ExitStack) -> Callable[[WorkerApp], object]:
    from stream.agents import explain
    from stream.agents.batch import BatchWork
    from stream.delivery import Delivery
    from stream.explain.pipeline import Explainer

    explainer = Explainer.load(settings.bundle_dir, policy=settings.policy)
    work = BatchWork(explainer, codec_of(settings), settings)
    delivery = Delivery(settings.bootstrap_servers, timeout_s=settings.delivery_timeout_s)
    resources.callback(delivery.close, settings.shutdown_timeout_s)
    return lambda app: explain.attach(app, work, delivery)


def _sink(_settings: Settings, _resources: ExitStack) -> Callable[[WorkerApp], object]:
    from stream.agents import sink

    return sink.attach


AGENTS: Final[dict[str, Prepare]] = {"explain": _explain, "sink": _sink}
"""What a worker can do; a new agent is one file in ``stream/agents`` and one row here."""
