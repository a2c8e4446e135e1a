"""Live bundles: the explainers of all versions that serve, chosen by the model version of each impression.

A slate is explained by the version that its impression names. A version that nobody promoted is loaded when it is first
asked for, and its batch waits. An impression that names a bundle without a version (``streamrec`` instead of
``streamrec@2``) is explained by the version that the control topic gives its user. Every other slate is explained by
the bundle that the worker started with, which marks it ``model_mismatch``.

The versions in memory are bounded in number and in measured bytes. What gives way is the version that was used longest
ago. The worker's own bundle and promoted versions stay. A version that had a slate in the last minute gives way to
promoted versions alone: slates of more versions than there is room for would otherwise load bundles without end.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import structlog

from models.bundle import Bundle
from schemas.errors import WhyrecError
from stream.agents.bundle_store import BundleStore
from stream.agents.isolation import SlateExplainer
from stream.archive.objects import StoreUnavailable
from stream.errors import ConfigurationError
from stream.explain.pipeline import Explained
from stream.kafka.control import ControlTopic, Serving
from stream.metrics import Metrics

log = structlog.get_logger("whyrec.live")

_TRY_AGAIN_S: Final = 60.0
_IN_USE_S: Final = 60.0
_POLL_S: Final = 1.0
_MISSES: Final = 16
"""Versions that may be looked for in vain within _TRY_AGAIN_S; impressions may name any number of unknown versions."""

_STATM: Final = Path("/proc/self/statm")

OpenExplainer = Callable[[Bundle], SlateExplainer]
"""Opens and warms up the explainer of a bundle; whatever it raises is why the bundle cannot be used."""


@dataclass(slots=True)
class _Held:
    bundle: Bundle
    explainer: SlateExplainer
    bytes: int
    used_s: float


class LiveExplainers:
    """The explainers of the versions that serve; safe to use from the agent's thread and the control topic's.

    One thread loads at a time. A thread that asks for a version while another loads it waits for that.
    """

    def __init__(
        self,
        own: Bundle,
        open_explainer: OpenExplainer,
        store: BundleStore | None,
        metrics: Metrics,
        *,
        max_bundles: int,
        max_bytes: int,
        idle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the worker's own bundle; other versions come from the store.

        max_bundles: versions in memory at most, the own one included; max_bytes: memory of all of them, as measured;
        idle_s: a version that nobody promoted is dropped after so many seconds without a slate.

        Raises:
            WhyrecError: the own bundle cannot be used.

        """
        self._own = own.model_version
        self._open, self._store, self._clock = open_explainer, store, clock
        self._max_bundles, self._max_bytes, self._idle_s = max_bundles, max_bytes, idle_s
        self._failed: dict[str, float] = {}
        self._misses: deque[float] = deque(maxlen=_MISSES)
        self._serving: dict[str, Serving] = {}
        self._state = threading.Lock()
        self._loading = threading.Lock()
        self._metrics = metrics
        self._held: dict[str, _Held] = {}
        self._held[self._own] = self._measured(own)
        self._show()

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions in memory."""
        with self._state:
            return tuple(self._held)

    def run(self, impressions: pa.RecordBatch) -> Explained:
        """Explain each impression by the version that serves it, each version's pipeline once; their order stays.

        Raises:
            StoreUnavailable: the store does not answer, so that the version of a slate cannot be had now; try again.
            WorkerUnfit, MemoryError, OSError: as raised by an explainer.

        """
        explainers = self._explainers_of(impressions)
        names = impressions.column("model_version").to_pylist()
        versions = [version for version, _ in explainers]
        impressions = _renamed(impressions, names, versions)
        distinct = dict(explainers) or {self._own: self._held[self._own].explainer}
        if len(distinct) == 1:
            [explainer] = distinct.values()
            return explainer.run(impressions)
        parts = []
        for version, explainer in distinct.items():
            rows = [row for row, each in enumerate(versions) if each == version]
            parts.append((explainer.run(impressions.take(pa.array(rows))), rows))
        return Explained.joined(parts)

    def follow(self, serving: Mapping[str, Serving | None]) -> None:
        """Take what the control topic says: load the versions that are to be held ready, and warm them up.

        Raises:
            StoreUnavailable: the store does not answer; call again later.

        """
        with self._state:
            for name, each in serving.items():
                if each is None:
                    self._serving.pop(name, None)
                else:
                    self._serving[name] = each
        wanted = self._wanted()
        with self._state:
            for version in wanted:
                self._failed.pop(version, None)
        for version in wanted:
            self._explainer(version, wanted)
        self.drop_idle()

    def drop_idle(self) -> None:
        """Drop the versions that nobody promoted and that had no slate for idle_s seconds."""
        if not self._loading.acquire(blocking=False):
            return  # a batch does not wait for a bundle that is loaded meanwhile
        try:
            for version, held in self._droppable(self._wanted()):
                if self._clock() - held.used_s > self._idle_s:
                    self._drop(version, "idle")
        finally:
            self._loading.release()

    def _explainers_of(self, impressions: pa.RecordBatch) -> list[tuple[str, SlateExplainer]]:
        """Return the version in memory that explains each impression, and its explainer."""
        names = impressions.column("model_version").to_pylist()
        users = impressions.column("user_id_hash").to_pylist() if any("@" not in name for name in names) else names
        wanted = self._wanted()
        asked = {pair: self._resolved(*pair) for pair in zip(names, users, strict=True)}
        found = {version: self._explainer(version, wanted) for version in dict.fromkeys(asked.values())}
        own = self._own, self._held[self._own].explainer
        chosen = {version: own if explainer is None else (version, explainer) for version, explainer in found.items()}
        self.drop_idle()
        return [chosen[asked[pair]] for pair in zip(names, users, strict=True)]

    def _resolved(self, name: str, user_id_hash: str) -> str:
        serving = self._serving.get(name)
        return name if serving is None else f"{name}@{serving.version_for(user_id_hash)}"

    def _wanted(self) -> list[str]:
        """Return the versions that stay in memory, the most important first."""
        with self._state:
            versions = [f"{name}@{version}" for name, each in self._serving.items() for version in each.versions]
        return list(dict.fromkeys((self._own, *versions)))

    def _explainer(self, version: str, wanted: list[str]) -> SlateExplainer | None:
        """Return the explainer of a version, loaded if necessary; None where it cannot be had."""
        if (held := self._use(version)) is not None:
            return held.explainer
        store = self._store
        if store is None or not self._may_try(version, wanted):
            return None
        with self._loading:
            if (held := self._use(version)) is None and self._may_try(version, wanted):
                self._load(version, wanted, store)
            held = held or self._use(version)
        return None if held is None else held.explainer

    def _use(self, version: str) -> _Held | None:
        with self._state:
            held = self._held.get(version)
            if held is not None:
                held.used_s = self._clock()
            return held

    def _may_try(self, version: str, wanted: list[str]) -> bool:
        now = self._clock()
        with self._state:
            if now < self._failed.get(version, now):
                return False
            # Of unknown names, only some are looked for: each costs a request to the store.
            return version in wanted or len(self._misses) < _MISSES or now - self._misses[0] >= _TRY_AGAIN_S

    def _load(self, version: str, wanted: list[str], store: BundleStore) -> None:
        """Bring a version into memory, warmed up, or note that it cannot be used."""
        began = time.perf_counter()
        bundle: Bundle | None = None
        try:
            bundle = store.fetch(version)
            if bundle is None:
                self._miss(version, wanted)
                return
            self._make_room(version, wanted, bundles=1, size=0)
            held = self._measured(bundle)
            self._make_room(version, wanted, bundles=1, size=held.bytes)
        except MemoryError:
            raise
        except StoreUnavailable:
            # The bundle may well exist: another version must not explain what this one served.
            self._count("failed", time.perf_counter() - began)
            raise
        except Exception as error:  # noqa: BLE001 (the bundle of somebody else may fail in any way; other versions go on)
            if bundle is not None:
                store.forget(bundle)
            self._fail(version)
            reason = str(error) if isinstance(error, WhyrecError) else f"{type(error).__name__}: {error}"
            log.error("a bundle cannot be used; its slates get generic explanations", version=version, error=reason)  # noqa: TRY400 (the reason says all)
            self._count("failed", time.perf_counter() - began)
            return
        with self._state:
            self._held[version] = held
        seconds = time.perf_counter() - began
        log.info("a bundle is live", version=version, bytes=held.bytes, seconds=round(seconds, 1))
        self._count("loaded", seconds)

    def _measured(self, bundle: Bundle) -> _Held:
        """Open a bundle and measure what it takes: the growth of this process, and at least the size of its files."""
        before = _resident_bytes()
        explainer = self._open(bundle)
        files = sum((bundle.path / file).stat().st_size for file in bundle.manifest.files)
        return _Held(bundle, explainer, max(files, _resident_bytes() - before), self._clock())

    def _miss(self, version: str, wanted: list[str]) -> None:
        self._fail(version)
        if version in wanted:
            log.error("a promoted version has no bundle; its slates get generic explanations", version=version)
            self._count("failed", 0.0)
            return
        with self._state:
            self._misses.append(self._clock())

    def _fail(self, version: str) -> None:
        now = self._clock()
        with self._state:
            self._failed = {each: until for each, until in self._failed.items() if until > now}
            self._failed[version] = now + _TRY_AGAIN_S

    def _make_room(self, version: str, wanted: list[str], *, bundles: int, size: int) -> None:
        """Drop versions until so many more bundles of so many bytes fit.

        Raises:
            ConfigurationError: there is no room.

        """
        while len(self.versions) + bundles > self._max_bundles or self._bytes() + size > self._max_bytes:
            now = self._clock()
            droppable = [
                (held.used_s, other)
                for other, held in self._droppable(wanted)
                if version in wanted or now - held.used_s >= _IN_USE_S
            ]
            if not droppable:
                raise ConfigurationError(
                    f"there is no room for {version}: {', '.join(self.versions)} are promoted or in use and take "
                    f"{self._bytes():,} bytes; raise WHYREC_MAX_BUNDLES ({self._max_bundles}) or "
                    f"WHYREC_MAX_BUNDLES_BYTES ({self._max_bytes:,})"
                )
            self._drop(min(droppable)[1], f"{version} needs its room")

    def _droppable(self, wanted: list[str]) -> list[tuple[str, _Held]]:
        with self._state:
            return [(version, held) for version, held in self._held.items() if version not in wanted]

    def _drop(self, version: str, reason: str) -> None:
        with self._state:
            held = self._held.pop(version)
        if self._store is not None:
            self._store.forget(held.bundle)
        log.info("a bundle is dropped", version=version, reason=reason)
        self._metrics.live_bundle_bytes.remove(version)
        self._show()

    def _bytes(self) -> int:
        with self._state:
            return sum(held.bytes for held in self._held.values())

    def _count(self, result: str, seconds: float) -> None:
        self._metrics.bundle_loads.labels(result).inc()
        self._metrics.bundle_load.observe(seconds)
        self._show()

    def _show(self) -> None:
        with self._state:
            sizes = {version: held.bytes for version, held in self._held.items()}
        self._metrics.live_bundles.set(len(sizes))
        for version, size in sizes.items():
            self._metrics.live_bundle_bytes.labels(version).set(size)


def _resident_bytes() -> int:
    """Return the memory of this process, 0 where the system does not tell."""
    try:
        return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _renamed(impressions: pa.RecordBatch, names: list[str], versions: list[str]) -> pa.RecordBatch:
    """Name the version of impressions that name the bundle alone; a mismatch keeps the name that was sent."""
    full = [
        version if "@" not in name and version.startswith(f"{name}@") else name
        for name, version in zip(names, versions, strict=True)
    ]
    if full == names:
        return impressions
    place = impressions.schema.get_field_index("model_version")
    return impressions.set_column(place, impressions.schema.field(place), pa.array(full, pa.string()))


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
            except Exception as error:  # noqa: BLE001 (without this thread, promotions would go unnoticed)
                log.warning("the control topic cannot be followed now; trying again", error=str(error))
                self._ended.wait(_POLL_S)
