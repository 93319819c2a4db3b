"""A study: a grid of cells under one name in one store, written down once (study.json) and read by everyone from here.

Its folder is `<store>/studies/<name>/`; `<study.dir>/<name>` is a link that leads there. A dry run's record lies in
study.dir alone.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from qup.config.fingerprint import build
from qup.config.schema import Config
from qup.config.settle import BASE
from qup.errors import ConfigError, InputError
from qup.files import write_json
from qup.pipeline.graph import Ref
from qup.pipeline.kinds import KINDS
from qup.store import Store

FILE = "study.json"


class StageRef(NamedTuple):
    """One stage of one cell: its column in the record, and the name within it where the column holds several."""

    column: str
    kind: str
    name: str
    key: str

    @property
    def ref(self) -> Ref:
        return Ref(self.kind, self.key)


@dataclass(frozen=True)
class Cell:
    """One row of the table: its settings in plain form, and its stages' keys."""

    label: str
    config: Mapping[str, Any]
    """The settings with every path and hub name known by its content."""
    stages: Mapping[str, Any]
    """Column → key, or name → key where a cell has several; `evaluate_at` holds the evaluations of weights kept on the way."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """The settings as they were launched."""
    wanted: tuple[Ref, ...] = ()
    """The stages that the row is read from."""
    merged: tuple[str, ...] = ()
    """Labels of launched cells that come to the same stages."""

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

    def refs(self, column: str | None = None) -> Iterator[StageRef]:
        """Every stage, or those of one column; `accept/<key>` is of kind accept."""
        for stage, entry in self.stages.items() if column is None else [(column, self.stages.get(column))]:
            for name, value in (entry if isinstance(entry, Mapping) else {"": entry}).items():
                if value:
                    kind, _, key = str(value).rpartition("/")
                    yield StageRef(stage, kind or ("evaluate" if stage == "evaluate_at" else stage), name, key)

    def key(self, column: str, name: str = "") -> Ref | None:
        """One stage, None where the cell has none."""
        return next((stage.ref for stage in self.refs(column) if stage.name == name), None)

    def ordered(self) -> list[Ref]:
        """All stages, each once, in the pipeline's order."""
        order = {kind: place for place, kind in enumerate((*KINDS, "evaluate_at"))}
        return list(dict.fromkeys(stage.ref for stage in sorted(self.refs(), key=lambda stage: order.get(stage.column, -1))))


@dataclass(frozen=True)
class Study:
    """A grid under one name. `store` and `folder` are absolute."""

    name: str
    cells: tuple[Cell, ...]
    store: Path
    folder: Path
    """Where its files are."""
    nodes: Mapping[Ref, tuple[Ref, ...]] = field(default_factory=dict)
    """Every stage of every cell, with its inputs."""
    again: Mapping[Ref, float | None] = field(default_factory=dict)
    """Stages whose stored result is to be made anew, with the time at which that was made."""
    grid: tuple[str, ...] = ()
    """What makes the grid this grid: digests of its cells' settings, whatever files or commits they resolve to."""
    dry_run: bool = False
    """Nothing of it has run or is kept in the store."""
    launched_by: Mapping[str, str] = field(default_factory=dict)
    """qup's version and, from a checkout, its commit, at the last launch."""

    @property
    def identity(self) -> str:
        """Tells this study from those of the same name in other stores: `<name>@<digest of the store's place>`."""
        return identity(self.name, self.store)

    @classmethod
    def of(cls, record: Mapping[str, Any], folder: Path) -> Study:
        """From the content of study.json; InputError where it is not one."""
        folder = folder.absolute()
        try:
            return cls(
                name=str(record["name"]),
                cells=tuple(_cell(entry, record.get("sections")) for entry in record["cells"]),
                store=_store_of(folder, record),
                folder=folder,
                nodes={Ref.parse(name): tuple(map(Ref.parse, parents)) for name, parents in record.get("nodes", {}).items()},
                again={Ref.parse(name): made for name, made in record.get("again", {}).items()},
                grid=tuple(record.get("grid", ())),
                dry_run=bool(record.get("dry_run", False)),
                launched_by={str(name): str(value) for name, value in record.get("launched_by", {}).items()},
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise InputError(f"{folder / FILE}: not a study's record ({error!r}); move it away and launch the study again") from None

    @classmethod
    def load(cls, folder: Path) -> Study:
        """From a study's folder; InputError where it cannot be read."""
        try:
            record = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{folder / FILE}: cannot be read ({error.strerror}); give the folder of a launched study") from None
        except ValueError as error:
            raise InputError(f"{folder / FILE}: not a study's record ({error}); move it away and launch the study again") from None
        return cls.of(record, folder)

    @classmethod
    def at(cls, folder: Path) -> Study | None:
        """As `load`, None where no study is."""
        return cls.load(folder) if (folder / FILE).exists() else None

    def save(self) -> None:
        """Writes the record whole or not at all; a section that cells have in common is there once."""
        sections = _Sections()
        cells = [
            {
                **vars(cell),
                "config": sections.numbers(cell.config),
                "given": sections.numbers(cell.given),
                "wanted": [str(ref) for ref in cell.wanted],
            }
            for cell in self.cells
        ]
        write_json(
            self.folder / FILE,
            {
                "name": self.name,
                "store": str(self.store),
                "grid": self.grid,
                "sections": sections.all,
                "cells": cells,
                "nodes": {str(ref): [str(parent) for parent in parents] for ref, parents in self.nodes.items()},
                "again": {str(ref): made for ref, made in self.again.items()},
                "launched_by": dict(self.launched_by),
                **({"dry_run": True} if self.dry_run else {}),
            },
            compact=True,
        )

    def setting(self, path: str, default: Any = None) -> Any:
        """A setting of the first cell: for what all cells of a study share."""
        return self.cells[0].get(path, default) if self.cells else default

    def open_store(self) -> Store:
        """Its store, with the lease that the study was launched with."""
        return Store(self.store, float(self.setting("store.lease_s", 60.0)))

    def configs(self) -> list[Config]:
        """The cells' typed settings, contents filled; the store is the one that the study lies in now."""
        made = [build(Config, cell.config) for cell in self.cells]
        return [replace(cell, store=replace(cell.store, dir=str(self.store))) for cell in made]

    def given(self) -> list[Config]:
        """The cells' typed settings as they were launched."""
        return [build(Config, cell.given) for cell in self.cells]

    def find(self, label: str) -> Cell | None:
        """A cell by its label, the label of one merged into it, or its number; None where there is none."""
        if label.isdigit() and int(label) < len(self.cells):
            return self.cells[int(label)]
        return next((cell for cell in self.cells if label == cell.label or label in cell.merged), None)


def identity(name: str, store: Path) -> str:
    """What marks a study's jobs: its name, and its store by where that really lies."""
    return f"{name}@{hashlib.sha256(os.fsencode(os.path.realpath(store))).hexdigest()[:10]}"


class _Sections:
    """Sections of settings, each distinct one by its number."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._numbers: dict[str, int] = {}

    def numbers(self, config: Mapping[str, Any]) -> dict[str, int]:
        found = {}
        for name, section in config.items():
            text = json.dumps(section)
            if text not in self._numbers:
                self._numbers[text] = len(self.all)
                self.all.append(section)
            found[name] = self._numbers[text]
        return found


def _cell(entry: Mapping[str, Any], sections: Sequence[Any] | None) -> Cell:
    def whole(config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings themselves, where a record has sections by number."""
        if sections is None:
            return config
        if not isinstance(sections, list) or not all(type(number) is int and 0 <= number < len(sections) for number in config.values()):
            raise IndexError(f"sections of {entry['label']}")
        return {name: sections[number] for name, number in config.items()}

    return Cell(
        label=str(entry["label"]),
        config=whole(entry["config"]),
        stages=entry["stages"],
        given=whole(entry.get("given", {})),
        wanted=tuple(map(Ref.parse, entry.get("wanted", ()))),
        merged=tuple(entry.get("merged", ())),
    )


def _store_of(folder: Path, record: Mapping[str, Any]) -> Path:
    """The store a study's folder lies in; the one that its record names where it lies in none."""
    folder = folder.resolve()
    return folder.parent.parent if folder.parent.name == "studies" else Path(record["store"]).absolute()


def registered(store: Store) -> Iterator[Study]:
    """All studies that live in a store."""
    for folder in sorted(store.studies.iterdir()) if store.studies.is_dir() else []:
        study = Study.at(folder)
        if study is not None:
            yield study


def studies_in(shown: Path) -> list[Path]:
    """The folders of the studies presented in a directory, dry runs among them, by name."""
    return sorted(entry for entry in shown.iterdir() if (entry / FILE).exists()) if shown.is_dir() else []


def find_study(name: str, shown: Path = Path("multirun"), *, ran: bool = False) -> Study:
    """A study given by name or path; InputError names those there are, and refuses a dry run where one that `ran` is wanted."""
    for folder in (shown / name, Path(name)):
        if (folder / FILE).exists():
            found = Study.load(folder.resolve())
            if ran and found.dry_run:
                raise InputError(f"study {found.name!r}: a dry run, of which nothing has run; launch it without study.dry_run=true first")
            return found
    there = [folder.name for folder in studies_in(shown)]
    where = (
        f"there are {', '.join(there)}"
        if there
        else "there is none: call qup where you launched, or name study.dir with --dir before the command"
    )
    raise InputError(f"study {name!r}: not found under {shown}/; {where}")


def find_cell(label: str, study: str | None, shown: Path, *, ran: bool = False) -> tuple[Study, Cell]:
    """A cell by what a person types, a label or a number; InputError names those there are."""
    found = find_study(study, shown, ran=ran) if study else _only_study(shown, label)
    cell = found.find(label)
    if cell is not None:
        return found, cell
    labels = [each.label for each in found.cells]
    near = difflib.get_close_matches(label, labels, 3) or labels[:8]
    raise InputError(f"cell {label!r}: not in study {found.name}; near: {', '.join(near)} (or a number below {len(labels)})")


def _only_study(shown: Path, label: str) -> Study:
    found = [Study.load(folder.resolve()) for folder in studies_in(shown)]
    there = [study for study in found if not study.dry_run] or found
    if len(there) == 1:
        return there[0]
    holding = [study for study in there if not label.isdigit() and study.find(label)]
    if len(holding) == 1:
        return holding[0]
    names = ", ".join(study.name for study in (holding or there))
    raise InputError(f"cell {label!r}: name the study with --study; there {'are ' + names if names else 'is none'} under {shown}/")


def config_of(store: Path, study: str, label: str) -> Mapping[str, Any]:
    """The full settings of a cell of a registered study; empty where they are not to be had."""
    try:
        found = Study.load(Store(store).studies / study)
    except (InputError, ConfigError):
        return {}
    return next((cell.config for cell in found.cells if cell.label == label), {})
