"""How functions over arrays are compiled: once, kept in numba's cache, and run without the interpreter's lock.

Numba's cache does not see that a function of another file has changed: change the files that use it too, or empty their
``__pycache__``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_ANY_ORDER: Final = {"reassoc", "contract", "nsz"}


def compiled(function: Function) -> Function:
    """Compile a function."""
    return cast("Function", numba.njit(cache=True, nogil=True)(function))


def compiled_sum(function: Function) -> Function:
    """Compile a function whose sums may be vectors: in any order of adding up, but one and the same for all."""
    return cast("Function", numba.njit(cache=True, nogil=True, fastmath=_ANY_ORDER)(function))
