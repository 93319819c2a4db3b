"""`qup status`: a row a cell, a column a stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qup.errors import InputError
from qup.launch.plan import published
from qup.launch.registry import find_study, read_study, studies_in
from qup.launch.states import Look, StageStatus, look, wanted_refs
from qup.pipeline import KINDS
from qup.store import study_store

STYLES = {
    "stored": ("✓", "green"),
    "running": ("running", "cyan"),
    "queued": ("queued", "yellow"),
    "held": ("held", "yellow"),
    "failed": ("FAILED", "bold red"),
    "cancelled": ("cancelled", "red"),
    "lost": ("lost", "red"),
    "blocked": ("blocked", "dim"),
    "waiting": ("waiting", "dim"),
}
WORST = ("failed", "lost", "cancelled", "blocked", "held", "waiting", "queued", "running", "stored")

MOST_NOTES = 40


def _columns(seen: Look) -> list[str]:
    there = {ref.kind for ref in seen.stages}
    return [kind for kind in KINDS if kind in there]


def _cell_text(statuses: list[StageStatus]) -> Text:
    if not statuses:
        return Text("")
    worst = min(statuses, key=lambda status: WORST.index(status.state))
    word, style = STYLES[worst.state]
    same = sum(1 for status in statuses if status.state == worst.state)
    text = f"{word}*" if worst.shared else word
    if len(statuses) > 1 and worst.state != "stored":
        text += f" {same}/{len(statuses)}"
    if worst.state == "running" and worst.detail:
        text += f" {worst.detail.partition(',')[0]}"
    return Text(text, style=style)


def show_states(seen: Look, width: int) -> Table:
    """The table of a study at one moment."""
    table = Table(box=None, header_style="dim", pad_edge=False, title=seen.record["name"], title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("cell", no_wrap=True)
    columns = _columns(seen)
    for kind in columns:
        table.add_column(kind if width > 120 else kind[:9], overflow="fold")
    for number, entry in enumerate(seen.record["cells"]):
        by_kind: dict[str, list[StageStatus]] = {}
        for status in seen.of_cell(entry):
            by_kind.setdefault(status.ref.kind, []).append(status)
        table.add_row(str(number), entry["label"], *(_cell_text(by_kind.get(kind, [])) for kind in columns))
    return table


def notes(seen: Look) -> list[str]:
    """What went wrong or waits, in words: the worst first, a line a stage, and one for stages cancelled for the same reason."""
    lines = [f"the queue could not be asked: {seen.slurm}"] if seen.slurm else []
    told: list[StageStatus] = []
    cancelled: dict[str, list[StageStatus]] = {}
    for status in seen.stages.values():
        if status.state == "cancelled":
            cancelled.setdefault(status.detail, []).append(status)
        elif status.state in ("failed", "lost", "held") or (
            status.state == "queued" and status.detail not in ("Dependency", "Priority", "Resources", "None")
        ):
            told.append(status)
    told.sort(key=lambda status: WORST.index(status.state))
    lines += [_note(status) for status in told[:MOST_NOTES]]
    if len(told) > MOST_NOTES:
        lines.append(f"… and {len(told) - MOST_NOTES} more; --json has all")
    for why, statuses in cancelled.items():
        lines.append(_note(statuses[0]) if len(statuses) == 1 else f"cancelled {len(statuses)} stages: {why}")
    return lines


def _note(status: StageStatus) -> str:
    job = f" (job {status.job})" if status.job else ""
    return f"{status.state:<9} {status.ref}{job}: {status.detail}"


def as_json(seen: Look) -> dict[str, Any]:
    """For programs."""

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
        "study": seen.record["name"],
        "slurm": seen.slurm,
        "ended": seen.ended(),
        "good": seen.good(),
        "cells": [
            {
                "label": entry["label"],
                "done": all(seen.stages[ref].state == "stored" for ref in wanted_refs(entry)),
                "stages": [one(status) for status in seen.of_cell(entry)],
            }
            for entry in seen.record["cells"]
        ],
    }


def list_studies(shown: Path, console: Console) -> int:
    """Prints what studies there are, and how many of their cells have their results; exit status 0."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("study", "cells", "done"):
        table.add_column(column, justify="left" if column == "study" else "right")
    for folder in studies_in(shown):
        record = read_study(folder)
        assert record is not None
        known = published(study_store(folder, record), list(KINDS))
        done = sum(all(ref.key in known[ref.kind] for ref in wanted_refs(entry)) for entry in record["cells"])
        table.add_row(folder.name, str(len(record["cells"])), "dry run" if record.get("dry_run") else str(done))
    if not table.row_count:
        raise InputError(f"--dir={shown}: no study is there")
    console.print(table)
    return 0


def show(study: str, shown: Path, console: Console, *, as_json: bool, watch: bool) -> int:
    """Prints how a study stands; exit status 0."""
    from qup.launch.life import on_slurm
    from qup.launch.life import watch as watch_study
    from qup.launch.slurm_commands import Slurm

    folder = find_study(study, shown)
    if watch:
        return watch_study(folder, console)
    seen = look(folder, Slurm(patience_s=5.0) if on_slurm(folder) else None)
    if as_json:
        print(json.dumps(_json(seen)))
        return 0
    console.print(show_states(seen, console.width))
    for line in notes(seen):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return 0


_json = as_json
