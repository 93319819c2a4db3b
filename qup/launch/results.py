"""What a study comes to: its table, its report, and the total of each cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from qup.launch.plan import Plan
from qup.study import Study


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
        console.print(f"W&B     {where}", soft_wrap=True, highlight=False, markup=False)
    return totals


def finish(study: Study, console: Console, out: Path | None = None) -> dict[str, Any]:
    """Writes the table and the report from the store, shows the table, and returns totals by cell label.

    `out` is the report's folder, the study's own by default.
    """
    from qup.analysis.report import build, said, writing
    from qup.analysis.results.cells import cells_table, show_cells, write_cells_csv

    store = study.open_store()
    rows = cells_table(study, store)
    out = out or study.folder / "report"
    with writing(out):
        write_cells_csv(out / "cells.csv", rows)
    show_cells(rows, console)
    report = build(study.folder, store, out)
    for line in said(out):
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"cells   {out / 'cells.csv'}\nreport  {report}", soft_wrap=True, highlight=False)
    return {row["cell"]: row.get("total") for row in rows if "cell" in row}
