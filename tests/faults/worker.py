"""A real worker in a process of its own, forked from one that has everything imported: hundreds of starts are cheap.

What runs is ``stream.service.run``, as ``whyrec worker`` runs it; the fork only saves the seconds of importing. The
kernel kills the workers when the test's process is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import stream.service
from stream.settings import Settings
from tests.faults.points import Fault

PR_SET_PDEATHSIG: Final = 1
PATIENCE_S: Final = 120.0

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.worker"])


class Worker:
    """One worker; ``environment`` are its settings, ``log`` is appended to by all its lives."""

    def __init__(self, environment: Mapping[str, str], log: Path, agents: Sequence[str] = ("explain", "sink")) -> None:
        self.log = log
        self._environment = dict(environment)
        self._agents = tuple(agents)
        self._process: BaseProcess | None = None

    def start(self, fault: Fault | None = None) -> None:
        """Start it, without waiting."""
        self._process = _CONTEXT.Process(
            target=_work, args=(self._environment, self._agents, fault, str(self.log)), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return None if self._process is None else self._process.exitcode

    @property
    def runs(self) -> bool:
        return self._process is not None and self.exit_status is None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, limit_s: float = PATIENCE_S) -> int | None:
        """Wait for its end and return its exit status; None if it still runs."""
        if self._process is not None:
            self._process.join(limit_s)
        return self.exit_status

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.runs:
            self.signal(signal.SIGKILL)
            self.wait()

    def end(self) -> int | None:
        """End it in order (SIGTERM) and return its exit status; killed if that takes too long."""
        if self.runs:
            self.signal(signal.SIGTERM)
            if self.wait() is None:
                self.kill()
        return self.exit_status

    def fill_the_disk(self, *, full: bool) -> None:
        """Let no file grow beyond a few bytes, or let them grow again."""
        limit = 64 if full else resource.RLIM_INFINITY
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def said(self, words: str, times: int = 1) -> bool:
        """Say whether its log holds these words so many times."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return len(re.findall(re.escape(words), text)) >= times

    def waits_for(self, words: str, times: int = 1, limit_s: float = PATIENCE_S) -> None:
        """Return once its log holds these words; fail where it ends before or never says them."""
        give_up = time.monotonic() + limit_s
        while not self.said(words, times):
            assert self.exit_status is None, f"it ended with {self.exit_status}: {self.last_words()}"
            assert time.monotonic() < give_up, f"it never said {words!r}: {self.last_words()}"
            time.sleep(0.05)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


def _work(environment: Mapping[str, str], agents: Sequence[str], fault: Fault | None, log: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream_number in (1, 2):
        os.dup2(output, stream_number)
    os.environ.update(environment)
    if fault is not None:
        fault.arm()
    sys.exit(stream.service.run(Settings(), agents))
