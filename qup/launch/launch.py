"""One launch, from composed cells to running stages: the same way for one cell and for a grid, here and on SLURM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from qup.config.schema import Config
from qup.errors import ConfigError, QupError
from qup.files import write_json
from qup.launch.activity import refuse_alive
from qup.launch.attendance import attending
from qup.launch.console import make_console, show_plan
from qup.launch.local.machine import cores
from qup.launch.local.run import run_here
from qup.launch.plan import Plan, check_budget, make_plan
from qup.launch.preflight.credentials import check_keys, missing_keys
from qup.launch.preflight.tokenizers import check_tokenizers, tokenizer_faults_of
from qup.launch.registry import clear, open_study, registering, replaced_by, study_dir_of, write_dry, write_study
from qup.launch.rehearsal import rehearsal, seen
from qup.launch.weights import lost
from qup.store import Store
from qup.store.store import check_writable
from qup.study import FILE, Study


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    status: int
    """Exit status: 0 all there, 1 something failed, 130 interrupted."""
    values: tuple[Any, ...] = ()
    """For each given cell its total, or "submitted", or None."""


def launch(cells: Sequence[Config], launcher: str = "local", console: Console | None = None, *, checked: bool = False) -> Outcome:
    """Plans and runs (or submits) the grid. Raises QupError with one message for whatever the user can mend.

    `checked`: the cells come from `checked_grid`, and are not judged again.
    """
    from qup.launch.check import validate_grid

    console = console or make_console()
    if not checked:
        validate_grid(cells, launcher=launcher)
    first = cells[0]
    if first.study.rehearse and not first.study.dry_run:
        console.print(f"rehearsal on {first.study.rehearse} problems first")
        small = rehearsal(cells, first.study.rehearse)
        rehearsed = launch(small, launcher, console)
        if rehearsed.status:
            raise QupError("the rehearsal failed, so the study was not started; mend it and launch again")
        for line in seen(study_dir_of(small[0])):
            console.print(f"  {escape(line)}")
    cells = [_absolute(cell) for cell in cells]
    first = cells[0]
    check_writable(Path(first.study.dir), "study.dir")
    folder = study_dir_of(first)
    if first.study.dry_run:
        given, resolved, plan = _plan(cells, folder, launcher, console)
        if replaced := replaced_by(cells):
            _tell_of_replaced(replaced, console)
        for fault in [*missing_keys(plan, launcher), *tokenizer_faults_of(plan)]:
            console.print(f"[yellow]a launch would be refused:[/] {escape(str(fault))}")
        if launcher == "slurm":
            _tell_of_partitions(plan, first, console)
        path = write_dry(plan, given, resolved)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        console.print(f"plan written to {shown}; nothing was run")
        return Outcome(0, tuple(None for _ in cells))
    Store(first.store.dir).check_writable()
    with attending(folder, "launch") as own:
        with registering(folder, console.print):
            if replaced := replaced_by(cells):
                refuse_alive(replaced, "can be replaced", own)
            given, resolved, plan = _plan(cells, folder, launcher, console)
            check_budget(plan, first)
            check_keys(plan, launcher)
            check_tokenizers(plan)
            if replaced:
                clear(folder, keep=(FILE,))
                console.print(f"the {len(replaced.cells)} cells that were study {replaced.name} are replaced by this grid")
            write_study(plan, given, resolved)
        if lost(plan):
            plan = make_plan(resolved, folder)
            check_budget(plan, first)
        write_json(folder / "plan.json", plan.as_json(), compact=True)
        if launcher == "slurm":
            from qup.launch.slurm.launch import submit_study

            return Outcome(*submit_study(plan, resolved, console))
        return Outcome(*run_here(plan, resolved, console))


def _tell_of_replaced(replaced: Study, console: Console) -> None:
    try:
        refuse_alive(replaced, "can be replaced")
    except QupError as error:
        console.print(f"[yellow]a launch would be refused:[/] {escape(str(error))}")


def _tell_of_partitions(plan: Plan, first: Config, console: Console) -> None:
    """In a dry run: what the partitions can't give, where SLURM is here to be asked."""
    from qup.launch.slurm.commands import Slurm
    from qup.launch.slurm.site import check_site

    slurm = Slurm(patience_s=5)
    try:
        slurm.check()
        check_site(plan, first.cluster, slurm)
    except ConfigError as error:
        for fault in error.faults:
            console.print(f"[yellow]a launch would be refused:[/] {escape(str(fault))}")
    except QupError as error:
        console.print(f"[yellow]partitions were not looked at:[/] {escape(str(error))}")


def _absolute(cell: Config) -> Config:
    """Folders by which a study is found from anywhere."""
    return replace(
        cell,
        store=replace(cell.store, dir=str(Path(cell.store.dir).absolute())),
        study=replace(cell.study, dir=str(Path(cell.study.dir).absolute())),
    )


def _plan(cells: Sequence[Config], folder: Path, launcher: str, console: Console) -> tuple[list[Config], list[Config], Plan]:
    """(the study's cells as given, the same resolved, their plan), shown."""
    from qup.identity.resolve import resolve_grid

    first = cells[0]
    given = open_study(cells)
    found = resolve_grid(given, Path(first.store.dir), dry_run=first.study.dry_run)
    plan = make_plan(found.cells, folder)
    plan.slots = (first.cluster.max_parallel or cores()) if launcher == "local" else None
    show_plan(plan, console)
    if found.unresolved:
        names = "\n".join(f"  {escape(line)}" for line in found.unresolved)
        console.print(f"[yellow]no files or folders here, and the hub can't be reached to learn which commits they are:[/]\n{names}")
    for note in found.notes:
        console.print(f"[yellow]{escape(note)}[/]")
    return given, found.cells, plan
