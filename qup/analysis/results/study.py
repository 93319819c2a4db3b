"""A registered study as the analysis sees it: its cells, and the artifacts behind them where they are there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qup.errors import CorruptArtifact, InputError
from qup.store import Artifact, Store

BASE = "base"
"""Name of the stream of rows that were not trained."""


@dataclass(frozen=True)
class Cell:
    """One row of the table: its settings in plain form, and its stages' keys."""

    label: str
    config: Mapping[str, Any]
    stages: Mapping[str, Any]

    @property
    def is_base(self) -> bool:
        """Whether the untuned student is evaluated."""
        return self.get("stream.name") == BASE

    def get(self, path: str, default: Any = None) -> Any:
        """A setting by dotted path; `default` where it or a section above it is missing."""
        value: Any = self.config
        for name in path.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return default
            value = value[name]
        return value

    def refs(self) -> Iterator[tuple[str, str, str, str]]:
        """(column, stage kind, name within it, key) of every stage; `accept/<key>` is of kind accept."""
        for stage, entry in self.stages.items():
            named = entry if isinstance(entry, Mapping) else {"": entry}
            for name, value in named.items():
                if not value:
                    continue
                kind, _, key = str(value).rpartition("/")
                yield stage, kind or ("evaluate" if stage == "evaluate_at" else stage), name, key

    def key(self, stage: str, name: str = "") -> tuple[str, str] | None:
        """(kind, key) of one stage, None where the cell has none."""
        for column, kind, inner, key in self.refs():
            if column == stage and inner == name:
                return kind, key
        return None


@dataclass(frozen=True)
class Study:
    """A grid under one name."""

    name: str
    cells: tuple[Cell, ...]
    folder: Path | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any], folder: Path | None = None) -> Study:
        """From the content of study.json; InputError where it is not one."""
        try:
            cells = tuple(Cell(str(entry["label"]), entry["config"], entry["stages"]) for entry in record["cells"])
            return cls(str(record["name"]), cells, folder)
        except (KeyError, TypeError) as error:
            raise InputError(f"{folder or 'study'}/study.json: not a study's record ({error!r}); launch the study again") from None

    @classmethod
    def load(cls, folder: Path) -> Study:
        """From a study's folder; InputError where it cannot be read."""
        path = folder / "study.json"
        try:
            record = json.loads(path.read_text())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give the folder of a launched study") from None
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}); launch the study again") from None
        return cls.of(record, folder)

    def setting(self, path: str, default: Any = None) -> Any:
        """A setting of the first cell: for what all cells of a study share."""
        return self.cells[0].get(path, default) if self.cells else default


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
        wanted = ("stream", "reward", "perplexity", "retention", "train", "evaluate", "evaluate_at")
        absent = [(column, name) for column, kind, name, key in cell.refs() if column in wanted and self.get(kind, key) is None]
        found = [f"{column}.{name}" if name else column for column, name in sorted(absent, key=lambda one: wanted.index(one[0]))]
        return list(dict.fromkeys(found))
