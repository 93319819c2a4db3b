"""One launch, from composed cells to the table: the same way for one cell and for a grid, here and on SLURM."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qup.config.schema import Config
from qup.errors import QupError, StoreError
from qup.launch.credentials import check_keys, missing_keys
from qup.launch.display import make_console
from qup.launch.local import LocalRun
from qup.launch.machine import cores
from qup.launch.plan import Plan, check_budget, make_plan
from qup.launch.progress import duration
from qup.launch.registry import open_study, rehearsal, write_dry, write_study
from qup.launch.weights import let_go, lost_weights
from qup.store import Store
from qup.store.store import check_writable, write_json

MAX_REPAIRS = 3
"""Times a launch goes back to recompute artifacts that turned out corrupt."""


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    status: int
    """Exit status: 0 all there, 1 something failed, 130 interrupted."""
    values: tuple[Any, ...] = ()
    """For each given cell its total, or "submitted", or None."""


def launch(cells: Sequence[Config], where: str = "local", console: Console | None = None) -> Outcome:
    """Plans and runs (or submits) the grid. Raises QupError with one message for whatever the user can mend."""
    from qup.config.resolve import resolve_grid
    from qup.config.validate import validate_grid

    console = console or make_console()
    validate_grid(cells, launcher=where)
    first = cells[0]
    if first.study.rehearse and not first.study.dry_run:
        console.print(f"rehearsal on {first.study.rehearse} problems first")
        rehearsed = launch(rehearsal(cells, first.study.rehearse), where, console)
        if rehearsed.status:
            raise QupError("the rehearsal failed, so the study was not started; mend it and launch again")
    check_writable(Path(first.study.dir), "study.dir")
    if not first.study.dry_run:
        Store(first.store.dir).check_writable()
    folder, given = open_study(cells)
    found = resolve_grid(given, Path(first.store.dir), dry_run=first.study.dry_run)
    resolved = found.cells
    plan = make_plan(resolved, folder)
    plan = share_budget(plan, first)
    plan.slots = (first.cluster.max_parallel or cores()) if where == "local" else None
    show_plan(plan, console)
    if found.unresolved:
        names = "\n".join(f"  {escape(line)}" for line in found.unresolved)
        console.print(
            f"[yellow]no files or folders here, and the hub can't be reached to learn which commits they are:[/]\n{names}",
            highlight=False,
            soft_wrap=True,
        )
    for note in found.notes:
        console.print(f"[yellow]{escape(note)}[/]", highlight=False, soft_wrap=True)
    if first.study.dry_run:
        for fault in missing_keys(plan, where):
            console.print(f"[yellow]a launch would be refused:[/] {escape(str(fault))}", highlight=False, soft_wrap=True)
        console.print(f"plan written to {write_dry(plan, given, resolved)}; nothing was run")
        return Outcome(0, tuple(None for _ in cells))
    check_budget(plan, first)
    check_keys(plan, where)
    write_study(plan, given, resolved)
    if lost_weights(plan):
        plan = share_budget(make_plan(resolved, folder), first)
        check_budget(plan, first)
    write_json(folder / "plan.json", plan.as_json(), compact=True)
    if where == "slurm":
        from qup.launch.campaign import start

        status, values = start(plan, resolved, console)
        return Outcome(status, values)
    return run_here(plan, resolved, first, console)


def share_budget(plan: Plan, first: Config) -> Plan:
    """Gives each stage that calls an Oracle its share of study.max_oracle_usd, by expected cost."""
    budget = first.study.max_oracle_usd
    if budget is None:
        return plan
    total = sum(planned.cost.oracle_usd for planned in plan.to_run.values())
    for ref, planned in plan.to_run.items():
        if hasattr(planned.node.view, "max_usd"):
            share = budget * planned.cost.oracle_usd / total if total else budget
            plan.to_run[ref] = replace(planned, node=replace(planned.node, view=replace(planned.node.view, max_usd=share)))
    return plan


def run_here(plan: Plan, resolved: Sequence[Config], first: Config, console: Console) -> Outcome:
    plain = first.study.plain or not sys.stdout.isatty()
    began = time.time()
    ended: Counter[str] = Counter()
    run: LocalRun | None = None
    for _ in range(1 + MAX_REPAIRS):
        if plan.to_run:
            run = LocalRun(plan, console, plain, first.cluster.max_parallel)
            try:
                run.run()
            except KeyboardInterrupt:
                console.print("interrupted: running stages were stopped; the same command goes on from here")
                return Outcome(130, tuple(None for _ in resolved))
            ended.update(stage.outcome for stage in run.board.of("done"))
        corrupt = (run.corrupt if run else []) + _unreadable(plan)
        if not corrupt:
            break
        console.print(
            f"{len(corrupt)} corrupt artifacts were set aside and are computed anew: {', '.join('/'.join(ref) for ref in corrupt)}"
        )
        plan = make_plan(resolved, plan.study_dir)
        run = None
    else:
        raise StoreError(f"store.dir={plan.store.root}: artifacts turn out corrupt again and again; the disk or the network may be faulty")
    if not ended and not plan.to_run:
        console.print("everything is stored: nothing was computed")
    let_go(plan.store, plan.study_dir)
    failed = _show_failures(run, console)
    values = values_of(plan, conclude(plan.study_dir, plan.store, console))
    console.print(f"{_how(ended)} in {duration(time.time() - began)}", highlight=False)
    return Outcome(1 if failed else 0, values)


def _how(ended: Counter[str]) -> str:
    """How the stages of a launch came to their results."""
    ways = {"adopted": "adopted", "stored": "computed by another launch"}
    return ", ".join([f"{ended['ran']} stages ran", *(f"{ended[way]} {words}" for way, words in ways.items() if ended[way])])


def _unreadable(plan: Plan) -> list[tuple[str, str]]:
    """Wanted artifacts whose bytes no longer match, set aside. Weights are checked where they are used."""
    from qup.errors import CorruptArtifact

    found = []
    for ref in dict.fromkeys(ref for cell in plan.graph.cells for ref in cell.wanted):
        try:
            artifact = plan.store.get(*ref)
            if artifact is not None and ref.kind != "train":
                artifact.verify()
        except CorruptArtifact as error:
            plan.store.quarantine(error.stage, error.key)
            found.append((error.stage, error.key))
    return found


def values_of(plan: Plan, totals: dict[str, Any]) -> tuple[Any, ...]:
    """The total of each cell that was given, those merged into another included; other sweepers read it."""
    values: dict[int, Any] = {}
    for cell in plan.graph.cells:
        values |= dict.fromkeys(cell.members, totals.get(cell.label))
    return tuple(values[place] for place in sorted(values))


def conclude(folder: Path, store: Store, console: Console) -> dict[str, Any]:
    """`finish` at a study's end: its table and figures go to the tracker as well."""
    from qup.tracking import track_report

    totals = finish(folder, store, console)
    track_report(folder)
    return totals


def finish(folder: Path, store: Store, console: Console, out: Path | None = None) -> dict[str, Any]:
    """Writes the table and the report from the store, shows the table, and returns totals by cell label.

    `out` is the report's folder, the study's own by default.
    """
    from qup.analysis.report import build, writing
    from qup.analysis.results.cells import cells_table, show_cells, write_cells_csv
    from qup.launch.registry import read_study

    record = read_study(folder)
    assert record is not None
    rows = cells_table(record, store)
    out = out or folder / "report"
    with writing(out):
        write_cells_csv(out / "cells.csv", rows)
    show_cells(rows, console)
    report = build(folder, store, out)
    console.print(f"cells   {out / 'cells.csv'}\nreport  {report}", soft_wrap=True, highlight=False)
    return {row["cell"]: row.get("total") for row in rows if "cell" in row}


def _show_failures(run: LocalRun | None, console: Console) -> int:
    if run is None:
        return 0
    failed = run.board.of("failed")
    for stage in failed:
        console.print(f"[red]failed[/] {stage.ref}: {escape(stage.error)}\n       log {stage.log}", highlight=False, soft_wrap=True)
    blocked = run.board.of("blocked", "waiting")
    if blocked:
        console.print(f"{len(blocked)} stages that depend on them did not run")
    return len(failed) + len(blocked)


def show_plan(plan: Plan, console: Console) -> None:
    """What will be spent, before it is."""
    totals = plan.totals()
    unneeded = totals["stages"] - totals["stored"] - totals["to_run"]
    parts = [
        f"{totals['cells']} cell{'s' if totals['cells'] != 1 else ''} → {totals['stage_runs']} stage runs",
        f"{totals['stages']} distinct",
        f"{totals['stored']} stored",
        f"{totals['to_run']} to run",
        *([f"{unneeded} not needed"] if unneeded else []),
        f"{totals['gpu_hours']:.1f} GPU-hours",
        f"{totals['cpu_hours']:.2f} CPU-hours",
        f"{totals['disk_bytes'] / 1e9:.1f} GB",
        f"{totals['oracle_usd']:.2f} oracle dollars",
    ]
    console.print(f"[bold]{escape(plan.study)}[/]  {', '.join(parts)}", highlight=False, soft_wrap=True)
    merged = [f"{', '.join(cell.merged)} = {cell.label}" for cell in plan.graph.cells if cell.merged]
    for line in merged[:10]:
        console.print(f"merged, for they come to the same stages: {line}", highlight=False, soft_wrap=True)
    if len(merged) > 10:
        console.print(f"… and {len(merged) - 10} more merged")
    for path in plan.store.set_aside:
        console.print(f"[yellow]corrupt, set aside:[/] {escape(str(path))}", highlight=False, soft_wrap=True)
    if plan.other_code:
        console.print(
            f"[yellow]{len(plan.other_code)} stored stages were made by other code of the same version[/] (study.other_code=warn)"
        )
    if not plan.to_run:
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("stage", "to run", "GPU-hours", "CPU-hours", "oracle $", "rates"):
        table.add_column(name, justify="left" if name in ("stage", "rates") else "right")
    usd: dict[str, float] = {}
    for planned in plan.to_run.values():
        usd[planned.node.kind] = usd.get(planned.node.kind, 0.0) + planned.cost.oracle_usd
    for kind, entry in totals["by_kind"].items():
        measured = f"{entry['measured']:.0f} of {entry['stages']:.0f} measured" if entry["measured"] else "assumed"
        table.add_row(
            kind,
            f"{entry['stages']:.0f}",
            f"{entry['gpu_hours']:.2f}",
            f"{entry['cpu_hours']:.3f}",
            f"{usd[kind]:.2f}" if usd[kind] else "",
            measured,
        )
    console.print(table)
