"""How each stage of a study stands, from the store and one look at the queue."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from qup.errors import QupError
from qup.files import read_json
from qup.launch.attendance import attended
from qup.launch.plan import published
from qup.launch.slurm.commands import QueueJob, Slurm
from qup.launch.slurm.ended import IN_WORDS, decode, exit_status, first_rank, last_words, outputs, status_in_words
from qup.launch.slurm.ledger import Ledger, Queue, Submission
from qup.launch.slurm.site import driver_record
from qup.launch.units import duration, left_in_words, remaining
from qup.pipeline import KINDS
from qup.pipeline.graph import Ref
from qup.store import Store
from qup.store.lease import holder_is_dead
from qup.study import Cell, Study

ENDED = ("stored", "failed", "cancelled", "lost", "blocked")
FORGOTTEN = "whoever was to start it is gone; qup retry, or the launch again, goes on from here"
MOST_ASKED = 500
"""Forgotten jobs that accounting is asked about at once."""


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
    driver: str = ""
    """What became of the driver, where it ended before everything was submitted."""

    def of_cell(self, cell: Cell) -> list[StageStatus]:
        """The wanted stages of a cell and whatever above them is missing."""
        return [self.stages[ref] for ref in cell.ordered() if ref in self.stages]

    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return all(status.state in ENDED for cell in self.study.cells for status in self.of_cell(cell))

    def good(self) -> bool:
        """Whether every wanted result is there."""
        return all(self.stages[ref].state == "stored" for cell in self.study.cells for ref in cell.wanted)


def study_status(of: Path | Study, slurm: Slurm | None, jobs: Mapping[str, QueueJob] | None = None) -> StudyStatus:
    """Reads the store, the ledger, the leases and the queue once; `jobs` is the queue where it was just asked.

    Of a folder, or of a study that was just read. Without SLURM, what is known without it.
    """
    study = of if isinstance(of, Study) else Study.load(of)
    seen = StudyStatus(study)
    latest = Ledger(study.folder).latest()
    store = study.open_store()
    noted = Queue(store).all()
    if jobs is None:
        jobs = {}
        # another study may have queued all that this one waits for
        if slurm is not None and (latest or driver_record(study.folder).exists() or any(ref in noted for ref in study.nodes)):
            try:
                jobs = slurm.jobs()
            except QupError as error:
                seen.slurm = str(error)
    known = published(store, list(KINDS))
    needed = _needed(study, known)
    accounted: dict[str, QueueJob] = {}
    if slurm is not None and not seen.slurm:
        forgotten = [job for ref in needed for job, _, _ in latest.get(ref, ()) if job not in jobs]
        accounted = slurm.accounted(forgotten[:MOST_ASKED])
    reader = _Reader(study, store, noted, jobs, accounted, seen.slurm)
    for ref in study.nodes:
        if ref.key in known[ref.kind]:
            seen.stages[ref] = StageStatus(ref, "stored")
        elif ref in needed:
            seen.stages[ref] = reader.status(ref, latest.get(ref, []))
    _mark_blocked(seen)
    _mark_forgotten(seen, jobs)
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


class _Reader:
    """One stage after another, against one look at the queue."""

    def __init__(
        self,
        study: Study,
        store: Store,
        noted: Mapping[Ref, dict[str, Any]],
        jobs: Mapping[str, QueueJob],
        accounted: Mapping[str, QueueJob],
        away: str,
    ) -> None:
        self.study, self.store, self.noted = study, store, noted
        self.jobs, self.accounted, self.away = jobs, accounted, away
        self.expected = _expected(study.folder)

    def status(self, ref: Ref, tasks: Sequence[tuple[str, Any, Submission]]) -> StageStatus:
        """A stage that is not stored; `tasks` are those of its newest submission."""
        held = self.store.holder(*ref)
        noted = self.noted.get(ref)
        if noted and noted["study"] != self.study.name and noted["job"] in self.jobs and self.jobs[noted["job"]].alive:
            other = self.jobs[noted["job"]]
            return StageStatus(
                ref, "running" if other.state == "RUNNING" else "queued", f"by study {noted['study']}", other.id, shared=True
            )
        live = [self.jobs[job] for job, _, submission in tasks if self._is_live(job, submission)]
        if live:
            return _live(ref, live, self._progress(ref, held))
        if held is not None and not holder_is_dead(held) and _recent(self.store, ref):
            return StageStatus(ref, "running", self._progress(ref, held))
        failure = read_json(self.study.folder / "failed" / f"{ref.kind}-{ref.key}.json")
        if not tasks:
            return StageStatus(ref, "failed", _last(failure["error"])) if failure else StageStatus(ref, "waiting")
        if self.away:
            return StageStatus(ref, "queued", "the queue cannot be asked", tasks[-1][0])
        return self._ended(ref, tasks, failure)

    def _progress(self, ref: Ref, held: dict[str, Any] | None) -> str:
        """How far a stage says that it is, and what it still takes by that or by the plan."""
        if held is None:
            return ""
        told = held.get("progress") or {"done": 0.0, "total": 0.0, "unit": ""}
        spent, share = time.time() - held["began"], told["done"] / told["total"] if told["total"] else 0.0
        amount = [f"{told['done']:,.0f}/{told['total']:,.0f} {told['unit']}"] if told["total"] else []
        expected = self.expected.get(ref)
        left = remaining(spent, share, expected or 0.0)
        known = left is not None or expected is not None
        return ", ".join([*amount, left_in_words(left) if known else f"{duration(spent)} so far"])

    def _is_live(self, job: str, submission: Submission) -> bool:
        found = self.jobs.get(job)
        return found is not None and found.alive and found.submission == submission.id

    def _ended(self, ref: Ref, tasks: Sequence[tuple[str, Any, Submission]], failure: dict[str, Any] | None) -> StageStatus:
        ended = [(self.jobs.get(job) or self.accounted.get(job), submission) for job, _, submission in tasks]
        bad = next(((job, submission) for job, submission in ended if job is not None and job.state.split()[0] != "COMPLETED"), None)
        stopped = any(job in submission.stopped for job, _, submission in tasks)
        if bad is not None:
            return self._dead(ref, *bad, failure, stopped)
        last, _, submission = tasks[-1]
        if failure:
            return StageStatus(ref, "failed", _last(failure["error"]), last)
        if stopped:
            return StageStatus(ref, "cancelled", "by qup cancel", last)
        status = exit_status(self.study.folder, last)
        if status:
            return StageStatus(ref, "failed", self._in_words(ref, status, submission, last), last)
        return StageStatus(ref, "lost", "SLURM no longer knows the job, and it left no result", last)

    def _dead(self, ref: Ref, job: QueueJob, submission: Submission, failure: dict[str, Any] | None, stopped: bool) -> StageStatus:
        state = job.state.split()[0]
        if state == "CANCELLED":
            # what qup stopped first, for a job that was cancelled while it waited keeps "Dependency" as its reason
            why = (
                "by qup cancel"
                if stopped
                else "a stage it depends on did not succeed"
                if job.reason in ("Dependency", "DependencyNeverSatisfied")
                else "by hand, or by its dependency"
            )
            return StageStatus(ref, "cancelled", why, job.id, job.restarts)
        if state in IN_WORDS:
            return StageStatus(ref, "failed", IN_WORDS[state], job.id, job.restarts)
        if failure:
            return StageStatus(ref, "failed", _last(failure["error"]), job.id, job.restarts)
        status = exit_status(self.study.folder, job.id) or decode(job.exit_code)
        return StageStatus(ref, "failed", self._in_words(ref, status, submission, job.id), job.id, job.restarts)

    def _in_words(self, ref: Ref, status: int, submission: Submission, job: str) -> str:
        """An end that the stage itself said nothing of, with the last that its job said."""
        written = outputs(self.study.folder, submission.id, job)
        said, rank = last_words(written), first_rank(written)
        log = self.study.folder / "logs" / f"{ref.kind}-{ref.key}.log"
        silent = not said and not (log.exists() and log.stat().st_size)
        told = status_in_words(status) + (f", rank {rank} before the others" if rank else "")
        return told + (f": {said[-1].strip()}" if said else ", before it said anything" if silent else "")


def _live(ref: Ref, live: Sequence[QueueJob], progress: str) -> StageStatus:
    running = [job for job in live if job.state in ("RUNNING", "COMPLETING")]
    job = running[0] if running else live[0]
    restarts = max(one.restarts for one in live)
    note = f"requeued {restarts}×, " if restarts else ""
    if running:
        return StageStatus(ref, "running", f"{note}{progress or f'{job.used} so far'}", job.id, restarts)
    if job.held:
        return StageStatus(ref, "held", f"{note}{job.reason}", job.id, restarts)
    return StageStatus(ref, "queued", f"{note}{job.reason}", job.id, restarts)


def _recent(store: Store, ref: Ref) -> bool:
    try:
        return time.time() - store.lease_path(*ref).stat().st_mtime < 600
    except FileNotFoundError:
        return False


def _expected(folder: Path) -> dict[Ref, float]:
    """Seconds that the plan says of each stage."""
    stages = (read_json(folder / "plan.json") or {}).get("stages", ())
    return {Ref(stage["name"], stage["key"]): float(stage["cost"]["seconds"]) for stage in stages if stage.get("cost")}


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


def _mark_forgotten(seen: StudyStatus, jobs: Mapping[str, QueueJob]) -> None:
    """Waiting stages that nobody alive will start, and why the driver did not."""
    study = seen.study
    waiting = [ref for ref, status in seen.stages.items() if status.state == "waiting"]
    if not waiting or study.dry_run or seen.slurm or attended(study.folder):
        return
    if (driver := read_json(driver_record(study.folder))) is not None:
        job = jobs.get(driver["job"])
        if job is not None and job.alive:
            return
        how = IN_WORDS.get(job.state.split()[0], job.state.lower()) if job is not None else "gone"
        which = f"job {driver['job']}" if driver["job"] else f"log {driver.get('log', study.folder / 'logs' / 'driver.log')}"
        seen.driver = f"the driver ended before everything was submitted ({which}): {driver.get('error') or how}"
    for ref in waiting:
        seen.stages[ref] = replace(seen.stages[ref], state="lost", detail=FORGOTTEN)
