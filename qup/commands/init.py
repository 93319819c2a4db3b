"""`qup init`: a folder of one's own, with data, configuration and a README, that runs as it stands."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from qup.commands.schema import write_schemas
from qup.config.schema import LabProblems
from qup.errors import InputError

FOLDER = Path(__file__).with_name("folder")
PROBLEMS, BENCHMARK = LabProblems(n=100, seed=7, min_steps=1, max_steps=1), LabProblems(n=50, seed=108, min_steps=1, max_steps=1)


def init(folder: Path, console: Console) -> int:
    """Makes the folder. Raises InputError where it is there and holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; name a folder to be made, or an empty one")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "gitignore").rename(folder / ".gitignore")
    (folder / "models").mkdir()
    _write_data(folder / "data")
    write_schemas(folder / "schema")
    console.print(
        f"made {folder}; next:\n\n  cd {folder}\n  qup launch -m experiment=mine\n\nand {folder / 'README.md'} says how to put in your own"
    )
    return 0


def _write_data(folder: Path) -> None:
    """Word problems of the lab with worked solutions, a benchmark apart from them, and traces in a style of their own."""
    from qup.lab.styles import render
    from qup.lab.world import generate, problems

    folder.mkdir()
    rows = [{**row, "id": row["problem_id"]} for row in problems(PROBLEMS)]
    _write(folder / "problems.jsonl", ("id", "question", "answer", "solution"), rows)
    _write(folder / "benchmark.jsonl", ("question", "answer"), problems(BENCHMARK))
    rng = random.Random(0)
    traces = [{"id": row["id"], "text": render("sequential", problem, rng)} for row, problem in zip(rows, generate(PROBLEMS), strict=True)]
    _write(folder / "traces.jsonl", ("id", "text"), traces)


def _write(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, str]]) -> None:
    columns = list(columns)
    path.write_text("".join(json.dumps({name: row[name] for name in columns}) + "\n" for row in rows), encoding="utf-8")
