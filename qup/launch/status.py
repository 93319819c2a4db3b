"""How each stage of a study stands, from the store and one look at the queue."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from qup.errors import QupError
from qup.launch.plan import published
from qup.launch.process import INTERRUPTED, NO_PYTHON, NO_STORE, read_failure
from qup.launch.slurm.commands import QueueJob, Slurm
from qup.launch.slurm.ledger import Ledger, Queue, Submission
from qup.launch.units import duration
from qup.pipeline import KINDS
from qup.pipeline.graph import Ref
from qup.store import Store
from qup.store.lease import holder_is_dead
from qup.study import Cell, Study

ENDED = ("stored", "failed", "cancelled", "lost", "blocked")

IN_WORDS = {
    "OUT_OF_MEMORY": "out of memory",
    "TIMEOUT": "out of time",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node failed to boot",
    "DEADLINE": "missed its deadline",
}


@dataclass(frozen=True)
class StageStatus:
    """One stage: stored, running, queued, held, failed, cancelled, lost, blocked or waiting; and why."""

    ref: Ref
    state: str
    detail: str = ""
    job: str = ""
    restarts: int = 0
    shared: bool = False
    """Another study's job computes it."""


@dataclass
class StudyStatus:
    """A study at one moment."""

    study: Study
    stages: dict[Ref, StageStatus] = field(default_factory=dict)
    slurm: str = ""
    """Why the queue could not be asked, if it could not."""

    def of_cell(self, cell: Cell) -> list[StageStatus]:
        """The wanted stages of a cell and whatever above them is missing."""
        return [self.stages[ref] for ref in cell.ordered() if ref in self.stages]

    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return all(status.state in ENDED for cell in self.study.cells for status in self.of_cell(cell))

    def good(self) -> bool:
        """Whether every wanted result is there."""
        return all(self.stages[ref].state == "stored" for cell in self.study.cells for ref in cell.wanted)


def study_status(study_dir: Path, slurm: Slurm | None) -> StudyStatus:
    """Reads the store, the ledger, the claims and the queue once. Without SLURM, what is known without it."""
    study = Study.load(study_dir)
    store = study.open_store()
    seen = StudyStatus(study)
    jobs: dict[str, QueueJob] = {}
    latest = Ledger(study_dir).latest()
    if latest and slurm is not None:
        try:
            jobs = slurm.jobs()
        except QupError as error:
            seen.slurm = str(error)
    queue = Queue(store).all() if jobs else {}
    known = published(store, list(KINDS))
    needed = _needed(study, known)
    accounted: dict[str, QueueJob] = {}
    if slurm is not None and latest and not seen.slurm:
        forgotten = [job for ref in needed for job, _, _ in latest.get(ref, ()) if job not in jobs and ref.key not in known[ref.kind]]
        accounted = slurm.accounted(forgotten[:500])
    for ref in study.nodes:
        if ref.key in known[ref.kind]:
            seen.stages[ref] = StageStatus(ref, "stored")
        elif ref in needed:
            seen.stages[ref] = _status(study, store, ref, latest.get(ref, []), jobs, accounted, queue.get(ref), seen.slurm)
    _mark_blocked(seen)
    return seen


def _needed(study: Study, known: dict[str, set[str]]) -> set[Ref]:
    """Missing stages that a missing wanted result waits for; above what is stored nothing is needed."""
    found: set[Ref] = set()
    todo = [ref for cell in study.cells for ref in cell.wanted]
    while todo:
        ref = todo.pop()
        if ref not in found and ref.key not in known[ref.kind]:
            found.add(ref)
            todo += study.nodes.get(ref, ())
    return found


def _status(
    study: Study,
    store: Store,
    ref: Ref,
    tasks: list[tuple[str, Any, Submission]],
    jobs: dict[str, QueueJob],
    accounted: dict[str, QueueJob],
    noted: dict[str, Any] | None,
    away: str,
) -> StageStatus:
    claim = store.claim(*ref)
    stem = f"{ref.kind}-{ref.key}"
    live = [(job, jobs[job]) for job, _, submission in tasks if job in jobs and jobs[job].alive and submission.id in jobs[job].comment]
    if noted and noted["study"] != study.name and noted["job"] in jobs and jobs[noted["job"]].alive:
        other = jobs[noted["job"]]
        return StageStatus(ref, "running" if other.state == "RUNNING" else "queued", f"by study {noted['study']}", other.id, shared=True)
    if live:
        return _live(ref, live, claim)
    if claim is not None and not holder_is_dead(claim) and _recent(store, ref):
        return StageStatus(ref, "running", _progress(claim))
    failure = read_failure(study.folder / "failed" / f"{stem}.json")
    ended = [jobs.get(job) or accounted.get(job) for job, _, _ in tasks]
    if not tasks:
        return StageStatus(ref, "failed", _last(failure["error"])) if failure else StageStatus(ref, "waiting")
    if away:
        return StageStatus(ref, "queued", "the queue cannot be asked", tasks[-1][0])
    bad = next((job for job in ended if job is not None and job.state.split()[0] != "COMPLETED"), None)
    stopped = any(job in submission.stopped for job, _, submission in tasks)
    if bad is not None:
        return _dead(ref, bad, failure, study.folder, stopped)
    if failure:
        return StageStatus(ref, "failed", _last(failure["error"]), tasks[-1][0])
    if stopped:
        return StageStatus(ref, "cancelled", "by qup cancel", tasks[-1][0])
    status = _exit_status(study.folder, tasks[-1][0])
    if status:
        return StageStatus(ref, "failed", status_in_words(status), tasks[-1][0])
    return StageStatus(ref, "lost", "SLURM no longer knows the job, and it left no result", tasks[-1][0])


def _live(ref: Ref, live: list[tuple[str, QueueJob]], claim: dict[str, Any] | None) -> StageStatus:
    running = [job for _, job in live if job.state in ("RUNNING", "COMPLETING")]
    job = running[0] if running else live[0][1]
    restarts = max(one.restarts for _, one in live)
    note = f"requeued {restarts}×, " if restarts else ""
    if running:
        return StageStatus(ref, "running", f"{note}{_progress(claim) or job.used}", job.id, restarts)
    if job.reason in ("JobHeldUser", "JobHeldAdmin"):
        return StageStatus(ref, "held", f"{note}{job.reason}", job.id, restarts)
    return StageStatus(ref, "queued", f"{note}{job.reason}", job.id, restarts)


def _dead(ref: Ref, job: QueueJob, failure: dict[str, Any] | None, study_dir: Path, stopped: bool) -> StageStatus:
    state = job.state.split()[0]
    if state == "CANCELLED" and stopped:
        # first, for a job that was cancelled while it waited keeps "Dependency" as its reason
        return StageStatus(ref, "cancelled", "by qup cancel", job.id, job.restarts)
    if state == "CANCELLED" and job.reason in ("Dependency", "DependencyNeverSatisfied"):
        return StageStatus(ref, "cancelled", "a stage it depends on did not succeed", job.id, job.restarts)
    if state == "CANCELLED":
        return StageStatus(ref, "cancelled", "by hand, or by its dependency", job.id, job.restarts)
    if state in IN_WORDS:
        return StageStatus(ref, "failed", IN_WORDS[state], job.id, job.restarts)
    if failure:
        return StageStatus(ref, "failed", _last(failure["error"]), job.id, job.restarts)
    status = _exit_status(study_dir, job.id) or _decode(job.exit_code)
    return StageStatus(ref, "failed", status_in_words(status), job.id, job.restarts)


def _decode(text: str) -> int:
    """squeue prints wait(2)'s status, sacct `exit:signal`."""
    if ":" in text:
        code, _, number = text.partition(":")
        return 128 + int(number) if number not in ("", "0") else int(code or 0)
    if not text.isdigit():
        return 0
    raw = int(text)
    return 128 + (raw & 127) if raw & 127 else raw >> 8


def status_in_words(status: int) -> str:
    """An exit status for people."""
    match status:
        case 0:
            return "ended without a result"
        case s if s == INTERRUPTED:
            return "interrupted too often; it goes on from its last checkpoint or shard when retried"
        case s if s == NO_PYTHON:
            return "the Python environment is not there on its node"
        case s if s == NO_STORE:
            return "the store is not visible on its node"
        case 137:
            return "killed by SIGKILL (out of memory, perhaps)"
        case s if s > 128:
            return f"killed by signal {s - 128}"
    return f"ended with status {status}"


def _exit_status(study_dir: Path, job: str) -> int:
    try:
        return int((study_dir / "slurm" / "exits" / job).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _recent(store: Store, ref: Ref) -> bool:
    try:
        return time.time() - store.lease_path(*ref).stat().st_mtime < 600
    except FileNotFoundError:
        return False


def _progress(claim: dict[str, Any] | None) -> str:
    progress = (claim or {}).get("progress")
    if not claim or not progress or not progress["total"]:
        return ""
    share = progress["done"] / progress["total"]
    text = f"{progress['done']:,.0f}/{progress['total']:,.0f} {progress['unit']}"
    if share > 0:
        text += f", {duration((time.time() - claim['began']) * (1 - share) / share)} left"
    return text


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if len(lines) > 3 else " ".join(lines)


def _mark_blocked(seen: StudyStatus) -> None:
    """Waiting stages below a failed one will not run by themselves."""
    bad = {ref for ref, status in seen.stages.items() if status.state in ("failed", "cancelled", "lost")}
    if not bad:
        return
    for ref in TopologicalSorter(seen.study.nodes).static_order():
        status = seen.stages.get(ref)
        if status is not None and status.state == "waiting" and any(parent in bad for parent in seen.study.nodes[ref]):
            seen.stages[ref] = StageStatus(ref, "blocked", "a stage it depends on failed")
            bad.add(ref)
