"""Prometheus metrics and readiness of a worker, over HTTP.

``/metrics`` has the Prometheus text format. ``/ready`` answers 200 once partitions are assigned and 503 before.
``/live`` answers 200 while the process serves.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, make_wsgi_app

from stream.errors import ConfigurationError

_LATENCY_S: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COMPUTE_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SLATES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        on = self.registry
        self.events_in = Counter("whyrec_events_in", "Impression events taken from Kafka", registry=on)
        self.explanations = Counter("whyrec_explanations", "Explanation events acknowledged by the broker", registry=on)
        self.items = Counter(
            "whyrec_items_explained",
            "Items of delivered explanations, by explanation type and status",
            ("type", "status"),
            registry=on,
        )
        self.model_mismatch = Counter(
            "whyrec_model_mismatch",
            "Items whose scores the bundle's models do not reproduce, by cause",
            ("cause",),
            registry=on,
        )
        # An impression cannot add a label: only versions whose bundle was in memory explain.
        self.slates = Counter(
            "whyrec_slates_explained",
            "Slates of delivered explanations, by the model version that explained them",
            ("version",),
            registry=on,
        )
        self.live_bundles = Gauge("whyrec_live_bundles", "Versions of model bundles in memory", registry=on)
        self.live_bundle_bytes = Gauge(
            "whyrec_live_bundle_bytes",
            "Memory of each version, as measured; no value for a version that is not in memory",
            ("version",),
            registry=on,
        )
        self.bundle_load = Histogram(
            "whyrec_bundle_load_seconds",
            "Copying, opening and warming up one bundle, with or without success",
            buckets=_LATENCY_S,
            registry=on,
        )
        self.bundle_loads = Counter(
            "whyrec_bundle_loads", "Versions that were loaded, or could not be", ("result",), registry=on
        )
        for result in ("loaded", "failed"):
            self.bundle_loads.labels(result)
        self.dead_letters = Counter(
            "whyrec_dead_letters",
            "Dead letters by stage: impressions, and audit records at the stage archive",
            ("stage",),
            registry=on,
        )
        self.archived = Counter("whyrec_archived_rows", "Audit rows committed to the archive", registry=on)
        self.repeats = Counter(
            "whyrec_archive_repeats", "Audit records skipped because their impression was archived before", registry=on
        )
        self.implausible = Counter(
            "whyrec_archive_implausible_dates",
            "Archived rows whose date is more than 7 days before, or 1 day after, the day they were archived",
            registry=on,
        )
        self.commits = Counter("whyrec_archive_commits", "Commit entries written to the archive", registry=on)
        self.stuck = Gauge(
            "whyrec_archive_stuck",
            "1 for a partition of the audit topic whose archive cannot be continued now; its lag is unknown then",
            ("partition",),
            registry=on,
        )
        self.gaps = Counter(
            "whyrec_archive_gap_offsets",
            "Offsets that the audit topic no longer held when the sink read it (expired), or never held (absent)",
            ("reason",),
            registry=on,
        )
        for reason in ("expired", "absent"):
            self.gaps.labels(reason)  # exists before the first increment, which a rate would otherwise miss
        self.lag = Gauge(
            "whyrec_lag",
            "Events of a partition not yet finished, that is explained and delivered, or archived",
            ("topic", "partition"),
            registry=on,
        )
        self.latency = Histogram(
            "whyrec_latency_seconds",
            "From the impression's Kafka timestamp until its batch and all batches before it are delivered",
            buckets=_LATENCY_S,
            registry=on,
        )
        self.compute = Histogram(
            "whyrec_batch_compute_seconds", "Decode, explain and encode of one batch", buckets=_COMPUTE_S, registry=on
        )
        self.stage = Histogram(
            "whyrec_stage_seconds",
            "One stage of the pipeline over one batch",
            ("stage",),
            buckets=_COMPUTE_S,
            registry=on,
        )
        self.delivery = Histogram(
            "whyrec_batch_delivery_seconds",
            "From sending the first output of a batch to its last acknowledgement",
            buckets=_LATENCY_S,
            registry=on,
        )
        self.batch = Histogram("whyrec_batch_slates", "Slates explained together", buckets=_SLATES, registry=on)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it so)
        """Log nothing: Prometheus scrapes every few seconds."""


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


@dataclass
class MetricsServer:
    """Serves :class:`Metrics` over HTTP from a thread of its own; ``port`` 0 takes a free one."""

    metrics: Metrics
    ready: Callable[[], bool]
    host: str = "127.0.0.1"
    port: int = 0
    _server: WSGIServer | None = field(init=False, default=None, repr=False)

    def __enter__(self) -> Self:
        try:
            server = _ThreadingServer((self.host, self.port), _QuietHandler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot serve metrics on {self.host}:{self.port} ({error.strerror}); "
                "set WHYREC_METRICS_PORT to another port, or to 0 for any free one"
            ) from error
        server.set_app(self._answer)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        self._server = server
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            answer: Iterable[bytes] = make_wsgi_app(self.metrics.registry)(environ, start_response)
            return answer
        status, text = {
            "/ready": ("200 OK", "ready\n") if self.ready() else ("503 Service Unavailable", "not ready\n"),
            "/live": ("200 OK", "alive\n"),
        }.get(path, ("404 Not Found", "try /metrics, /ready or /live\n"))
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode()]
