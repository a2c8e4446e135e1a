"""A worker put together: settings, models, producer and agents, in the order they are needed and taken down."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from stream import logs
from stream.agents import explain, sink
from stream.errors import ConfigurationError
from stream.kafka.app import WorkerApp, serve
from stream.kafka.cluster import Cluster
from stream.kafka.lookup import made_anew
from stream.metrics import Metrics
from stream.settings import Settings

_SINK_FETCHES: Final = {"fetch_min_bytes": 1024 * 1024, "fetch_max_wait_ms": 250}
"""A fetch costs worker and broker more than what is in it: at 200 slates a second, half of what a sink takes."""

Prepare = Callable[[Settings, ExitStack], Callable[[WorkerApp], object]]


def run(settings: Settings, agents: Sequence[str], until_idle_s: float | None = None) -> int:
    """Run a worker with these agents until it is told to end, or idle for so long, and return its exit status.

    Raises:
        ConfigurationError: the topics are not there or do not fit.
        BundleError: the models cannot be used.

    """
    logs.configure(settings)
    settings = paced(settings, agents)
    Cluster(settings).require()
    with ExitStack() as resources:
        # What is slow or can be refused comes before joining the group: partitions go only to workers that can work.
        attachments = [AGENTS[name](settings, resources) for name in agents]
        # Models and libraries live as long as the process; the collector need not walk them at every batch.
        gc.collect()
        gc.freeze()

        def build() -> WorkerApp:
            app = WorkerApp(settings, Metrics())
            for attach in attachments:
                attach(app)
            threading.Thread(target=_end_with_the_topics, args=(app,), name="topic-ids", daemon=True).start()
            return app

        return serve(build, until_idle_s)


def paced(settings: Settings, agents: Sequence[str]) -> Settings:
    """Return settings by which a worker with these agents asks for more: seldom and much where nobody waits for it.

    What was set stays as it was set.
    """
    if set(agents) != {"sink"}:
        return settings
    chosen = {name: value for name, value in _SINK_FETCHES.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=chosen)


def _end_with_the_topics(app: WorkerApp) -> None:
    """End the process when a topic it reads is made anew: offsets that it knows are no longer of this topic."""
    settings = app.settings
    topic = made_anew(settings.bootstrap_servers, [settings.topic("impressions"), settings.topic("audit")])
    if topic is not None:
        app.give_up(ConfigurationError(f"{topic} was made anew while it was read; the next worker begins with it"))


AGENTS: Final[dict[str, Prepare]] = {"explain": explain.prepare, "sink": sink.prepare}
"""What a worker can do; a new agent is one file in ``stream/agents`` and one row here."""
