"""One stage run of a graph, and the reference that names it and its artifact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Ref(NamedTuple):
    """A stage's name and key: what names an artifact."""

    kind: str
    key: str

    @classmethod
    def parse(cls, text: str, kind: str = "") -> Ref:
        """From `kind/key`, or from a key alone where its kind is known."""
        named, _, key = text.rpartition("/")
        return cls(named or kind, key)

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}"


@dataclass(frozen=True)
class Node:
    """One stage run that one or more cells share."""

    ref: Ref
    view: Any
    inputs: dict[str, Ref]
    hints: dict[str, Ref]
    """Read where they exist, never part of the key: results that this one can be gathered from."""
    label: str

    @property
    def kind(self) -> str:
        return self.ref.kind

    @property
    def key(self) -> str:
        return self.ref.key

    @property
    def parents(self) -> tuple[Ref, ...]:
        return (*self.inputs.values(), *self.hints.values())
