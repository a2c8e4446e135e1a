"""A flame graph of a running process, by py-spy: where its time goes, thread by thread."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which

_RATE = 199
"""Samples a second; not a multiple of anything that happens on the clock."""

_TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*')
"""Py-spy puts its own command line there, which names folders of this machine."""
_SAYS = "who holds the interpreter's lock, thread by thread"


@contextlib.contextmanager
def flame_graph(pid: int, to: Path | None, duration_s: float) -> Iterator[None]:
    """Sample a process while the context lasts, at most ``duration_s`` seconds, into an SVG; None: not at all.

    Only the thread that holds the interpreter's lock is sampled. In the SVG a frame is a function; a path that ends in
    ``.txt`` gets the stacks as text, one line each, and there a frame is a line.
    """
    if to is None:
        yield
        return
    spy = which("py-spy", path=str(Path(sys.executable).parent)) or which("py-spy")
    if spy is None:
        raise SystemExit("a flame graph needs py-spy: python -m pip install py-spy")
    form = ("--format", "raw") if to.suffix == ".txt" else ("--format", "flamegraph", "--function")
    sampling = subprocess.Popen(
        [
            *(spy, "record", "--pid", str(pid), "--output", str(to), *form, "--threads", "--gil"),
            *("--rate", str(_RATE), "--duration", str(max(1, int(duration_s) - 1))),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        try:
            sampling.wait(30)
        except subprocess.TimeoutExpired:
            sampling.kill()
            sampling.wait()
        if to.suffix != ".txt" and to.exists():
            to.write_text(_TITLE.sub(rf"\g<1>{_SAYS}", to.read_text("utf-8"), count=1), "utf-8")
