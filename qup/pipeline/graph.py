"""The deduplicated graph: nodes by (kind, key), in an order in which inputs come first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from qup.config.fingerprint import digest
from qup.config.fingerprint import fields as key_fields
from qup.pipeline.kinds import KINDS
from qup.pipeline.nodes import Node, Ref

__all__ = ["CellStages", "Graph", "Node", "Ref"]


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
        self._digests: dict[int, tuple[Any, str]] = {}

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
                hasher.update(f"{entry.name}\0{self._section_digest(getattr(view, entry.name))}\0".encode())
        for name in sorted(inputs):
            hasher.update(f"{name}\0{inputs[name]}\0".encode())
        return hasher.hexdigest()[:20]

    def _section_digest(self, value: Any) -> str:
        if not is_dataclass(value):
            return digest(key_fields(value))
        known = self._digests.get(id(value))
        if known is None:
            known = (value, digest(key_fields(value)))
            self._digests[id(value)] = known
        return known[1]
