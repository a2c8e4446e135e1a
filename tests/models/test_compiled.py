"""The decorators of all kernels: a cache that notices changes, a checked build, and numba's private parts."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core import caching

ROOT = Path(__file__).parents[2]

CALLER = """
from kernels.constants import OFFSET
from kernels.doubling import double
from kernels.unrelated import UNRELATED  # no kernel uses it
from models.compiled import compiled

@compiled
def double_and_add(x):
    return double(x) + OFFSET
"""
DOUBLING = """
from models.compiled import inlined

@inlined
def double(x):
    return 2 * x
"""
ACCESS = """
import numpy as np
from models.compiled import compiled, empty
from models.unchecked import peek, poke

@compiled
def read(array, index):
    return peek(array, index)

@compiled
def write(array, index):
    poke(array, index, 1.0)

@compiled
def index(array, place):
    return array[place]

@compiled
def unset():
    return empty(3, np.float32), empty((2, 2), np.int64), empty(1, np.uint8)
"""


class Package:
    """A package of kernels in a directory of its own, run in fresh processes that share a cache."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = directory / "kernels"
        self.path.mkdir()
        files = {"__init__": "", "constants": "OFFSET = 1", "unrelated": "UNRELATED = 1"}
        for name, text in {**files, "doubling": DOUBLING, "caller": CALLER, "access": ACCESS}.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        (self.path / f"{name}.py").write_text(text, encoding="utf-8")

    def run(self, program: str, *, checked: bool = False) -> Any:
        """Run a program that prints JSON."""
        environment = {
            **os.environ,
            "PYTHONPATH": f"{self._directory}{os.pathsep}{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NUMBA_CACHE_DIR": str(self._directory / "cache"),
            "WHYREC_CHECKED_KERNELS": "1" if checked else "",
        }
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def double_and_add(self, x: int, *, checked: bool = False) -> tuple[int, bool]:
        """What the kernel returns, and whether it had to be compiled."""
        program = (
            "import json; from kernels.caller import double_and_add as kernel; "
            f"print(json.dumps([kernel({x}), sum(kernel.stats.cache_misses.values())]))"
        )
        result, misses = self.run(program, checked=checked)
        return result, bool(misses)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


@pytest.mark.slow
def test_a_kernel_is_compiled_again_when_a_file_that_it_uses_changes(package: Package) -> None:
    assert package.double_and_add(3) == (7, True)
    assert package.double_and_add(3) == (7, False)
    package.write("doubling", DOUBLING.replace("2 * x", "20 * x"))
    assert package.double_and_add(3) == (61, True)
    package.write("constants", "OFFSET = 5")
    assert package.double_and_add(3) == (65, True)
    assert package.double_and_add(3) == (65, False)


@pytest.mark.slow
def test_a_kernel_is_not_compiled_again_for_files_that_it_does_not_use(package: Package) -> None:
    package.double_and_add(3)
    package.write("unrelated", "UNRELATED = 2")
    for path in package.path.iterdir():
        os.utime(path, (0, 0))
    assert package.double_and_add(3) == (7, False)


@pytest.mark.slow
def test_the_checked_build_has_a_cache_of_its_own(package: Package) -> None:
    assert package.double_and_add(3) == (7, True)
    assert package.double_and_add(3, checked=True) == (7, True)
    assert package.double_and_add(3) == (7, False)
    assert package.double_and_add(3, checked=True) == (7, False)


@pytest.mark.slow
def test_the_checked_build_refuses_access_out_of_bounds(package: Package) -> None:
    program = """
import json, numpy
from kernels.access import index, read, write
refused = {}
for kernel in read, write, index:
    array = numpy.zeros(3)
    kernel(array, 2)
    for place in (-1, 3, 2**40):
        try:
            kernel(array, place)
        except IndexError as error:
            refused[f"{kernel.__name__} {place}"] = str(error)
print(json.dumps(refused))
"""
    refused = package.run(program, checked=True)
    unchecked = {f"{kernel} {place}" for kernel in ("read", "write") for place in (-1, 3, 2**40)}
    assert refused.keys() == unchecked | {"index 3", f"index {2**40}"}  # -1 is the last element, as in numpy
    assert all("out of bounds: a defect of the kernel" in refused[case] for case in unchecked)


@pytest.mark.slow
def test_the_checked_build_fills_unset_arrays(package: Package) -> None:
    program = """
import json, numpy
from kernels.access import unset
from models.compiled import empty
floats, numbers, bytes_ = unset()
print(json.dumps([bool(numpy.isnan(floats).all()), numbers.tolist(), bytes_.tolist(), empty(2, numpy.int32).tolist()]))
"""
    most = 2**63 - 1
    assert package.run(program, checked=True) == [True, [[most] * 2] * 2, [255], [2**31 - 1] * 2]


def test_numba_has_the_private_parts_that_the_cache_is_made_of() -> None:
    """What models/compiled.py relies on beside numba's documented interface."""
    kernel = numba.njit(cache=True)(lambda x: x)
    holds = {
        "Dispatcher._cache is a FunctionCache": isinstance(getattr(kernel, "_cache", None), caching.FunctionCache),
        "FunctionCache._impl_class is CompileResultCacheImpl": (
            getattr(caching.FunctionCache, "_impl_class", None) is caching.CompileResultCacheImpl
        ),
        "FunctionCache has _impl, _cache_path and _cache_file": (
            {"_impl", "_cache_path", "_cache_file"} <= vars(getattr(kernel, "_cache", object)).keys()
        ),
        "CompileResultCacheImpl.get_filename_base(fullname, abiflags)": (
            [*inspect.signature(caching.CompileResultCacheImpl.get_filename_base).parameters]
            == ["self", "fullname", "abiflags"]
        ),
        "IndexDataCacheFile(cache_path, filename_base, source_stamp)": (
            [*inspect.signature(caching.IndexDataCacheFile).parameters]
            == ["cache_path", "filename_base", "source_stamp"]
        ),
    }
    moved = [part for part, there in holds.items() if not there]
    assert not moved, (
        f"expected of numba {numba.__version__}, as of the versions that pyproject.toml allows: {'; '.join(moved)}. "
        "Adapt models/compiled.py, or lower numba's upper bound."
    )
