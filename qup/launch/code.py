"""Which code a stage's result depends on, so that what other code made is known.

The code of a stage is every definition (function, class, module variable) that its module reaches by name within qup,
however deep, and what the modules on that way do when they are imported. Comments, docstrings and layout are no part of
it, and neither are the declarations of settings: a setting's value is in the key.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qup
from qup.files import read_json, write_json
from qup.pipeline.kinds import KINDS

ROOT = Path(qup.__file__).parent
CACHE = ".code.json"
"""What was read out of each source file, by its bytes; beside a store's artifacts. Losing it costs a second."""
WATCHES = "qup.tracking"
"""Shows runs to people; no result depends on it."""
SETTINGS = ("opt", "section")
"""Calls that declare a setting."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Module:
    """What a source file holds. JSON-able by `vars`."""

    definitions: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    """Name → digest, and the names that it uses, dotted where it reads an attribute."""
    effects: tuple[str, list[str]] = ("", [])
    """The same of what happens on import."""
    imports: dict[str, str] = field(default_factory=dict)
    """Local name → `module` or `module:name`."""
    modules: list[str] = field(default_factory=list)
    """Modules of the package that it imports anywhere."""


def read(text: str, package: str) -> Module:
    """Reads one file of a package."""
    found, effects = Module(), []
    tree = ast.parse(text)
    own = {name for statement in tree.body for name in _bound(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _inside(alias.name, package):
                    found.modules.append(alias.name)
                    found.imports[alias.asname or package] = alias.name if alias.asname else package
        elif isinstance(node, ast.ImportFrom) and node.module and _inside(node.module, package):
            found.modules.append(node.module)
            found.imports |= {alias.asname or alias.name: f"{node.module}:{alias.name}" for alias in node.names}
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom) or _is_text(statement):
            continue
        names = _bound(statement)
        if not names or (isinstance(statement, Definition) and _registers(statement, own | set(found.imports))):
            effects.append(statement)
        for name in names:
            before = found.definitions.get(name, ("", []))
            found.definitions[name] = (_digest(before[0], statement), [*before[1], *_used([statement], package)])
    found.effects = (_digest("", *effects), _used(effects, package)) if effects else ("", [])
    return found


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _bound(statement: ast.stmt) -> list[str]:
    """Names that a statement defines and does nothing else; none where it does more, such as a call or a condition."""
    if isinstance(statement, Definition):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target] if isinstance(statement, ast.AnnAssign) else []
    flat = [inner for target in targets for inner in (target.elts if isinstance(target, ast.Tuple) else [target])]
    names = [target.id for target in flat if isinstance(target, ast.Name)]
    return names if len(names) == len(flat) else []


def _registers(statement: Definition, known: set[str]) -> bool:
    """Whether a decorator of our own sees the definition on import."""
    return any(isinstance(node, ast.Name) and node.id in known for one in statement.decorator_list for node in ast.walk(one))


def _used(statements: list[ast.stmt], package: str) -> list[str]:
    """Names that statements read, `:module` that their texts name, as `python -m` takes it, and `'name` that they may look up by."""
    found: dict[str, None] = {}
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute):
                dotted = _dotted(node)
                if dotted:
                    found[dotted] = None
            elif isinstance(node, ast.Name):
                found.setdefault(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(rf"{package}(\.\w+)+", node.value):
                found[f":{node.value}"] = None
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                found.setdefault(f"'{node.value}")
    attributes = {name.partition(".")[0] for name in found if "." in name}
    bare = _bare(statements)
    return [name for name in found if name not in attributes or name in bare]


def _bare(statements: list[ast.stmt]) -> set[str]:
    """Names that are read other than for an attribute."""
    owners = {
        id(node.value)
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    return {node.id for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Name) and id(node) not in owners}


def _dotted(node: ast.Attribute) -> str:
    parts = [node.attr]
    inner = node.value
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    return ".".join([inner.id, *reversed(parts)]) if isinstance(inner, ast.Name) else ""


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


def _is_setting(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.AnnAssign) else None
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in SETTINGS


def _digest(before: str, *statements: ast.stmt) -> str:
    hasher = hashlib.sha256(before.encode())
    for statement in statements:
        hasher.update("\0".join(_words(statement)).encode())
    return hasher.hexdigest()[:16]


def _words(node: ast.AST) -> Iterator[str]:
    """A syntax tree as text, the same in every Python: without positions, docstrings, declared settings and empty fields."""
    yield type(node).__name__
    for name in node._fields:
        value: Any = getattr(node, name, None)
        if value is None or value == [] or isinstance(value, ast.expr_context):
            continue
        yield name
        for inner in value if isinstance(value, list) else [value]:
            if not isinstance(inner, ast.AST):
                yield repr(inner)
            elif not (isinstance(inner, ast.stmt) and (_is_text(inner) or _is_setting(inner))):
                yield from _words(inner)
    yield ")"


class Code:
    """The source of a package, read once a file."""

    def __init__(self, root: Path = ROOT, cache: Path | None = None) -> None:
        self._root, self._package, self._cache = root, root.name, cache
        self._files: dict[str, Path | None] = {}
        self._read: dict[str, Module] = {}
        self._known = (read_json(cache) or {}) if cache else {}
        self._new: dict[str, Any] = {}

    def digest(self, module: str) -> str:
        """Digest of the code that a module reaches; that of nothing where it is not there."""
        return hashlib.sha256("\n".join(sorted(self.reached(module))).encode()).hexdigest()[:16]

    def reached(self, module: str) -> set[str]:
        """`module:name digest` of each definition that a module reaches, itself whole, and `module digest` of each module's effects."""
        reach = _Reach(self)
        reach.whole(module)
        self._save()
        return reach.finish()

    def module(self, name: str) -> Module | None:
        """What a module holds; None where there is none of the name."""
        path = self.file(name)
        if path is None or _inside(name, WATCHES):
            return None
        if name not in self._read:
            data = path.read_bytes()
            key = hashlib.sha256(data).hexdigest()[:24]
            if key not in self._known:
                self._known[key] = self._new[key] = vars(read(data.decode("utf-8"), self._package))
            self._read[name] = Module(**self._known[key])
        return self._read[name]

    def file(self, module: str) -> Path | None:
        """Where a module lies; None where there is none of the name."""
        if module not in self._files:
            base = self._root.parent.joinpath(*module.split("."))
            there = [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()]
            self._files[module] = there[0] if there and _inside(module, self._package) else None
        return self._files[module]

    def _save(self) -> None:
        if not self._new or self._cache is None or not self._cache.parent.is_dir():
            return
        try:
            write_json(
                self._cache,
                self._new if len(self._known) > 20 * len(self._read) else (read_json(self._cache) or {}) | self._new,
                compact=True,
            )
            self._new = {}
        except OSError:
            self._cache = None


class _Reach:
    """One walk from a module to everything it reaches."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._open: list[tuple[str, str]] = []
        self._seen: set[tuple[str, str]] = set()
        self._touched: set[str] = set()
        self._found: set[str] = set()

    def whole(self, name: str) -> None:
        """All of a module."""
        self.touch(name)
        module = self._code.module(name)
        for definition in module.definitions if module else ():
            self._add(name, definition)

    def touch(self, name: str) -> None:
        """What happens when a module is imported."""
        names = [name]
        while names:
            name = names.pop()
            module = self._code.module(name) if name not in self._touched else None
            self._touched.add(name)
            if module is None:
                continue
            if module.effects[0]:
                self._found.add(f"{name} {module.effects[0]}")
                for used in module.effects[1]:
                    self._resolve(name, used)
            if "." not in name:  # the package itself, which imports a thing only for who calls it
                continue
            names += [*module.modules, name.rpartition(".")[0]]
            names += [target.replace(":", ".") for target in module.imports.values() if self._code.file(target.replace(":", "."))]

    def finish(self) -> set[str]:
        while self._open:
            name, definition = self._open.pop()
            module = self._code.module(name)
            assert module is not None
            digest, used = module.definitions[definition]
            self._found.add(f"{name}:{definition} {digest}")
            for one in used:
                self._resolve(name, one)
        return self._found

    def _add(self, name: str, definition: str) -> None:
        if (name, definition) not in self._seen:
            self._seen.add((name, definition))
            self._open.append((name, definition))

    def _resolve(self, name: str, used: str) -> None:
        """What a name, as a module uses it, stands for."""
        if used.startswith(":"):
            self.whole(used[1:])
            return
        module = self._code.module(name)
        first, _, rest = used.lstrip("'").partition(".")
        if module is None:
            return
        if first in module.definitions:
            self._add(name, first)
        elif first in module.imports and not used.startswith("'"):
            target, _, attribute = module.imports[first].partition(":")
            self._follow(target, ".".join(filter(None, (attribute, rest))))

    def _follow(self, name: str, attributes: str) -> None:
        """`attributes` of a module, which may be modules themselves; the whole module where there are none."""
        first, _, rest = attributes.partition(".")
        if not first:
            self.whole(name)
        elif self._code.file(f"{name}.{first}") is not None and not self._defines(name, first):
            self._follow(f"{name}.{first}", rest)
        else:
            self.touch(name)
            self._resolve(name, attributes)

    def _defines(self, name: str, attribute: str) -> bool:
        module = self._code.module(name)
        if module is None:
            return False
        return attribute in module.definitions or module.imports.get(attribute, f"{name}:{attribute}") != f"{name}:{attribute}"


@functools.cache
def stage_code(kind: str, store: Path) -> str:
    """Digest of the code of a stage kind; what was read out of files is remembered in the store."""
    return _code(store).digest(KINDS[kind].module)


@functools.cache
def _code(store: Path) -> Code:
    return Code(ROOT, store / CACHE)
