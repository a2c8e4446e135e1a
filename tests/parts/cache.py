"""Fetch a part once into a folder outside the tree, with the machine's own Maven and Go configuration."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAVEN_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
MINIMUM_JAVA = 17
FETCH_ATTEMPTS = 3
FETCH_SECONDS = 900.0

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>whyrec.tests</groupId><artifactId>part</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
DEPENDENCY = "    <dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


class PartUnavailable(RuntimeError):
    """This machine cannot have the part: a tool is missing or the download failed. The message says which and why."""


def cache_directory() -> Path:
    """The folder the parts are kept in: `WHYREC_TEST_CACHE`, else `~/.cache/whyrec-parts`."""
    configured = os.environ.get("WHYREC_TEST_CACHE")
    return Path(configured).absolute() if configured else Path.home() / ".cache" / "whyrec-parts"


def kept(name: str, fill: Callable[[Path], None]) -> Path:
    """The cached folder `name`; where it is missing, `fill` writes it into an empty folder that is then moved in place.

    Two runs at once do not hurt: the second waits for the first, and a folder that `fill` left half written is never
    seen under its name.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / name
    if target.is_dir():
        return target
    with _locked(cache / f"{name}.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as scratch:
                partial = Path(scratch) / "part"
                partial.mkdir()
                fill(partial)
                partial.rename(target)
    return target


def tool(name: str) -> str:
    """Path of an executable this machine must have."""
    found = shutil.which(name)
    if found is None:
        raise PartUnavailable(f"`{name}` is not on the PATH; install it, or point the test at an existing server")
    return found


def java() -> str:
    """Path of a Java runtime that is new enough for Kafka 4."""
    path = tool("java")
    spoken = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', spoken)
    if version is None or int(version[1]) < MINIMUM_JAVA:
        first_line = (spoken.splitlines() or ["nothing"])[0]
        raise PartUnavailable(f"Java {MINIMUM_JAVA} or newer is needed; `java -version` says {first_line}")
    return path


def fetch_jars(folder: Path, coordinates: list[str]) -> None:
    """Copy the jars of `group:artifact:version` coordinates and everything they need at run time into `folder`."""
    dependencies = "\n".join(DEPENDENCY.format(*coordinate.split(":")) for coordinate in coordinates)
    with tempfile.TemporaryDirectory() as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_text(POM.format(dependencies=dependencies))
        goal = f"{MAVEN_DEPENDENCY_PLUGIN}:copy-dependencies"
        _fetch([tool("mvn"), "-B", "-q", "-f", str(pom), goal, "-DincludeScope=runtime", f"-DoutputDirectory={folder}"])


def fetch_artifact(folder: Path, artifact: str) -> Path:
    """Copy one Maven artifact (`group:artifact:version:type:classifier`) into `folder` and return its path."""
    with tempfile.TemporaryDirectory() as scratch:
        # Outside any project, so that a pom of the caller's folder has no say.
        copy = [f"{MAVEN_DEPENDENCY_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
        _fetch([tool("mvn"), "-B", "-q", *copy], cwd=Path(scratch))
    (fetched,) = folder.iterdir()
    return fetched


def fetch_go_command(folder: Path, package: str) -> None:
    """Build `module/cmd/name@version` into `folder` with `go install`."""
    _fetch([tool("go"), "install", package], env={**os.environ, "GOBIN": str(folder)})


def _fetch(command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    said = ""
    for _ in range(FETCH_ATTEMPTS):
        try:
            done = subprocess.run(
                command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS
            )
        except subprocess.TimeoutExpired:
            said = f"nothing for {FETCH_SECONDS:.0f} s"
            continue
        if done.returncode == 0:
            return
        said = f"{done.stdout}\n{done.stderr}".strip()[-2000:]
    raise PartUnavailable(f"`{' '.join(command)}` failed {FETCH_ATTEMPTS} times; it last said:\n{said}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
