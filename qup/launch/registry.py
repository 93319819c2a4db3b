"""Studies on disk: what a name stands for, where its files are, and which artifacts it needs.

A study lives in `<store>/studies/<name>/`; `<study.dir>/<name>` is a link that leads there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qup.config.fingerprint import build, digest, fields, plain
from qup.config.schema import Config
from qup.errors import InputError, QupError
from qup.launch.plan import Plan
from qup.pipeline.graph import Ref
from qup.store import Store
from qup.store.store import write_json


def study_dir_of(first: Config) -> Path:
    """Where the study of a cell lives."""
    return Store(first.store.dir).studies / (first.study.name or "study")


def grid_identity(cells: Sequence[Config]) -> list[str]:
    """What makes a grid this grid: its cells' settings, whatever files or commits they resolve to."""
    return sorted({digest(fields(cell)) for cell in cells})


def open_study(cells: Sequence[Config]) -> tuple[Path, list[Config]]:
    """The study's folder and all its cells, those of earlier launches under study.extend included.

    Raises QupError where the name is taken by another grid.
    """
    first = cells[0]
    folder = study_dir_of(first)
    record = read_study(folder)
    if record is None or record["grid"] == grid_identity(cells):
        return folder, list(cells)
    if not first.study.extend:
        raise QupError(
            f"study.name={first.study.name}: another grid of {len(record['cells'])} cells has this name (see {folder}); "
            "choose another study.name, or add to it with study.extend=true"
        )
    known = set(grid_identity(cells))
    earlier = [build(Config, entry["given"]) for entry in record["cells"]]
    return folder, [cell for cell in earlier if digest(fields(cell)) not in known] + list(cells)


def write_study(plan: Plan, given: Sequence[Config], resolved: Sequence[Config]) -> None:
    """Registers the study and links it from study.dir. `given` are the cells before names became content."""
    write_json(plan.study_dir / "study.json", _record(plan, given, resolved), compact=True)
    link_study(Path(given[0].study.dir), plan.study_dir)


def write_dry(plan: Plan, given: Sequence[Config], resolved: Sequence[Config]) -> Path:
    """Writes the plan of a dry run, and for `qup explain` its record; returns the plan's path.

    Where a study of that name is registered, its record stays, and so does its plan, by which a running study is read:
    the dry run's lies beside it as `plan.dry.json`.
    """
    folder = Path(given[0].study.dir) / plan.study
    if (folder / "study.json").exists() and not is_dry(folder):
        path = folder / "plan.dry.json"
    else:
        path = folder / "plan.json"
        write_json(folder / "study.json", {**_record(plan, given, resolved), "dry_run": True}, compact=True)
    write_json(path, plan.as_json())
    return path


def is_dry(folder: Path) -> bool:
    """Whether a study's folder holds what a dry run wrote: nothing of it is registered or has run."""
    record = read_study(folder)
    return record is not None and bool(record.get("dry_run"))


def _record(plan: Plan, given: Sequence[Config], resolved: Sequence[Config]) -> dict[str, Any]:
    by_identity = {id(cell): plain(original) for cell, original in zip(resolved, given, strict=True)}
    return {
        "name": plan.study,
        "store": str(plan.store.root),
        "grid": grid_identity(given),
        "cells": [
            {
                "label": cell.label,
                "given": by_identity[id(cell.config)],
                "config": plain(cell.config),
                "stages": cell.stages,
                "wanted": [str(ref) for ref in cell.wanted],
                "merged": cell.merged,
            }
            for cell in plan.graph.cells
        ],
        "nodes": {str(ref): [str(parent) for parent in node.inputs.values()] for ref, node in plan.graph.nodes.items()},
        "again": {str(ref): _finished(plan.store, ref) for ref, planned in plan.to_run.items() if planned.replace},
    }


def _finished(store: Store, ref: Ref) -> float | None:
    """When an artifact that is to be made anew was made."""
    artifact = store.get_sound(*ref)
    return None if artifact is None else artifact.manifest.get("finished")


def link_study(shown: Path, folder: Path) -> None:
    """Makes `<shown>/<name>` lead to the study's folder."""
    shown.mkdir(parents=True, exist_ok=True)
    link = shown / folder.name
    target = os.path.relpath(folder, shown.resolve())
    if link.is_symlink():
        if link.readlink() == Path(target):
            return
        link.unlink()
    elif link.is_dir() and {entry.name for entry in link.iterdir()} <= {"plan.json", "study.json"} and is_dry(link):
        for name in ("plan.json", "study.json"):
            (link / name).unlink(missing_ok=True)
        link.rmdir()
    elif link.exists():
        raise QupError(f"study.dir={shown}: {link} is there and is not a study; move it away or choose another study.name")
    try:
        link.symlink_to(target, target_is_directory=True)
    except FileExistsError:
        return


def read_study(folder: Path) -> dict[str, Any] | None:
    """The study's record, None where there is none."""
    path = folder / "study.json"
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: not a study's record ({error}); move it away and launch again") from None
    assert isinstance(record, dict)
    return record


def registered(store: Store) -> Iterator[dict[str, Any]]:
    """The records of all studies that live in a store."""
    for folder in sorted(store.studies.iterdir()) if store.studies.is_dir() else []:
        record = read_study(folder)
        if record is not None:
            yield record


def studies_in(shown: Path) -> list[Path]:
    """The folders of the studies presented in a directory, dry runs among them, by name."""
    return sorted(entry for entry in shown.iterdir() if (entry / "study.json").exists()) if shown.is_dir() else []


def find_study(name: str, shown: Path = Path("multirun")) -> Path:
    """The folder of a study given by name or path; InputError names those there are."""
    for folder in (shown / name, Path(name)):
        if (folder / "study.json").exists():
            return folder.resolve()
    there = [folder.name for folder in studies_in(shown)]
    where = (
        f"there are {', '.join(there)}"
        if there
        else "there is none: call qup where you launched, or name study.dir with --dir before the command"
    )
    raise InputError(f"study {name!r}: not found under {shown}/; {where}")


def study_cells(record: dict[str, Any]) -> list[Config]:
    """The resolved cells of a registered study."""
    return [build(Config, entry["config"]) for entry in record["cells"]]


def stage_refs(entry: Mapping[str, Any], name: str) -> list[Ref]:
    """A registered cell's stages of one kind; under `evaluate_at`, the evaluations of weights kept on the way."""
    found = entry["stages"].get(name)
    keys = found.values() if isinstance(found, dict) else [found] if found else []
    return [Ref.parse(key, "evaluate" if name == "evaluate_at" else name) for key in keys]


def rehearsal(cells: Sequence[Config], size: int) -> list[Config]:
    """The same grid on `size` problems and benchmark problems, under a name of its own; it is waited for, here and on SLURM."""
    made = []
    for cell in cells:
        problems = replace(cell.problems, limit=min(size, cell.problems.limit or size))
        if problems.lab is not None:
            problems = replace(problems, lab=replace(problems.lab, n=min(size, problems.lab.n)))
        benchmarks = {
            name: replace(benchmark, limit=min(size, benchmark.limit or size)) for name, benchmark in cell.evaluation.benchmarks.items()
        }
        made.append(
            replace(
                cell,
                problems=problems,
                evaluation=replace(cell.evaluation, benchmarks=benchmarks, dev={}),
                study=replace(cell.study, name=f"{cell.study.name}-rehearsal", rehearse=None, extend=False, wait=True),
            )
        )
    return made
