"""The Compose Specification's own parser: what `docker compose` itself reads files with."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.parts import cache

VERSION = "v2.16.2"
KEPT = f"compose-go-{VERSION}"
PACKAGE = f"github.com/compose-spec/compose-go/v2/cmd@{VERSION}"


class InvalidCompose(ValueError):
    """The parser refuses the file; the message is its own."""


def fetch() -> Path:
    """The parser's executable, built on first use."""
    return cache.kept(KEPT, lambda folder: cache.fetch_go_command(folder, PACKAGE)) / "cmd"


def parse(path: Path) -> dict[str, Any]:
    """Check a compose file against the specification; return it with defaults, variables and merges resolved."""
    # Only what the file itself says: a developer's .env or shell has no say in a test.
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = [str(fetch()), "--format", "json", str(path)]
    done = subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InvalidCompose(f"{done.stdout}{done.stderr}")
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed
