"""Apicurio Registry, which speaks Confluent's schema registry API; it keeps its schemas in memory."""

from __future__ import annotations

import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from tests.parts import cache
from tests.parts.foreground import until_interrupted
from tests.parts.process import ServerProcess, accepts_connections, free_port
from tests.parts.server import Server

VERSION = "2.5.11.Final"
KEPT = f"apicurio-registry-{VERSION}"
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
JAVA_OPTIONS = ["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:-UsePerfData"]


class SchemaRegistry(Server):
    """A registry on a free local port; `url` is the root of its Confluent-compatible API (`/apis/ccompat/v7`).

    It begins empty each time it is started.
    """

    def __init__(self) -> None:
        super().__init__("registry")
        java = cache.java()
        home = fetch()
        (jar,) = home.glob("*-runner.jar")
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat/v7"
        address = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self._port}"]
        self.process = ServerProcess(
            "schema-registry",
            [java, *JAVA_OPTIONS, *address, "-jar", str(jar)],
            ready=self._answers,
            directory=self.directory,
        )

    def _answers(self) -> bool:
        if not accepts_connections(self._port):
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=10) as answer:  # noqa: S310 - our own URL
                return bool(answer.status == 200)
        except urllib.error.HTTPError as not_yet:
            not_yet.close()  # or its socket stays open until it is collected, with a warning in whatever test runs then
            return False
        except (urllib.error.URLError, OSError):
            return False


def fetch() -> Path:
    """The folder the registry is unpacked in, fetched on first use."""
    return cache.kept(KEPT, _unpacked)


def _unpacked(folder: Path) -> None:
    archive = cache.fetch_artifact(folder, ARTIFACT)
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()


if __name__ == "__main__":
    until_interrupted(SchemaRegistry(), "url")
