"""A worker in a process of its own, started as an operator starts it. It never outlives the process that started it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from stream.errors import WorkerFailed

_START_S: Final = 300.0
_POLL_S: Final = 0.05
_LOG_LINES: Final = 12
_LINE_CHARACTERS: Final = 400

# On Linux, the kernel ends the worker when its parent ends, for whatever reason.
_DIE_WITH_PARENT: Final = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.executable, [sys.executable, "-m", "stream.cli", "worker", *sys.argv[2:]])
"""


class WorkerProcess:
    """``whyrec worker`` with additional settings in its environment; its log goes to a file."""

    def __init__(self, settings: Mapping[str, str], log: Path, *arguments: str) -> None:
        self.port = _free_port()
        self.log = log
        self._environment = {
            **os.environ,
            **{f"WHYREC_{name.upper()}": value for name, value in settings.items()},
            "WHYREC_METRICS_PORT": str(self.port),
        }
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            WorkerFailed: the worker was never started.

        """
        return self._started().pid

    @property
    def exit_status(self) -> int | None:
        """The exit status; None while the worker runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the worker without waiting for it. A second start appends to the same log."""
        sink: IO[bytes]
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid()), *self._arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the parent only, which then stops the worker in order
            )

    def wait_until_ready(self, limit_s: float = _START_S) -> None:
        """Wait until the worker has warmed up and partitions are assigned to it.

        Raises:
            WorkerFailed: the worker ended, or was not ready in time; the message has the end of its log.

        """
        give_up = time.monotonic() + limit_s
        while not self._answers("/ready"):
            if self.exit_status is not None:
                raise WorkerFailed(
                    f"the worker ended with status {self.exit_status} while starting:\n{self.last_words()}"
                )
            if time.monotonic() > give_up:
                raise WorkerFailed(f"the worker was not ready within {limit_s:.0f} s:\n{self.last_words()}")
            time.sleep(_POLL_S)

    def stop(self, limit_s: float = 90.0) -> int:
        """Ask the worker to end (SIGTERM) and return its exit status.

        Raises:
            WorkerFailed: the worker did not end in time and was killed.

        """
        process = self._started()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise WorkerFailed(f"the worker did not end within {limit_s:.0f} s:\n{self.last_words()}") from None

    def kill(self) -> None:
        """End the worker without warning (SIGKILL)."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def metrics(self) -> str:
        """Return the page of metrics that the worker serves to Prometheus."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            return str(answer.read(), "utf-8")

    def last_words(self) -> str:
        """Return the end of the log without tracebacks."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text("utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([*(_brief(line) for line in lines), f"(the whole log: {self.log})"])

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise WorkerFailed("the worker was never started")
        return self._process


def _brief(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return line[:_LINE_CHARACTERS]
    said = ("level", "event", "error")
    return "  ".join(str(record[name]) for name in said if name in record)[:_LINE_CHARACTERS]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
