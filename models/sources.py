"""The source files that a compiled kernel depends on, found by reading them, so that a cache can be keyed on them.

A kernel's machine code contains the functions that it calls and the constants that it reads, and these may stand in
other files. They are found by name: a name that a top-level statement mentions is either bound by another top-level
statement of the same file, or imported from a file of the project, or of no concern here (numpy, built-ins). Whole
files count, so that a declaration beside a function, such as a registered data model, counts as well.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Final

_EVERYTHING: Final = "*"
"""Stands for all names of a module, where the module itself is imported."""

_PACKAGES: Final = ("models", "schemas", "stream")


@dataclass(frozen=True)
class _Module:
    """Top-level names of a file: the names that their statements mention, and the module and name of each import."""

    uses: dict[str, set[str]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)


def digest(module: str, path: Path, name: str) -> str:
    """Hash the content of all files that a top-level name of a module depends on, this module's file included.

    Returns hexadecimal SHA-256. Raises OSError if a file cannot be read.
    """
    root = path.resolve().parents[module.count(".") + (path.name == "__init__.py")]
    hashed = hashlib.sha256()
    for each in sorted(files(root, module, name) | {path.resolve()}):
        hashed.update(str(each.relative_to(root)).encode() + b"\0" + hashlib.sha256(each.read_bytes()).digest())
    return hashed.hexdigest()


def files(root: Path, module: str, name: str) -> set[Path]:
    """Return the files below ``root`` that hold what a top-level name of a module depends on.

    Only files of the module's own top-level package and of this project's packages are followed.
    """
    packages = {module.partition(".")[0], *_PACKAGES}
    found: set[Path] = set()
    met: set[tuple[str, str]] = set()
    waiting = [(module, name)]
    while waiting:
        module, name = waiting.pop()
        path = _path(root, module) if module.partition(".")[0] in packages else None
        if path is None or (module, name) in met:
            continue
        met.add((module, name))
        found.add(path)
        if _path(root, f"{module}.{name}"):
            waiting.append((f"{module}.{name}", _EVERYTHING))
            continue
        read = _read(path, module)
        wanted = read.uses.keys() | read.imports.keys() if name == _EVERYTHING else {name}
        for each in wanted:
            waiting += [(module, used) for used in read.uses.get(each, ())]
            if each in read.imports:
                waiting.append(read.imports[each])
    return found


def _path(root: Path, module: str) -> Path | None:
    base = root.joinpath(*module.split("."))
    return next((each for each in (base.with_suffix(".py"), base / "__init__.py") if each.is_file()), None)


@cache
def _read(path: Path, module: str) -> _Module:
    read = _Module()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue  # such names stand in annotations only
        mentioned = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        for name in _bound(statement):
            read.uses.setdefault(name, set()).update(mentioned)
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    read.imports[name] = (alias.name, _EVERYTHING)
            elif isinstance(node, ast.ImportFrom):
                source = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
                for alias in node.names:
                    read.imports[alias.asname or alias.name] = (source or "", alias.name)
    return read


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Yield the top-level names that a statement binds, except by importing."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
