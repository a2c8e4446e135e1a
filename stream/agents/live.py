"""Live bundles: the explainers of all versions that serve, chosen by the model version of each impression.

A slate is explained by the version that its impression names. A version that nobody promoted is loaded when it is first
asked for. An impression that names a bundle without a version (``streamrec`` instead of ``streamrec@2``) is explained
by the version that the control topic gives its user. Every other slate is explained by the bundle that the worker
started with, which marks it ``model_mismatch``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import pyarrow as pa
import structlog

from models.bundle import Bundle
from schemas.errors import WhyrecError
from stream.agents.isolation import SlateExplainer
from stream.archive.objects import Store
from stream.explain.pipeline import Explained
from stream.kafka.control import ControlTopic, Serving
from stream.metrics import Metrics

log = structlog.get_logger("whyrec.live")

_TRY_AGAIN_S: Final = 60.0
_POLL_S: Final = 1.0

OpenExplainer = Callable[[Bundle], SlateExplainer]
"""Opens and warms up the explainer of a bundle; raises WhyrecError where it cannot be used."""


class BundleStore:
    """Bundles below a folder or an S3 prefix, each in a folder named ``NAME@VERSION``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def fetch(self, model_version: str) -> Bundle | None:
        """Open a bundle; None where there is no such folder.

        Raises:
            BundleError: the folder is no bundle, or that of another version.

        """
        if "/" in model_version or not model_version:
            return None
        keys = [info.key for info in self._store.list(f"{model_version}/")]
        if not keys:
            return None
        folder = Path(mkdtemp(prefix="whyrec-bundle-"))
        for key in keys:
            (folder / Path(key).name).write_bytes(self._store.get(key))
        bundle = Bundle.load(folder)
        if bundle.model_version != model_version:
            raise WhyrecError(
                f"{self._store.url}/{model_version} holds {bundle.model_version}; name the folder after the bundle"
            )
        return bundle


class LiveExplainers:
    """The explainers of the versions that serve; safe to use from the agent's thread and the control topic's."""

    def __init__(
        self,
        own: Bundle,
        explainer: SlateExplainer,
        open_explainer: OpenExplainer,
        store: BundleStore | None,
        *,
        max_bundles: int,
        idle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve the worker's own bundle with its explainer; other versions come from the store.

        max_bundles: versions in memory at most, the own one included; idle_s: a version that nobody promoted is dropped
        after so many seconds without a slate.
        """
        self._own = own.model_version
        self._open, self._store, self._clock = open_explainer, store, clock
        self._max_bundles, self._idle_s = max_bundles, idle_s
        self._explainers: dict[str, SlateExplainer] = {self._own: explainer}
        self._used: dict[str, float] = {self._own: clock()}
        self._failed: dict[str, float] = {}
        self._serving: dict[str, Serving] = {}
        self._lock = threading.RLock()
        self.metrics: Metrics | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions in memory."""
        with self._lock:
            return tuple(self._explainers)

    def run(self, impressions: pa.RecordBatch) -> Explained:
        """Explain each impression by the version that serves it; their order stays."""
        versions = self._versions_of(impressions)
        distinct = list(dict.fromkeys(versions))
        if len(distinct) <= 1:
            version = distinct[0] if distinct else self._own
            return self._explainer(version).run(_renamed(impressions, versions))
        parts = []
        for version in distinct:
            rows = [row for row, each in enumerate(versions) if each == version]
            part = _renamed(impressions.take(pa.array(rows)), [version] * len(rows))
            parts.append((self._explainer(version).run(part), rows))
        return Explained.joined(parts)

    def follow(self, serving: Mapping[str, Serving | None]) -> None:
        """Take what the control topic says: load the versions that are to be held ready, and warm them up."""
        with self._lock:
            for name, each in serving.items():
                if each is None:
                    self._serving.pop(name, None)
                else:
                    self._serving[name] = each
        for version in self._wanted()[: self._max_bundles]:
            self._failed.pop(version, None)
            self._load(version)
        self._drop()

    def _versions_of(self, impressions: pa.RecordBatch) -> list[str]:
        """Return the version in memory that explains each impression."""
        names = impressions.column("model_version").to_pylist()
        users = impressions.column("user_id_hash").to_pylist() if any("@" not in name for name in names) else names
        found: dict[tuple[str, str], str] = {}
        for name, user in dict.fromkeys(zip(names, users, strict=True)):
            wanted = self._resolved(name, user)
            found[name, user] = wanted if self._load(wanted) else self._own
        now = self._clock()
        with self._lock:
            self._used.update(dict.fromkeys(found.values(), now))
        self._drop()
        return [found[pair] for pair in zip(names, users, strict=True)]

    def _resolved(self, name: str, user_id_hash: str) -> str:
        serving = self._serving.get(name)
        if serving is None:
            return name
        with suppress(ValueError):
            return f"{name}@{serving.version_for(user_id_hash)}"
        return name

    def _explainer(self, version: str) -> SlateExplainer:
        with self._lock:
            return self._explainers.get(version, self._explainers[self._own])

    def _wanted(self) -> list[str]:
        with self._lock:
            versions = [f"{name}@{version}" for name, each in self._serving.items() for version in each.versions]
        return list(dict.fromkeys((self._own, *versions)))

    def _load(self, version: str) -> bool:
        """Bring a version into memory, warmed up; False where it cannot be had."""
        with self._lock:
            if version in self._explainers:
                return True
            if self._store is None or self._clock() - self._failed.get(version, -_TRY_AGAIN_S) < _TRY_AGAIN_S:
                return False
        began = time.perf_counter()
        try:
            bundle = self._store.fetch(version)
            explainer = None if bundle is None else self._open(bundle)
        except (WhyrecError, OSError) as error:
            log.warning("a bundle cannot be used", version=version, error=str(error))
            self._count("failed")
            explainer = None
        with self._lock:
            if explainer is None:
                self._failed[version] = self._clock()
                return False
            self._explainers[version] = explainer
            self._used[version] = self._clock()
        log.info("a bundle is live", version=version, seconds=round(time.perf_counter() - began, 1))
        self._count("loaded")
        return True

    def _drop(self) -> None:
        """Drop versions that are idle, and those used longest ago where there are more than max_bundles."""
        with self._lock:
            wanted = set(self._wanted()[: self._max_bundles])
            others = sorted((self._used[each], each) for each in self._explainers if each not in wanted)
            room = max(0, self._max_bundles - (len(self._explainers) - len(others)))
            now = self._clock()
            for place, (used, version) in enumerate(others):
                if now - used > self._idle_s or place < len(others) - room:
                    del self._explainers[version], self._used[version]
                    log.info("a bundle is dropped", version=version)
            if self.metrics is not None:
                self.metrics.live_bundles.set(len(self._explainers))

    def _count(self, result: str) -> None:
        if self.metrics is not None:
            self.metrics.bundle_loads.labels(result).inc()
            self.metrics.live_bundles.set(len(self._explainers))


def _renamed(impressions: pa.RecordBatch, versions: list[str]) -> pa.RecordBatch:
    """Name the version of impressions that name the bundle alone; a mismatch keeps the name that was sent."""
    names = impressions.column("model_version").to_pylist()
    full = [version if "@" not in name and version.startswith(f"{name}@") else name
            for name, version in zip(names, versions, strict=True)]  # fmt: skip
    if full == names:
        return impressions
    place = impressions.schema.get_field_index("model_version")
    return impressions.set_column(place, "model_version", pa.array(full, pa.string()))


class ControlFollower:
    """A thread that follows the control topic and has its changes loaded beside the event loop."""

    def __init__(self, control: ControlTopic, live: LiveExplainers) -> None:
        self._control, self._live = control, live
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="control-topic", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Stop following, and disconnect."""
        self._ended.set()
        self._thread.join(10 * _POLL_S)
        self._control.close()

    def _follow(self) -> None:
        while not self._ended.is_set():
            try:
                for change in self._control.changes(_POLL_S):
                    self._live.follow(change)
            except WhyrecError as error:
                log.warning("the control topic cannot be followed now; trying again", error=str(error))
            self._ended.wait(_POLL_S)
