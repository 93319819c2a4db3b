"""`qup cancel`: a study's jobs, or one cell's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from qup.errors import QupError
from qup.launch.slurm.commands import QueueJob, Slurm
from qup.launch.slurm.ledger import Ledger, Queue
from qup.launch.slurm.site import load_site, on_slurm, queue_lock
from qup.launch.status import study_status
from qup.pipeline.graph import Ref
from qup.study import Study, find_cell, find_study


def cancel(study: str, shown: Path, console: Console, *, cell: str | None) -> int:
    """Cancels a study's jobs, or those only this cell needs; a stage that another study's queued cell needs is left."""
    found = find_study(study, shown, ran=True)
    folder = found.folder
    if not on_slurm(folder):
        raise QupError(f"study {study} was not submitted to SLURM; a launch on this machine is stopped with Ctrl-C")
    slurm = Slurm()
    slurm.check()
    site = load_site(folder)
    with queue_lock(site.store):
        mine = _refs_to_cancel(found, cell, shown)
        jobs = slurm.jobs()
        elsewhere = _needed_elsewhere(folder, slurm, jobs)
        ledger = Ledger(folder)
        doomed, left, refs = [], [], []
        stopped: dict[str, list[str]] = {}
        for ref, tasks in ledger.latest().items():
            for job, _, submission in tasks:
                if job not in jobs or not jobs[job].alive or submission.id != jobs[job].submission or ref not in mine:
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
                if job.alive and job.of(site.identity) and job.id not in listed and (job.what in ("report", "driver") or not left)
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


def _refs_to_cancel(study: Study, label: str | None, shown: Path) -> set[Ref]:
    if label is None:
        return set(study.nodes)
    _, cell = find_cell(label, str(study.folder), shown)
    others = {ref for each in study.cells if each.label != cell.label for ref in each.ordered()}
    return set(cell.ordered()) - others


def _needed_elsewhere(folder: Path, slurm: Slurm, jobs: Mapping[str, QueueJob]) -> set[Ref]:
    """Missing stages that other studies with live jobs depend on."""
    needed: set[Ref] = set()
    for other in folder.parent.iterdir():
        if other.name == folder.name or not on_slurm(other):
            continue
        seen = study_status(other, slurm, jobs)
        live = [status for status in seen.stages.values() if status.state in ("queued", "running", "held")]
        if live:
            needed |= {status.ref for status in live}
    return needed
