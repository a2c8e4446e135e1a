"""What deploy/Dockerfile would ship, without a container: the package as it is installed, not as it is checked out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.dockerfile import ROOT, Stage, reaches_the_builder, stages


@dataclass(frozen=True)
class Image:
    """The installed package in `site`, made from `context`; `home` stands for the user's folder."""

    context: Path
    site: Path
    home: Path
    final: Stage

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """The final stage's own variables and `extra`, with paths that exist here."""
        shipped = {key: value for key, value in self.final.environment.items() if key != "PATH"}
        return {
            "HOME": str(self.home),
            "PATH": f"{self.site / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.site),
            **shipped,
            "NUMBA_CACHE_DIR": str(self.home / ".numba"),
            **(extra or {}),
        }

    def command(self, arguments: list[str]) -> list[str]:
        """ENTRYPOINT followed by the arguments of a service, as a container would start it."""
        return [*self.final.last("ENTRYPOINT").words, *arguments]

    def run(self, command: list[str], extra: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in the image's environment."""
        return subprocess.run(
            command, cwd=self.home, env=self.environment(extra), capture_output=True, text=True, check=False
        )


def build(folder: Path) -> Image:
    """Install what the Dockerfile copies, and only that, into `folder`, and compile as it does."""
    context, site, home = folder / "context", folder / "site", folder / "home"
    for path in stages()[0].copied:
        target = context / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=_ignored)
        else:
            shutil.copy(ROOT / path, target)
    home.mkdir()
    install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(site), str(context)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, cwd=folder)
    image = Image(context, site, home, stages()[-1])
    (warm,) = [each.text for each in image.final.all("RUN") if "stream.agents.warm_up" in each.text]
    warmed = image.run(["python", *warm.split("python", 1)[1].split("&&")[0].split()])
    assert warmed.returncode == 0, warmed.stderr
    return image


def _ignored(folder: str, names: list[str]) -> set[str]:
    inside = Path(folder).relative_to(ROOT)
    return {name for name in names if not reaches_the_builder((inside / name).as_posix())}
