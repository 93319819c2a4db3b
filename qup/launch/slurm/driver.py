"""Who submits a study's later waves and its report: a job, or a process on the machine that launched."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from qup.errors import QupError
from qup.files import read_json, write_json
from qup.launch.attendance import attended, attending
from qup.launch.console import make_console
from qup.launch.job import job_of
from qup.launch.pace import Pace
from qup.launch.plan import Plan, make_plan
from qup.launch.process import INTERRUPTED, StopFlag, log_to_stderr
from qup.launch.results import conclude
from qup.launch.slurm.commands import ControllerAway, Slurm, SubmitLimit
from qup.launch.slurm.entry import requeue
from qup.launch.slurm.site import Site, driver_record, load_site, queue_lock
from qup.launch.slurm.submit import Submitter
from qup.launch.status import study_status
from qup.launch.weights import let_go
from qup.pipeline.graph import Ref
from qup.study import Study

STARTS_WITHIN_S = 120.0
"""Seconds within which a driver process on this machine shows that it is there."""


def here_refs(plan: Plan) -> frozenset[Ref]:
    """Stages that run on the launching machine, because nodes cannot reach what they need."""
    return frozenset(ref for ref, planned in plan.to_run.items() if planned.resources.where == "here")


def leave_driver(site: Site, submitter: Submitter, here: frozenset[Ref], console: Console) -> None:
    """Leaves someone who submits the rest: a job, or a process on this machine where stages must run here or no job may be added."""
    why = f"{len(here)} stages run on this machine" if here else "the rest is submitted from this machine"
    if not here and site.cluster.nodes_submit:
        try:
            task = DriverTask(str(site.study_dir), site.cluster.max_requeues)
            job = submitter.submit_plain(task, "driver", site.cluster.driver, "")
        except SubmitLimit:
            why = "SLURM takes no more jobs for now: the rest is submitted from this machine"
        else:
            write_json(driver_record(site.study_dir), {"job": job})
            console.print(f"more stages than may be queued at once: driver job {job} submits the rest as others end")
            return
    process, log = _start_driver(site)
    console.print(f"{why}, in process {process.pid}, which also submits what depends on them (log {log})")


def _start_driver(site: Site) -> tuple[subprocess.Popen[bytes], Path]:
    log = site.study_dir / "logs" / "driver.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    write_json(driver_record(site.study_dir), {"job": "", "log": str(log)})
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "qup.launch.slurm.driver", str(site.study_dir)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while process.poll() is None and not attended(site.study_dir, "driver") and time.monotonic() < deadline:
        time.sleep(0.1)
    if process.poll():
        raise QupError(
            f"the process that was to submit the rest ended with status {process.returncode}; see {log}, then qup retry {site.study}"
        )
    return process, log


def submit_report(site: Site, submitter: Submitter) -> None:
    """The report is a job that runs after all others, however they ended."""
    jobs = submitter.slurm.jobs().values()
    whole = sorted({job.id.partition("_")[0] for job in jobs if job.alive and job.of(site.identity) and job.what != "report"})
    dependency = "afterany:" + ":".join(whole) if whole else ""
    submitter.submit_plain(ReportTask(str(site.study_dir)), "report", site.cluster.report, dependency)


def replan(site: Site) -> Plan:
    """The study's plan against the store as it is now."""
    return make_plan(Study.load(site.study_dir).configs(), site.study_dir)


def drive(site: Site, slurm: Slurm, stop: Callable[[], bool], log: logging.Logger) -> bool:
    """Submits waves until nothing is left to submit, then the report; False where asked to stop before.

    A controller that is away and a limit of SLURM's own are waited out. What else goes wrong is written down, for status.
    """
    running: dict[Ref, subprocess.Popen[bytes]] = {}
    record = driver_record(site.study_dir)
    with attending(site.study_dir, "driver"):
        pace = Pace(Study.load(site.study_dir))
        try:
            while not stop():
                try:
                    if _wave(site, slurm, running, log):
                        record.unlink(missing_ok=True)
                        return True
                except (ControllerAway, SubmitLimit) as error:
                    log.warning("%s", error)
                pace.pause(stop)
        except Exception as error:
            write_json(record, {"job": os.environ.get("SLURM_JOB_ID", ""), "error": str(error) or type(error).__name__})
            raise
        finally:
            for process in running.values():
                process.terminate()
    return False


def _wave(site: Site, slurm: Slurm, running: dict[Ref, subprocess.Popen[bytes]], log: logging.Logger) -> bool:
    """One more wave; True where nothing is left and the report is submitted."""
    plan = replan(site)
    with queue_lock(site.store):
        submitter = Submitter(site, slurm)
        seen = study_status(site.study_dir, slurm, submitter.jobs)
        failed = frozenset(ref for ref in plan.to_run if ref in seen.stages and seen.stages[ref].state in ("failed", "cancelled", "lost"))
        here = here_refs(plan)
        submission, left = submitter.submit_wave(plan, skip=failed | here)
    if submission.jobs:
        log.info("submitted %d more sbatch calls, %d stages left", len(submission.jobs), len(left))
    _run_here(site, plan, here - failed, running, log)
    gone = blocked(plan, failed)
    if [ref for ref in left if ref not in gone] or running:
        return False
    submit_report(site, submitter)
    return True


def blocked(plan: Plan, failed: frozenset[Ref]) -> set[Ref]:
    """Failed stages and all that depend on them."""
    gone = set(failed)
    for ref, planned in plan.to_run.items():
        if any(parent in gone for parent in planned.node.inputs.values()):
            gone.add(ref)
    return gone


def _run_here(site: Site, plan: Plan, here: frozenset[Ref], running: dict[Ref, subprocess.Popen[bytes]], log: logging.Logger) -> None:
    """Starts stages that run on this machine as their inputs get there, and collects those that ended."""
    for ref, process in list(running.items()):
        if process.poll() is not None:
            log.info("%s ended here with status %d", ref, process.returncode)
            del running[ref]
    for ref in here:
        planned = plan.to_run[ref]
        if ref in running or any(parent in plan.to_run for parent in planned.node.inputs.values()):
            continue
        job = job_of(planned, site.study, site.study_dir, site.store)
        if read_json(job.failure):
            continue
        job.log.parent.mkdir(parents=True, exist_ok=True)
        env = dict(os.environ, PYTHONSAFEPATH="1") | ({"PYTHONPATH": str(site.code)} if site.code else {})
        with job.log.open("ab") as stream:
            running[ref] = subprocess.Popen(
                [sys.executable, "-m", "qup.launch.process", str(job.save())],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=env,
                cwd=site.cwd,
            )
        log.info("%s runs here, process %d", ref, running[ref].pid)


@dataclass(frozen=True)
class DriverTask:
    """Picklable: the job that submits the rest of a large grid."""

    study_dir: str
    max_requeues: int

    def __call__(self) -> str:
        log_to_stderr()
        stop = StopFlag()
        stop.install()
        for name in [
            name for name in os.environ if name.startswith(("SBATCH_", "SLURM_MEM", "SLURM_CPUS_PER", "SLURM_NTASKS", "SLURM_TRES"))
        ]:
            del os.environ[name]
        log = logging.getLogger("qup.driver")
        if drive(load_site(Path(self.study_dir)), Slurm(), stop, log):
            return "all submitted"
        if stop.number == signal.SIGUSR2:
            requeue(self.max_requeues, log)
        os._exit(INTERRUPTED)


@dataclass(frozen=True)
class ReportTask:
    """Picklable: the job that builds the report when all others have ended."""

    study_dir: str

    def __call__(self) -> str:
        site = load_site(Path(self.study_dir))
        let_go(site.store, site.study_dir)
        conclude(site.study_dir, make_console())
        return "report built"


def main() -> None:
    """`python -m qup.launch.slurm.driver STUDY_DIR`: the driver, on this machine."""
    log_to_stderr()
    stop = StopFlag()
    stop.install()
    drive(load_site(Path(sys.argv[1])), Slurm(), stop, logging.getLogger("qup.driver"))


if __name__ == "__main__":
    main()
