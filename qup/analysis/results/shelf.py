"""A study's stored results, read and never touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qup.errors import CorruptArtifact
from qup.pipeline import KINDS
from qup.store import Artifact, Store
from qup.study import Cell


@dataclass
class Shelf:
    """Read-only access to a store: what is missing or corrupt is noted, never mended."""

    store: Store
    corrupt: dict[str, str] = field(default_factory=dict)
    """stage/key → why it cannot be read."""
    _known: dict[tuple[str, str], Artifact | None] = field(default_factory=dict)

    def get(self, kind: str, key: str) -> Artifact | None:
        """The artifact, None where it is not there or its manifest is corrupt."""
        ref = (kind, key)
        if ref not in self._known:
            try:
                self._known[ref] = self.store.get(kind, key)
            except CorruptArtifact as error:
                self._known[ref] = None
                self.corrupt[f"{kind}/{key}"] = error.why
            except OSError as error:
                self._known[ref] = None
                self.corrupt[f"{kind}/{key}"] = error.strerror or str(error)
        return self._known[ref]

    def of(self, cell: Cell, stage: str, name: str = "") -> Artifact | None:
        """The artifact of a cell's stage, None where the cell has none or it is not there."""
        found = cell.key(stage, name)
        return self.get(*found) if found else None

    def metrics(self, cell: Cell, stage: str, name: str = "") -> Mapping[str, Any]:
        """A stage's figures; empty where there are none."""
        artifact = self.of(cell, stage, name)
        return artifact.metrics if artifact is not None else {}

    def table(self, artifact: Artifact, name: str, columns: Sequence[str]) -> Any:
        """Some columns of a table; None where it cannot be read, which is noted."""
        try:
            return artifact.table(name, list(columns))
        except CorruptArtifact as error:
            self.corrupt[f"{artifact.stage}/{artifact.key}"] = error.why
        except (OSError, ValueError, KeyError) as error:
            self.corrupt[f"{artifact.stage}/{artifact.key}"] = str(error)
        return None

    def missing(self, cell: Cell) -> list[str]:
        """Stage kinds of a cell that are not in the store, of those its row is read from."""
        wanted = (*(kind.name for kind in KINDS.values() if kind.row), "evaluate_at")
        absent = [(column, name) for column, kind, name, key in cell.refs() if column in wanted and self.get(kind, key) is None]
        found = [f"{column}.{name}" if name else column for column, name in sorted(absent, key=lambda one: wanted.index(one[0]))]
        return list(dict.fromkeys(found))
