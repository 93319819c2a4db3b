"""A study on SLURM from its first wave of jobs to its report."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from qup.config.fingerprint import build, plain
from qup.config.schema import Cluster, Config
from qup.errors import QupError
from qup.launch.downloads import download
from qup.launch.jobs import job_of
from qup.launch.ledger import Submission
from qup.launch.plan import Plan, make_plan
from qup.launch.registry import read_study, study_cells
from qup.launch.run import INTERRUPTED, StopFlag, log_to_stderr, read_failure
from qup.launch.slurm import Site, Submitter, check_site, make_site, queue_lock
from qup.launch.slurm_commands import ControllerAway, Slurm
from qup.launch.states import Look, look
from qup.launch.task import requeue
from qup.launch.weights import let_go
from qup.pipeline.graph import Ref
from qup.store import Store
from qup.store.store import write_json

POLL_S = 3.0
Started = tuple[int, tuple[Any, ...]]


def save_site(site: Site) -> None:
    """Writes down what later waves and retries need."""
    write_json(
        site.study_dir / "slurm" / "site.json",
        {"code": str(site.code) if site.code else None, "cwd": str(site.cwd), "cluster": plain(site.cluster)},
    )


def load_site(study_dir: Path) -> Site:
    """What a study was submitted with; QupError where it never was."""
    record = read_study(study_dir)
    path = study_dir / "slurm" / "site.json"
    if record is None or not path.exists():
        raise QupError(f"study {study_dir.name} was not submitted to SLURM; launch it with hydra/launcher=slurm")
    content = json.loads(path.read_text())
    code = Path(content["code"]) if content["code"] else None
    store = Store(record["store"], record["cells"][0]["config"]["store"]["lease_s"])
    return Site(record["name"], study_dir, store, build(Cluster, content["cluster"]), code, Path(content["cwd"]))


def here_refs(plan: Plan) -> frozenset[Ref]:
    """Stages that run on the launching machine, because nodes cannot reach what they need."""
    return frozenset(ref for ref, planned in plan.to_run.items() if planned.resources.where == "here")


def start(plan: Plan, resolved: Sequence[Config], console: Console) -> Started:
    """Submits the first wave, and whatever submits the rest. Returns (exit status, value of each cell)."""
    from qup.launch.study import conclude, values_of

    first = resolved[0]
    if not plan.to_run:
        console.print("everything is stored: nothing was submitted")
        return 0, values_of(plan, conclude(plan.study_dir, plan.store, console))
    slurm = Slurm()
    slurm.check()
    check_site(plan, first.cluster, slurm)
    download(plan, console.print)
    here = here_refs(plan)
    above = sum(1 + planned.resources.workers for planned in plan.to_run.values()) > first.cluster.max_jobs
    if above and not here and not first.study.wait and not first.cluster.nodes_submit:
        raise QupError(
            f"cluster.max_jobs={first.cluster.max_jobs}: {len(plan.to_run)} stages are more, and cluster.nodes_submit=false says that no job "
            "may submit the rest; stay with study.wait=true, so that this process does it"
        )
    site = make_site(plan, first)
    save_site(site)
    with queue_lock(plan.store):
        submitter = Submitter(site, slurm)
        left_over = submitter.clear_leftovers()
        if left_over:
            console.print(f"{len(left_over)} held jobs of a client that died were cancelled")
        submission, left = submitter.submit_wave(plan, first.cluster.max_jobs, skip=here)
    try:
        return _afterwards(plan, resolved, site, submitter, submission, left, console)
    except KeyboardInterrupt:
        console.print(f"the jobs go on · qup wait {site.study} · qup status {site.study} · qup cancel {site.study}")
        return 130, tuple(None for _ in resolved)


def _afterwards(
    plan: Plan,
    resolved: Sequence[Config],
    site: Site,
    submitter: Submitter,
    submission: Submission,
    left: Sequence[Ref],
    console: Console,
) -> Started:
    """Once the first wave is in: leaves someone who submits the rest and the report, and stays where study.wait says so."""
    from qup.launch.study import values_of

    console.print(
        f"submitted {len(plan.to_run) - len(left)} stages as {len(submission.jobs)} sbatch calls: {' '.join(submission.jobs) or 'all queued already'}"
    )
    first = resolved[0]
    if left and not first.study.wait:
        _leave_driver(site, submitter, here_refs(plan), console)
    elif not left:
        _submit_report(site, submitter)
    if not first.study.wait:
        console.print(f"this shell is free · qup status {plan.study} · qup wait {plan.study} · qup cancel {plan.study}")
        return 0, tuple("submitted" for _ in resolved)
    status, totals = stay(site, console, drive_too=bool(left))
    return status, values_of(plan, totals)


def _leave_driver(site: Site, submitter: Submitter, here: frozenset[Ref], console: Console) -> None:
    """Leaves someone who submits the rest: a job, or a process on this machine where stages must run here."""
    if here:
        log = site.study_dir / "logs" / "driver.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "qup.launch.campaign", str(site.study_dir)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        console.print(
            f"{len(here)} stages run on this machine in process {process.pid}, which also submits what depends on them (log {log})"
        )
        return
    job = submitter.submit_plain(DriverTask(str(site.study_dir), site.cluster.max_requeues), "driver", site.cluster.driver, "")
    console.print(f"more stages than cluster.max_jobs={site.cluster.max_jobs}: driver job {job} submits the rest as others end")


def _submit_report(site: Site, submitter: Submitter) -> None:
    """The report is a job that runs after all others, however they ended."""
    ids = [
        job.id
        for job in submitter.slurm.jobs().values()
        if job.alive and job.comment.startswith(f"qup {site.study} ") and not job.comment.endswith(" report")
    ]
    whole = sorted({job.partition("_")[0] for job in ids})
    dependency = "afterany:" + ":".join(whole) if whole else ""
    submitter.submit_plain(ReportTask(str(site.study_dir)), "report", site.cluster.report, dependency)


def replan(site: Site) -> Plan:
    """The study's plan against the store as it is now."""
    record = read_study(site.study_dir)
    assert record is not None
    return make_plan(study_cells(record), site.study_dir)


def failed_refs(site: Site, plan: Plan, seen: Look) -> frozenset[Ref]:
    """Stages that this study submitted or ran here and that ended without a result."""
    found = set()
    for ref in plan.to_run:
        state = seen.stages.get(ref)
        if state is not None and state.state in ("failed", "cancelled", "lost"):
            found.add(ref)
    return frozenset(found)


def drive(site: Site, slurm: Slurm, stop: StopFlag, log: logging.Logger) -> bool:
    """Submits waves until nothing is left to submit, then the report; False where asked to stop before."""
    running: dict[Ref, subprocess.Popen[bytes]] = {}
    while not stop():
        try:
            plan = replan(site)
            seen = look(site.study_dir, slurm)
            failed = failed_refs(site, plan, seen)
            here = here_refs(plan)
            with queue_lock(site.store):
                submitter = Submitter(site, slurm)
                alive = sum(1 for job in slurm.jobs().values() if job.alive)
                submission, left = submitter.submit_wave(plan, max(0, site.cluster.max_jobs - alive), skip=failed | here)
            if submission.jobs:
                log.info("submitted %d more sbatch calls, %d stages left", len(submission.jobs), len(left))
            _run_here(site, plan, here - failed, running, log)
            gone = _blocked(plan, failed)
            if not [ref for ref in left if ref not in gone] and not running:
                _submit_report(site, submitter)
                return True
        except ControllerAway as error:
            log.warning("%s", error)
        time.sleep(POLL_S)
    for process in running.values():
        process.terminate()
    return False


def _blocked(plan: Plan, failed: frozenset[Ref]) -> set[Ref]:
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
        if read_failure(job.failure):
            continue
        job.log.parent.mkdir(parents=True, exist_ok=True)
        env = dict(os.environ, PYTHONSAFEPATH="1") | ({"PYTHONPATH": str(site.code)} if site.code else {})
        with job.log.open("ab") as stream:
            running[ref] = subprocess.Popen(
                [sys.executable, "-m", "qup.launch.run", str(job.save())],
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
        from qup.launch.study import conclude

        site = load_site(Path(self.study_dir))
        let_go(site.store, site.study_dir)
        conclude(site.study_dir, site.store, Console())
        return "report built"


def stay(site: Site, console: Console, *, drive_too: bool) -> tuple[int, dict[str, Any]]:
    """Blocks until the study ends, with the live display."""
    from qup.launch.life import watch
    from qup.launch.study import conclude

    if drive_too:
        drive(site, Slurm(), StopFlag(), logging.getLogger("qup.driver"))
    status = watch(site.study_dir, console)
    return status, conclude(site.study_dir, site.store, console)


def main() -> None:
    """`python -m qup.launch.campaign STUDY_DIR`: the driver, on this machine."""
    log_to_stderr()
    stop = StopFlag()
    stop.install()
    drive(load_site(Path(sys.argv[1])), Slurm(), stop, logging.getLogger("qup.driver"))


if __name__ == "__main__":
    main()
