"""A plan's run on this machine, from its first stage to the table; what turns out corrupt on the way is computed anew."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from qup.config.schema import Config
from qup.errors import CorruptArtifact, StoreError
from qup.launch.local.scheduler import LocalRun
from qup.launch.plan import Plan, make_plan
from qup.launch.results import conclude, values_of
from qup.launch.units import duration
from qup.launch.weights import let_go
from qup.pipeline import KINDS

MAX_REPAIRS = 3
"""Times a launch goes back to recompute artifacts that turned out corrupt."""


def run_here(plan: Plan, resolved: Sequence[Config], console: Console) -> tuple[int, tuple[Any, ...]]:
    """(exit status, value of each cell): 0 all there, 1 something failed, 130 interrupted."""
    first = resolved[0]
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
                return 130, tuple(None for _ in resolved)
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
    values = values_of(plan, conclude(plan.study_dir, console))
    console.print(f"{_how(ended)} in {duration(time.time() - began)}")
    return (1 if failed else 0), values


def _how(ended: Counter[str]) -> str:
    """How the stages of a launch came to their results."""
    ways = {"adopted": "adopted", "stored": "computed by another launch"}
    noun = "stage" if ended["ran"] == 1 else "stages"
    return ", ".join([f"{ended['ran']} {noun} ran", *(f"{ended[way]} {words}" for way, words in ways.items() if ended[way])])


def _unreadable(plan: Plan) -> list[tuple[str, str]]:
    """Wanted artifacts whose bytes no longer match, set aside. Weights are checked where they are used."""
    found = []
    for ref in dict.fromkeys(ref for cell in plan.graph.cells for ref in cell.wanted):
        try:
            artifact = plan.store.get(*ref)
            if artifact is not None and not KINDS[ref.kind].weights:
                artifact.verify()
        except CorruptArtifact as error:
            plan.store.quarantine(error.stage, error.key)
            found.append((error.stage, error.key))
    return found


def _show_failures(run: LocalRun | None, console: Console) -> int:
    if run is None:
        return 0
    failed = run.board.of("failed")
    for stage in failed:
        console.print(f"[red]failed[/] {stage.ref}: {escape(stage.error)}\n       log {stage.log}")
    blocked = run.board.of("blocked", "waiting")
    if blocked:
        console.print(f"{len(blocked)} stages that depend on them did not run")
    return len(failed) + len(blocked)
