"""Read a Dockerfile as stages of instructions; as much of its grammar as ours uses."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, and what follows."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The text as an exec form's list, or split as a shell would."""
        if self.text.startswith("["):
            listed: list[str] = json.loads(self.text)
            return listed
        return shlex.split(self.text)


@dataclass
class Stage:
    """From one FROM to the next."""

    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        return self.all(name)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        pairs = (word.partition("=") for instruction in self.all("ENV") for word in instruction.words)
        return {key: value for key, _, value in pairs}

    @property
    def copied(self) -> list[str]:
        """Paths that COPY takes from the build context, not from another stage."""
        copies = [instruction.words for instruction in self.all("COPY")]
        return [path for words in copies if not words[0].startswith("--from=") for path in words[:-1]]


def stages() -> list[Stage]:
    """The stages of deploy/Dockerfile."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: list[Stage] = []
    for joined in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        name, _, text = joined.strip().partition(" ")
        if name == "FROM":
            base, *alias = text.split()
            found.append(Stage(base, alias[1] if alias else None))
        elif name:
            found[-1].instructions.append(Instruction(name, text.strip()))
    return found


def reaches_the_builder(path: str) -> bool:
    """Whether .dockerignore lets a path of the build context through; the last pattern that matches decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        exception = pattern.startswith("!")
        if _matches(path, pattern.removeprefix("!")):
            ignored = not exception
    return not ignored


def _matches(path: str, pattern: str) -> bool:
    parts = Path(path).parts
    candidates = ["/".join(parts[: length + 1]) for length in range(len(parts))]  # a pattern covers what lies below
    if pattern.startswith("**/"):
        return any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in parts)
    return any(
        fnmatch.fnmatch(candidate, pattern) for candidate in candidates if candidate.count("/") == pattern.count("/")
    )
