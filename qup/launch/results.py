"""What a study comes to: its table, its report, and the total of each cell."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

import qup
from qup.files import read_json, write_json
from qup.launch.plan import Plan
from qup.launch.slurm.commands import Slurm
from qup.launch.slurm.ended import last_words, outputs
from qup.launch.slurm.ledger import Ledger
from qup.launch.slurm.site import on_slurm
from qup.launch.status import FORGOTTEN, study_status
from qup.store import Store
from qup.study import FILE, Study

ROOT = Path(qup.__file__).parent
CODE = (".py", ".j2", ".js", ".css", ".json", ".yaml")
SAID_LINES = 40
"""Lines kept of what a job said that failed before its stage could."""
MADE_OF = ".made-of.json"
"""What lies beside a report, so that it is built anew only where it would come out otherwise."""


def values_of(plan: Plan, totals: dict[str, Any]) -> tuple[Any, ...]:
    """The total of each cell that was given, those merged into another included; other sweepers read it."""
    values: dict[int, Any] = {}
    for cell in plan.graph.cells:
        values |= dict.fromkeys(cell.members, totals.get(cell.label))
    return tuple(values[place] for place in sorted(values))


def conclude(folder: Path, console: Console) -> dict[str, Any]:
    """`finish` at a study's end: its table and figures go to the tracker as well."""
    from qup.tracking import track_report, where_tracked

    totals = finish(Study.load(folder), console)
    track_report(folder)
    if where := where_tracked(folder):
        console.print(f"W&B     {where}", markup=False)
    return totals


def finish(study: Study, console: Console, out: Path | None = None) -> dict[str, Any]:
    """Writes the table and the report from the store, shows the table, and returns totals by cell label.

    `out` is the report's folder, the study's own by default. A report that was made of the same results by the same code
    is left as it is.
    """
    from qup.analysis.results.cells import show_cells

    store = study.open_store()
    out = out or study.folder / "report"
    note_failures(study)
    made_of = _made_of(study, store)
    rows = _rows_as_built(out, made_of)
    if rows is None:
        rows = _build(study, store, out)
        _remember(out, made_of, rows)
    show_cells(rows, console)
    for line in _said(out):
        console.print(escape(line))
    console.print(f"cells   {out / 'cells.csv'}\nreport  {out / 'report.html'}")
    return {row["cell"]: row.get("total") for row in rows if "cell" in row}


def note_failures(study: Study) -> None:
    """Writes down why jobs failed that ended before their stage could, so that the report tells it too."""
    if not on_slurm(study.folder):
        return
    seen = study_status(study.folder, Slurm(patience_s=5.0))
    latest = Ledger(study.folder).latest()
    for ref, status in seen.stages.items():
        path = study.folder / "failed" / f"{ref.kind}-{ref.key}.json"
        if status.state not in ("failed", "lost") or status.detail == FORGOTTEN or path.exists():
            continue
        said = [line for job, _, submission in latest.get(ref, ()) for line in last_words(outputs(study.folder, submission.id, job))]
        with suppress(OSError):
            output = "\n".join(said[-SAID_LINES:])
            write_json(
                path, {"ref": list(ref), "label": "", "error": status.detail, "corrupt": None, "output": output, "time": time.time()}
            )


def _build(study: Study, store: Store, out: Path) -> list[dict[str, Any]]:
    from qup.analysis.report import build, writing
    from qup.analysis.results.cells import cells_table, write_cells_csv

    rows = cells_table(study, store)
    with writing(out):
        write_cells_csv(out / "cells.csv", rows)
    build(study.folder, store, out)
    return rows


def _made_of(study: Study, store: Store) -> str:
    """Digest of all that a report comes from: the study's record, its results' manifests, its failures, and qup's code."""
    hasher = hashlib.sha256()
    stored = {ref for cell in study.cells for ref in cell.ordered()} | study.nodes.keys()
    manifests = (store.path(*ref) / "manifest.json" for ref in sorted(stored))
    code = (path for path in sorted(ROOT.rglob("*")) if path.suffix in CODE)
    for path in (study.folder / FILE, *manifests, *sorted((study.folder / "failed").glob("*.json")), *code):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        hasher.update(f"{path}\0{len(content)}\0".encode())
        hasher.update(content)
    return hasher.hexdigest()


def _files(out: Path) -> dict[str, list[int]]:
    """Each file of a report with its size and time."""
    there = ((path, path.stat()) for path in sorted(out.rglob("*")) if path.is_file() and path.name != MADE_OF)
    return {str(path.relative_to(out)): [stat.st_size, stat.st_mtime_ns] for path, stat in there}


def _rows_as_built(out: Path, made_of: str) -> list[dict[str, Any]] | None:
    """The rows of the report that lies there, where it was made of just this and nobody has touched it; else None."""
    known = read_json(out / MADE_OF) or {}
    return known["rows"] if known.get("of") == made_of and known["files"] == _files(out) else None


def _remember(out: Path, made_of: str, rows: list[dict[str, Any]]) -> None:
    """Notes what a report was made of; where that can't be written down, the next one is built anew."""
    with suppress(OSError):
        write_json(out / MADE_OF, {"of": made_of, "files": _files(out), "rows": rows}, compact=True, sync=False)


def _said(out: Path) -> list[str]:
    """What the report in a folder answers, in lines for a terminal; none where it is not there or cannot be read."""
    return [str(line) for line in (read_json(out / "summary.json") or {}).get("told", ())]
