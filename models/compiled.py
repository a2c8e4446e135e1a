"""How kernels are compiled: functions over arrays, compiled by numba, cached on disk and run without the GIL.

All kernels of the project are compiled by the three decorators of this module, so that all have

- a cache that is keyed on the content of the source files that a kernel uses (``models/sources.py``). Numba's own cache
  is keyed on the kernel's file alone and would keep the old machine code of a function in another file;
- a *checked build*. With ``WHYREC_CHECKED_KERNELS=1`` in the environment when this module is imported, every access to
  an array is checked and raises IndexError out of bounds, unchecked accessors (``models/unchecked.py``) included, and
  :func:`empty` fills its arrays with values that no correct kernel uses. The checked build has a cache of its own.
  ``make test-checked`` runs the tests of the kernels in it.

Whatever private parts of numba are needed stand in this file; ``tests/models/test_compiled.py`` checks them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from models.sources import digest

Function = TypeVar("Function", bound=Callable[..., Any])

CHECKED: Final = os.environ.get("WHYREC_CHECKED_KERNELS", "0") not in ("", "0")
"""Whether this process compiles and runs the checked build of all kernels."""

_OPTIONS: Final = {"nogil": True, "error_model": "numpy", "boundscheck": CHECKED}
_ANY_ORDER: Final = {"reassoc", "contract", "nsz"}


def compiled(function: Function) -> Function:
    """Compile a function. Division by zero gives what numpy gives, without an error."""
    return cast("Function", _cached(numba.njit(**_OPTIONS)(function)))


def compiled_sum(function: Function) -> Function:
    """Compile a function whose floating-point sums may be reordered, and so be computed by vector instructions.

    The order depends on the processor and on the length of a sum, not on the data.
    """
    return cast("Function", _cached(numba.njit(**_OPTIONS, fastmath=_ANY_ORDER)(function)))


def inlined(function: Function) -> Function:
    """Compile a function into each of its callers; in the checked build it stays a function, compiled more quickly."""
    return cast("Function", numba.njit(**_OPTIONS, forceinline=not CHECKED)(function))


def empty(shape: Any, dtype: Any) -> npt.NDArray[Any]:
    """Return an array whose values are not set, in Python and in kernels.

    In the checked build it is filled with NaN, or with the largest integer of its dtype.
    """
    return np.full(shape, _poison(np.dtype(dtype))) if CHECKED else np.empty(shape, dtype)


@overload(empty)
def _empty(shape: Any, dtype: Any) -> Any:  # noqa: ARG001 (numba binds parameters by name)
    poison = _poison(as_dtype(dtype.dtype))

    def unset(shape: Any, dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def poisoned(shape: Any, dtype: Any) -> Any:
        return np.full(shape, poison, dtype)

    return poisoned if CHECKED else unset


def _poison(dtype: np.dtype[Any]) -> Any:
    """Return a value that leads a kernel that reads it astray: it spreads through sums, or indexes out of bounds."""
    return dtype.type(np.nan) if dtype.kind == "f" else dtype.type(np.iinfo(dtype).max)


def _cached(dispatcher: Any) -> Any:
    dispatcher._cache = _Cache(dispatcher.py_func)  # noqa: SLF001 (what njit(cache=True) sets)
    return dispatcher


class _Cache(FunctionCache):
    """Numba's cache of one function, keyed on the content of all source files that the function uses."""

    class _impl_class(CompileResultCacheImpl):  # noqa: N801 (numba's name)
        def get_filename_base(self, fullname: str, abiflags: str) -> str:
            base: str = super().get_filename_base(fullname, abiflags)
            return f"{base}.checked" if CHECKED else base

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        path, name = Path(inspect.getfile(function)), function.__qualname__.partition(".")[0]
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=digest(function.__module__, path, name),
        )
