"""What every server here can do: come, go, crash and come back, and take its temporary folder with it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.parts.process import ServerProcess


class Server:
    """A server with a temporary folder; a subclass sets `process` and may prepare before it starts."""

    process: ServerProcess

    def __init__(self, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"whyrec-{name}-"))

    @property
    def running(self) -> bool:
        return self.process.running

    def start(self) -> None:
        """Start it, or bring it back with the address and the files it had; returns when it answers."""
        self.process.start()

    def stop(self) -> None:
        """A clean shutdown."""
        self.process.stop()

    def kill(self) -> None:
        """A crash: SIGKILL, nothing flushed."""
        self.process.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        # Its files go too, so there is nothing a clean shutdown would save.
        self.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
