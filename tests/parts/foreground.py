"""Run one part from the command line until interrupted."""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractContextManager
from types import FrameType
from typing import TypeVar

Part = TypeVar("Part")


def until_interrupted(part: AbstractContextManager[Part], *attributes: str) -> None:
    """Start the part, print the named attributes as NAME=value lines, and stop it on Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, _interrupt)
    with part as started:
        for attribute in attributes:
            print(f"{attribute}={getattr(started, attribute)}", flush=True)  # noqa: T201 - the purpose of the command
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)  # noqa: T201


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
