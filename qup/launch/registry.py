"""Registering a launch's study: whether its name is free, what it adds to, and where it is presented."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from qup.config.fingerprint import digest, fields, plain
from qup.config.schema import Config
from qup.errors import QupError
from qup.files import write_json
from qup.launch.changes import grid_changes
from qup.launch.plan import Plan
from qup.launch.snapshot import own_version
from qup.pipeline.graph import Ref
from qup.store import Lease, Store
from qup.study import FILE, Cell, Study

REGISTERING_S = 30.0
"""Seconds without a heartbeat after which a launch that was planning a study counts as dead."""


def study_dir_of(first: Config) -> Path:
    """Where the study of a cell lives."""
    return Store(first.store.dir).studies / (first.study.name or "study")


def grid_identity(cells: Sequence[Config]) -> tuple[str, ...]:
    """What makes a grid this grid: its cells' settings, whatever files or commits they resolve to."""
    return tuple(sorted({digest(fields(cell)) for cell in cells}))


@contextmanager
def registering(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One launch at a time reads and writes a study's record; a dead one's lease is taken over."""
    lease = Lease(folder.parent / f".{folder.name}.lease", REGISTERING_S)
    began, told = time.monotonic(), False
    while not lease.acquire():
        if not told and time.monotonic() - began > 2:
            say(f"waiting for another launch of {folder.name} to be planned ({lease.path})")
            told = True
        time.sleep(0.1)
    lease.watch()
    try:
        yield
        lease.check()
    finally:
        lease.release()


def open_study(cells: Sequence[Config]) -> list[Config]:
    """All cells of the study, those of earlier launches under study.extend included.

    Raises QupError where the name is taken by another grid, saying how that differs.
    """
    first = cells[0]
    folder = study_dir_of(first)
    study = Study.at(folder)
    if study is None or study.grid == grid_identity(cells) or first.study.replace:
        return list(cells)
    if not first.study.extend:
        changes = "".join(f"\n  {line}" for line in grid_changes(study, cells))
        raise QupError(
            f"study.name={first.study.name}: another grid of {len(study.cells)} cells has this name (see {folder}). "
            f"What differs, registered → this launch:{changes}\n"
            "choose another study.name, add this grid to it with study.extend=true, or put it in its place with study.replace=true"
        )
    known = set(grid_identity(cells))
    return [cell for cell in study.given() if digest(fields(cell)) not in known] + list(cells)


def replaced_by(cells: Sequence[Config]) -> Study | None:
    """The study of another grid whose place these cells take under study.replace; None where there is none."""
    study = Study.at(study_dir_of(cells[0])) if cells[0].study.replace else None
    return None if study is None or study.grid == grid_identity(cells) else study


def clear(folder: Path, keep: Sequence[str] = ()) -> None:
    """Takes away a study's files, the record last: cut off, it is still registered, and can be cleared again.

    What `keep` names stays, and so does who is at work on a study of that name.
    """
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == FILE):
        if entry.name in ("attending", *keep):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    with suppress(OSError):  # not empty: somebody is at work
        (folder / "attending").rmdir()
    with suppress(OSError):
        folder.rmdir()


def study_of(plan: Plan, given: Sequence[Config], resolved: Sequence[Config], folder: Path, *, dry_run: bool = False) -> Study:
    """A plan's study. `given` are the cells before names became content."""
    launched = {id(cell): plain(original) for cell, original in zip(resolved, given, strict=True)}
    return Study(
        name=plan.study,
        cells=tuple(
            Cell(cell.label, plain(cell.config), cell.stages, launched[id(cell.config)], cell.wanted, tuple(cell.merged))
            for cell in plan.graph.cells
        ),
        store=plan.store.root,
        folder=folder,
        nodes={ref: tuple(node.inputs.values()) for ref, node in plan.graph.nodes.items()},
        again={ref: _finished(plan.store, ref) for ref, planned in plan.to_run.items() if planned.replace},
        grid=grid_identity(given),
        dry_run=dry_run,
        launched_by=own_version(),
    )


def write_study(plan: Plan, given: Sequence[Config], resolved: Sequence[Config]) -> Study:
    """Registers the study and links it from study.dir."""
    study = study_of(plan, given, resolved, plan.study_dir)
    study.save()
    link_study(Path(given[0].study.dir), plan.study_dir)
    return study


def write_dry(plan: Plan, given: Sequence[Config], resolved: Sequence[Config]) -> Path:
    """Writes the plan of a dry run, and for `qup explain` its record; returns the plan's path.

    Where a study of that name is registered, its record stays, and so does its plan, by which a running study is read:
    the dry run's lies beside it as `plan.dry.json`.
    """
    folder = Path(given[0].study.dir) / plan.study
    there = Study.at(folder)
    if there is not None and not there.dry_run:
        path = folder / "plan.dry.json"
    else:
        path = folder / "plan.json"
        study_of(plan, given, resolved, folder, dry_run=True).save()
    write_json(path, plan.as_json())
    return path


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
    elif link.is_dir() and {entry.name for entry in link.iterdir()} <= {"plan.json", FILE} and (there := Study.at(link)) and there.dry_run:
        for name in ("plan.json", FILE):
            (link / name).unlink(missing_ok=True)
        link.rmdir()
    elif link.exists():
        raise QupError(f"study.dir={shown}: {link} is there and is not a study; move it away or choose another study.name")
    try:
        link.symlink_to(target, target_is_directory=True)
    except FileExistsError:
        return
