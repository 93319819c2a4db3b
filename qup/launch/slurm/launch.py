"""A study's way to SLURM: checked, submitted, and left to a driver and a report job, or stayed with until it ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from qup.config.schema import Config
from qup.errors import QupError
from qup.launch.console import command
from qup.launch.plan import Plan
from qup.launch.preflight.downloads import download
from qup.launch.process import StopFlag
from qup.launch.results import conclude, values_of
from qup.launch.slurm.commands import Slurm, SubmitLimit
from qup.launch.slurm.driver import drive, here_refs, leave_driver, submit_report
from qup.launch.slurm.ledger import Submission
from qup.launch.slurm.site import Site, check_site, make_site, queue_lock, save_site
from qup.launch.slurm.submit import Submitter, tasks_of
from qup.launch.watch import watch
from qup.pipeline.graph import Ref


def submit_study(plan: Plan, resolved: Sequence[Config], console: Console) -> tuple[int, tuple[Any, ...]]:
    """Submits the first wave, and whatever submits the rest. Returns (exit status, value of each cell)."""
    first = resolved[0]
    if not plan.to_run:
        console.print("everything is stored: nothing was submitted")
        return 0, values_of(plan, conclude(plan.study_dir, console))
    slurm = Slurm()
    slurm.check()
    check_site(plan, first.cluster, slurm)
    download(plan, console.print)
    here = here_refs(plan)
    above = sum(map(tasks_of, plan.to_run.values())) > first.cluster.max_jobs
    if above and not here and not first.study.wait and not first.cluster.nodes_submit:
        raise QupError(
            f"cluster.max_jobs={first.cluster.max_jobs}: {len(plan.to_run)} stages are more, and cluster.nodes_submit=false says that no job "
            "may submit the rest; stay with study.wait=true, so that this process does it"
        )
    site = make_site(plan, first, console.print)
    save_site(site)
    with queue_lock(plan.store):
        submitter = Submitter(site, slurm)
        left_over = submitter.clear_leftovers()
        if left_over:
            console.print(f"{len(left_over)} held jobs of a client that died were cancelled")
        submission, left = submitter.submit_wave(plan, skip=here)
    try:
        return _afterwards(plan, resolved, site, submitter, submission, left, console)
    except KeyboardInterrupt:
        console.print(f"the jobs go on · {_hints(first, 'wait', 'status', 'cancel')}")
        return 130, tuple(None for _ in resolved)


def _afterwards(
    plan: Plan,
    resolved: Sequence[Config],
    site: Site,
    submitter: Submitter,
    submission: Submission,
    left: Sequence[Ref],
    console: Console,
) -> tuple[int, tuple[Any, ...]]:
    """Once the first wave is in: leaves someone who submits the rest and the report, and stays where study.wait says so."""
    mine = {unit.ref for _, unit in submission.job_ids()}
    console.print(
        f"submitted {len(mine)} stages as {len(submission.jobs)} sbatch calls: {' '.join(submission.jobs) or 'all queued already'}"
    )
    first = resolved[0]
    if left and not first.study.wait:
        leave_driver(site, submitter, here_refs(plan), console)
    elif not left:
        try:
            submit_report(site, submitter)
        except SubmitLimit:
            leave_driver(site, submitter, frozenset(), console)
    if not first.study.wait:
        console.print(f"this shell is free · {_hints(first, 'status', 'wait', 'cancel')}")
        return 0, tuple("submitted" for _ in resolved)
    status, totals = stay(site, console, drive_too=bool(left))
    return status, values_of(plan, totals)


def stay(site: Site, console: Console, *, drive_too: bool) -> tuple[int, dict[str, Any]]:
    """Blocks until the study ends, with the live display."""
    if drive_too:
        drive(site, Slurm(), StopFlag(), logging.getLogger("qup.driver"))
    status = watch(site.study_dir, console)
    return status, conclude(site.study_dir, console)


def _hints(first: Config, *verbs: str) -> str:
    return " · ".join(command(verb, str(first.study.name), Path(first.study.dir)) for verb in verbs)
