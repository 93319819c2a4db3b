"""Life after submission: retry, cancel, wait."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from qup.config.schema import Config, Resources
from qup.errors import QupError
from qup.launch.campaign import _blocked, _leave_driver, _submit_report, here_refs, load_site, replan, save_site
from qup.launch.cells import find_cell
from qup.launch.credentials import check_keys
from qup.launch.ledger import Ledger, Queue
from qup.launch.machine import parse_memory
from qup.launch.plan import Plan
from qup.launch.registry import find_study, read_study, study_cells
from qup.launch.slurm import Submitter, queue_lock
from qup.launch.slurm_commands import Slurm, parse_minutes
from qup.launch.snapshot import freeze_code
from qup.launch.states import Look, StageStatus, cell_refs, look
from qup.launch.status import show_states
from qup.pipeline import KINDS
from qup.pipeline.graph import Ref

WATCH_S = 2.0


def on_slurm(study_dir: Path) -> bool:
    """Whether a study was ever submitted."""
    return (study_dir / "slurm" / "site.json").exists()


def retry(study: str, shown: Path, console: Console, *, stages: list[str], code: str, mem: str | None, time: str | None) -> int:
    """Runs again what failed, was cancelled or was lost, and what waits for it; exit status 0 once submitted (or run)."""
    folder = find_study(study, shown)
    for stage in stages:
        if stage not in KINDS:
            raise QupError(f"--stage {stage}: there are {', '.join(KINDS)}")
    memory_factor, time_factor = _factor("--mem", mem), _factor("--time", time)
    if not on_slurm(folder):
        return _retry_here(folder, console)
    slurm = Slurm()
    slurm.check()
    site = load_site(folder)
    if code == "live":
        site = replace(site, code=freeze_code(site.store).path)
        save_site(site)
    plan = replan(site)
    if code == "live":
        changed = [str(ref) for ref in plan.other_code]
        console.print(
            f"code frozen anew; {len(changed)} stored stages were made by other code" + (f": {', '.join(changed[:8])}" if changed else "")
        )
    seen = look(folder, slurm)
    bad = {ref: status for ref, status in seen.stages.items() if status.state in ("failed", "cancelled", "lost", "held")}
    chosen = {ref for ref in bad if not stages or ref.kind in stages}
    if not bad and not [ref for ref in plan.to_run if seen.stages.get(ref, StageStatus(ref, "waiting")).state in ("waiting", "blocked")]:
        console.print("nothing failed or was lost: nothing to retry")
        return 0
    _scale(plan, bad, memory_factor, time_factor)
    here = here_refs(plan)
    left_out = frozenset(ref for ref in bad if ref not in chosen)
    check_keys(plan, "slurm", _blocked(plan, left_out))
    skip = here | left_out
    with queue_lock(site.store):
        submitter = Submitter(site, slurm)
        submitter.clear_leftovers()
        submission, left = submitter.submit_wave(plan, site.cluster.max_jobs, skip=skip)
    again = [unit.ref for _, unit in submission.job_ids() if unit.ref in bad]
    console.print(
        f"resubmitted {len(set(again))} stages that had not succeeded and {len(plan.to_run) - len(left) - len(set(again))} that waited for them"
    )
    if [ref for ref in left if ref not in skip or ref in here]:
        _leave_driver(site, submitter, here, console)
    else:
        _submit_report(site, submitter)
    return 0


def _retry_here(folder: Path, console: Console) -> int:
    from qup.launch.plan import make_plan
    from qup.launch.study import run_here

    record = read_study(folder)
    assert record is not None
    cells: list[Config] = study_cells(record)
    plan = make_plan(cells, folder)
    check_keys(plan, "local")
    return run_here(plan, cells, cells[0], console).status


def _factor(flag: str, text: str | None) -> float:
    if text is None:
        return 1.0
    match = re.fullmatch(r"x(\d+(?:\.\d+)?)", text)
    if not match or float(match[1]) <= 0:
        raise QupError(f"{flag} {text}: write x and a number, for example x2")
    return float(match[1])


def _scale(plan: Plan, bad: dict[Ref, StageStatus], memory: float, time: float) -> None:
    """More memory or time for the stages that ran out of it."""
    for ref, status in bad.items():
        planned = plan.to_run.get(ref)
        if planned is None:
            continue
        resources: Resources = planned.resources
        if memory != 1.0 and ("memory" in status.detail or "SIGKILL" in status.detail):
            resources = replace(resources, mem=f"{int((parse_memory(resources.mem) >> 20) * memory)}M")
        if time != 1.0 and ("time" in status.detail or "interrupted" in status.detail):
            resources = replace(resources, time=str(max(1, round(parse_minutes(resources.time) * time))))
        plan.to_run[ref] = replace(planned, resources=resources)


def cancel(study: str, shown: Path, console: Console, *, cell: str | None) -> int:
    """Cancels a study's jobs, or those only this cell needs; a stage that another study's queued cell needs is left."""
    folder = find_study(study, shown)
    if not on_slurm(folder):
        raise QupError(f"study {study} was not submitted to SLURM; a launch on this machine is stopped with Ctrl-C")
    slurm = Slurm()
    slurm.check()
    site = load_site(folder)
    with queue_lock(site.store):
        record = read_study(folder)
        assert record is not None
        mine = _refs_to_cancel(folder, record, cell, shown, study)
        elsewhere = _needed_elsewhere(folder)
        jobs = slurm.jobs()
        ledger = Ledger(folder)
        doomed, left, refs = [], [], []
        stopped: dict[str, list[str]] = {}
        for ref, tasks in ledger.latest().items():
            for job, _, submission in tasks:
                if job not in jobs or not jobs[job].alive or submission.id not in jobs[job].comment or ref not in mine:
                    continue
                if ref in elsewhere:
                    left.append(ref)
                else:
                    doomed.append(job)
                    refs.append(ref)
                    stopped.setdefault(submission.id, []).append(job)
        if cell is None:
            listed = set(doomed)
            doomed += [
                job.id
                for job in jobs.values()
                if job.alive and job.comment.startswith(f"qup {site.study} ") and job.id not in listed and _is_side_job(job.comment, left)
            ]
        for submission_id, tasks_of in stopped.items():
            ledger.write("stopped", submission_id, jobs=tasks_of)
        slurm.cancel(doomed)
        queue = Queue(site.store)
        for ref in refs:
            queue.remove(ref)
    console.print(
        f"cancelled {len(doomed)} jobs" + (f"; {len(set(left))} stages are left, for other studies wait for them" if left else "")
    )
    return 0


def _is_side_job(comment: str, left: list[Ref]) -> bool:
    """Reports, drivers and held leftovers that no stage left alone belongs to."""
    return comment.endswith((" report", " driver")) or not left


def _refs_to_cancel(folder: Path, record: dict[str, object], cell: str | None, shown: Path, study: str) -> set[Ref]:
    cells = record["cells"]
    assert isinstance(cells, list)
    if cell is None:
        nodes = record["nodes"]
        assert isinstance(nodes, dict)
        return {Ref.parse(name) for name in nodes}
    _, _, entry = find_cell(cell, str(folder), shown)
    others = {ref for each in cells if each["label"] != entry["label"] for ref in cell_refs(each)}
    return set(cell_refs(entry)) - others


def _needed_elsewhere(folder: Path) -> set[Ref]:
    """Missing stages that other studies with live jobs depend on."""
    needed: set[Ref] = set()
    for other in folder.parent.iterdir():
        if other.name == folder.name or not on_slurm(other):
            continue
        seen: Look = look(other, Slurm())
        live = [status for status in seen.stages.values() if status.state in ("queued", "running", "held")]
        if live:
            needed |= {status.ref for status in live}
    return needed


def watch(folder: Path, console: Console) -> int:
    """Shows the study until nothing more happens; exit status 0 where every result is there."""
    from rich.live import Live

    slurm = Slurm() if on_slurm(folder) else None
    shown = console.is_terminal
    last = ""
    with Live(console=console, auto_refresh=False, transient=True) if shown else _Nothing() as live:
        while True:
            seen = look(folder, slurm)
            if isinstance(live, Live):
                live.update(show_states(seen, console.width), refresh=True)
            else:
                text = summary(seen)
                if text != last:
                    console.print(text, highlight=False)
                    last = text
            if seen.ended() and not seen.slurm:
                return 0 if seen.good() else 1
            time.sleep(WATCH_S)


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def summary(seen: Look) -> str:
    """Counts by state."""
    counts: dict[str, int] = {}
    for status in seen.stages.values():
        counts[status.state] = counts.get(status.state, 0) + 1
    return f"{seen.record['name']}: " + ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))


def wait(study: str, shown: Path, console: Console) -> int:
    """Waits for a study's end."""
    folder = find_study(study, shown)
    status = watch(folder, console)
    if console.is_terminal:
        console.print(summary(look(folder, Slurm() if on_slurm(folder) else None)))
    return status
