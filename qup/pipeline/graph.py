"""The deduplicated graph: nodes by (kind, key), in an order in which inputs come first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from qup.config.fingerprint import digest
from qup.config.fingerprint import fields as key_fields
from qup.config.once import Once
from qup.pipeline.kinds import KINDS
from qup.pipeline.nodes import Node, Ref

__all__ = ["CellStages", "Graph", "Node", "Ref", "keys_of", "wanted_of"]


@dataclass
class CellStages:
    """The stages of one cell, for the table and the report."""

    label: str
    config: Any
    """The cell's frozen Config."""
    stages: dict[str, Any]
    """Kind → key; `candidates`, `reward` and `evaluate_at` map names to keys."""
    wanted: tuple[Ref, ...] = ()
    """What the cell's row is read from."""
    merged: list[str] = field(default_factory=list)
    """Labels of cells that turned out to be this one."""
    members: list[int] = field(default_factory=list)
    """Places of all its cells in the list that was compiled."""


class Graph:
    """Nodes by reference, in insertion order, which is topological."""

    def __init__(self) -> None:
        self.nodes: dict[Ref, Node] = {}
        self.users: dict[Ref, list[int]] = {}
        self.cells: list[CellStages] = []
        self._once = Once()

    def add(self, kind: str, view: Any, inputs: dict[str, Ref] | None = None, hints: dict[str, Ref] | None = None, label: str = "") -> Ref:
        """Adds a stage and returns its reference; the same stage is there once."""
        inputs = inputs or {}
        ref = Ref(kind, self._key(kind, view, inputs))
        node = self.nodes.get(ref)
        if node is None:
            self.nodes[ref] = Node(ref, view, inputs, dict(hints or {}), label)
        elif hints:
            node.hints.update({name: hint for name, hint in hints.items() if name not in node.hints})
        return ref

    def _key(self, kind: str, view: Any, inputs: dict[str, Ref]) -> str:
        hasher = hashlib.sha256(f"{kind}\0{KINDS[kind].version}\0".encode())
        for entry in fields(view):
            if not entry.metadata.get("runtime"):
                value = getattr(view, entry.name)
                told = self._once(_digest, value) if is_dataclass(value) else _digest(value)
                hasher.update(f"{entry.name}\0{told}\0".encode())
        for name in sorted(inputs):
            hasher.update(f"{name}\0{inputs[name]}\0".encode())
        return hasher.hexdigest()[:20]

    def mark_users(self) -> None:
        """Notes which cells share each stage; walked from the cells' ends upwards."""
        for index, cell in enumerate(self.cells):
            open_refs = list(cell.wanted)
            reached: set[Ref] = set()
            while open_refs:
                ref = open_refs.pop()
                if ref not in reached:
                    reached.add(ref)
                    self.users.setdefault(ref, []).append(index)
                    open_refs.extend(self.nodes[ref].parents)


def _digest(value: Any) -> str:
    return digest(key_fields(value))


def wanted_of(stages: dict[str, Any]) -> tuple[Ref, ...]:
    """What a cell's row and its report are read from, of its stages by column."""
    found: list[Ref] = []
    for name in (*(kind.name for kind in KINDS.values() if kind.row), "evaluate_at"):
        entry = stages.get(name)
        found.extend(entry.values() if isinstance(entry, dict) else [entry] if entry else [])
    return tuple(dict.fromkeys(found))


def keys_of(stages: dict[str, Any]) -> dict[str, Any]:
    """References as the study's record holds them: keys, by name where there are several.

    Candidates that were accepted from rounds of tries are another kind, and are written `accept/<key>`.
    """

    def key(name: str, ref: Ref) -> str:
        return ref.key if ref.kind == name or name == "evaluate_at" else str(ref)

    return {
        name: {inner: key(name, ref) for inner, ref in entry.items()} if isinstance(entry, dict) else key(name, entry)
        for name, entry in stages.items()
    }
