"""Which source a stage's result depends on: its module and all of qup that it imports, however deep."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

import qup

ROOT = Path(qup.__file__).parent


def _file(module: str) -> Path | None:
    base = ROOT.parent.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported(path: Path) -> set[str]:
    """Names of qup's modules that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name == "qup" or name.startswith("qup.")}


@functools.cache
def closure(module: str) -> tuple[Path, ...]:
    """Files reached from a module by imports within qup, sorted."""
    seen: dict[Path, None] = {}
    open_names = [module]
    while open_names:
        path = _file(open_names.pop())
        if path is not None and path not in seen:
            seen[path] = None
            open_names.extend(imported(path))
    return tuple(sorted(seen))


@functools.cache
def code_digest(module: str) -> str:
    """Digest of a stage's source closure; empty where the module is not there."""
    hasher = hashlib.sha256()
    for path in closure(module):
        hasher.update(f"{path.relative_to(ROOT)}\0".encode())
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:16]
