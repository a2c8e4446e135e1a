"""The machine that a figure was measured on, in the words that the figure should stand beside."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

_PARTS = ("numpy", "onnxruntime", "lightgbm", "numba", "pyarrow", "fastavro", "faust-streaming", "confluent-kafka")


def describe() -> dict[str, str]:
    """Return the processor, its vectors, the cores we may use, the system, and the versions of what does the work."""
    info = _cpuinfo()
    flags = info.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2", "sse4_2") if name in flags), "unknown")
    return {
        "processor": info.get("model name", platform.processor() or platform.machine()),
        "vectors": vectors,
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _PARTS},
    }


def headline() -> str:
    """Return the machine in one line."""
    machine = describe()
    return f"{machine['processor']}, {machine['cores']} cores, {machine['vectors']}, Python {machine['python']}"


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = path.read_text("utf-8").split("\n\n", 1)[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
