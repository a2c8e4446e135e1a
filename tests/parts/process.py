"""One server process: started, waited for, stopped, and never outliving the run that wanted it."""

from __future__ import annotations

import atexit
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

START_SECONDS = 120.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
LOG_TAIL_CHARACTERS = 4000
DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")


forbidden: str | None = None
"""Why no server may be started now; `tests.parts.fixtures` sets it for each test."""


class ServerForbidden(RuntimeError):
    """Something that must not start servers tried to; the message says which test."""


class ServerFailed(RuntimeError):
    """The server ended or did not answer in time; the message carries the end of its log."""


class ServerProcess:
    """A command that serves until stopped. `start` returns once `ready()` is true; starting again keeps its files.

    The kernel kills it when the *thread* that called `start` ends, so call it from the main thread.
    """

    def __init__(self, name: str, command: list[str], *, ready: Callable[[], bool], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._command = command
        self._ready = ready
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.kill)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, unless it runs already, and wait until it answers.

        Raises:
            ServerFailed: it ended or did not answer in time; the message carries its last words.
            ServerForbidden: the running test is not one that may start servers.

        """
        if self.running:
            return
        if forbidden is not None:
            raise ServerForbidden(f"{forbidden}, and tried to start {self.name}")
        guarded = [sys.executable, "-S", "-E", str(DIE_WITH_PARENT), str(os.getpid()), *self._command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                guarded,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            status = self._process.poll()
            if status is not None:
                raise ServerFailed(f"{self.name} ended with status {status}: {self._last_words()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"{self.name} did not answer in {START_SECONDS:.0f} s: {self._last_words()}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and kill it where it does not."""
        self._signal(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        return "\n" + self.log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]


def free_port() -> int:
    """A TCP port nobody listens on, below the range the kernel gives to outgoing connections.

    From inside that range, a client that keeps dialling a stopped server would sooner or later take the server's own
    port, and the server could not come back.
    """
    for _ in range(1000):
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed("no free TCP port between 10000 and 32000 on 127.0.0.1")


def accepts_connections(port: int) -> bool:
    """Whether something listens on this port of the local machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
