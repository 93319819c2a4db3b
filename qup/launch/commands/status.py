"""`qup status`: how a study stands, for people and programs, and what studies there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from qup.errors import InputError
from qup.launch.console import in_ascii
from qup.launch.plan import published
from qup.launch.slurm.commands import Slurm
from qup.launch.slurm.site import on_slurm
from qup.launch.states import show_states
from qup.launch.status import StageStatus, StudyStatus, study_status
from qup.launch.watch import at_work, notes
from qup.launch.watch import watch as watch_study
from qup.pipeline import KINDS
from qup.study import Study, find_study, studies_in


def status_json(seen: StudyStatus) -> dict[str, Any]:
    def one(status: StageStatus) -> dict[str, Any]:
        return {
            "stage": status.ref.kind,
            "key": status.ref.key,
            "state": status.state,
            "detail": status.detail,
            "job": status.job,
            "requeues": status.restarts,
            "shared": status.shared,
        }

    return {
        "study": seen.study.name,
        "slurm": seen.slurm,
        "driver": seen.driver,
        "ended": seen.ended(),
        "good": seen.good(),
        "cells": [
            {
                "label": cell.label,
                "done": all(seen.stages[ref].state == "stored" for ref in cell.wanted),
                "stages": [one(status) for status in seen.of_cell(cell)],
            }
            for cell in seen.study.cells
        ],
    }


def list_studies(shown: Path, console: Console) -> int:
    """Prints what studies there are, and how many of their cells have their results; exit status 0."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("study", "cells", "done"):
        table.add_column(column, justify="left" if column == "study" else "right")
    dry: list[str] = []
    for folder in studies_in(shown):
        study = Study.load(folder)
        if study.dry_run:
            dry.append(study.name)
            continue
        known = published(study.open_store(), list(KINDS))
        done = sum(all(ref.key in known[ref.kind] for ref in cell.wanted) for cell in study.cells)
        table.add_row(folder.name, str(len(study.cells)), str(done))
    if table.row_count:
        console.print(table)
    if dry:
        console.print(f"dry runs, of which nothing has run: {', '.join(dry)}")
    if not table.row_count and not dry:
        raise InputError(f"--dir={shown}: no study is there")
    return 0


def show(study: str, shown: Path, console: Console, *, as_json: bool, watch: bool) -> int:
    """Prints how a study stands; exit status 0."""
    found = find_study(study, shown)
    if watch:
        return watch_study(found.folder, console)
    seen = study_status(found, Slurm(patience_s=5.0) if on_slurm(found.folder) else None)
    if as_json:
        print(json.dumps(status_json(seen)))
        return 0
    console.print(show_states(seen, console.width, in_ascii=in_ascii(console)))
    for line in [*at_work(seen), *notes(seen)]:
        console.print(line, markup=False)
    return 0
