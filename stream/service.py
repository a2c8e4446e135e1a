"""Assemble and run a worker: settings, models, producers and agents, in the order in which they are needed."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

from stream import logs
from stream.agents import explain, sink
from stream.errors import ConfigurationError
from stream.kafka.app import WorkerApp, serve
from stream.kafka.cluster import Cluster
from stream.kafka.lookup import until_recreated
from stream.metrics import Metrics
from stream.settings import Settings

_SINK_FETCHES: Final = {"fetch_min_bytes": 1024 * 1024, "fetch_max_wait_ms": 250}
"""A fetch costs more than the records in it: at 200 slates a second, fetches take half of the CPU time of a sink."""

Prepare = Callable[[Settings, ExitStack, Metrics], Callable[[WorkerApp], object]]


def run(settings: Settings, agents: Sequence[str], until_idle_s: float | None = None) -> int:
    """Run a worker with these agents until a signal, or until it is idle for so many seconds; return its exit status.

    Raises:
        ConfigurationError: topics are missing or do not fit together, or no broker answers.
        BundleError: the models cannot be used.

    """
    logs.configure(settings)
    settings = paced(settings, agents)
    Cluster(settings).require()
    metrics = Metrics()
    with ExitStack() as resources:
        # Slow steps and steps that can fail come before the worker joins the group: only a worker that can work is
        # given partitions.
        attachments = [AGENTS[name](settings, resources, metrics) for name in agents]
        # Models and libraries live as long as the process, so the garbage collector need not visit them.
        gc.collect()
        gc.freeze()

        def build() -> WorkerApp:
            app = WorkerApp(settings, metrics)
            for attach in attachments:
                attach(app)
            read = [settings.topic("impressions"), settings.topic("audit")]
            watch = partial(until_recreated, settings, read)
            threading.Thread(
                target=stop_when_recreated, args=(watch, app.give_up), name="topic-ids", daemon=True
            ).start()
            return app

        return serve(build, until_idle_s)


def paced(settings: Settings, agents: Sequence[str]) -> Settings:
    """Return the settings with larger and rarer fetches for a worker that only archives, since nobody waits for it.

    A setting that was given keeps its value.
    """
    if set(agents) != {"sink"}:
        return settings
    chosen = {name: value for name, value in _SINK_FETCHES.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=chosen)


def stop_when_recreated(watch: Callable[[], str | None], give_up: Callable[[BaseException], None]) -> None:
    """Give up when ``watch`` names a topic that was deleted and created again, or when ``watch`` itself fails.

    The offsets that a worker knows mean nothing on a recreated topic, so a worker must not go on without the watch.
    """
    try:
        topic = watch()
    except BaseException as error:  # noqa: BLE001 (a thread that dies would otherwise go unnoticed)
        give_up(error)
        return
    if topic is not None:
        give_up(ConfigurationError(f"{topic} was deleted and created again; the next worker reads the new topic"))


AGENTS: Final[dict[str, Prepare]] = {"explain": explain.prepare, "sink": sink.prepare}
"""The agents that a worker can run; a new agent is one file in ``stream/agents`` and one row here."""
