"""`qup retry`: what failed, was cancelled or was lost, and what waits for it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from qup.config.schema import Resources
from qup.errors import QupError
from qup.launch.attendance import attending
from qup.launch.local.run import run_here
from qup.launch.plan import Plan, check_budget, make_plan
from qup.launch.preflight.credentials import check_keys
from qup.launch.slurm.commands import Slurm, SubmitLimit
from qup.launch.slurm.driver import blocked, here_refs, leave_driver, replan, submit_report
from qup.launch.slurm.site import load_site, on_slurm, queue_lock, save_site
from qup.launch.slurm.submit import Submitter
from qup.launch.snapshot import freeze_code
from qup.launch.status import StageStatus, study_status
from qup.launch.units import parse_memory, parse_minutes
from qup.pipeline import KINDS
from qup.pipeline.graph import Ref
from qup.study import Study, find_study


def retry(study: str, shown: Path, console: Console, *, stages: list[str], code: str, mem: str | None, time: str | None) -> int:
    """Runs again what failed, was cancelled or was lost, and what waits for it; exit status 0 once submitted (or run)."""
    found = find_study(study, shown, ran=True)
    folder = found.folder
    for stage in stages:
        if stage not in KINDS:
            raise QupError(f"--stage {stage}: there are {', '.join(KINDS)}")
    memory_factor, time_factor = _factor("--mem", mem), _factor("--time", time)
    if not on_slurm(folder):
        given = {"--stage": bool(stages), "--mem": mem, "--time": time, "--code": code != "frozen"}
        if any(given.values()):
            named = ", ".join(flag for flag, value in given.items() if value)
            raise QupError(
                f"{named}: study {found.name} was not submitted to SLURM; here everything that failed runs again, with the code and machine as they are"
            )
        return _retry_here(found, console)
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
    seen = study_status(found, slurm)
    bad = {ref: status for ref, status in seen.stages.items() if status.state in ("failed", "cancelled", "lost", "held")}
    chosen = {ref for ref in bad if not stages or ref.kind in stages}
    if not bad and not [ref for ref in plan.to_run if seen.stages.get(ref, StageStatus(ref, "waiting")).state in ("waiting", "blocked")]:
        console.print("nothing failed or was lost: nothing to retry")
        return 0
    _scale(plan, bad, memory_factor, time_factor)
    here = here_refs(plan)
    left_out = frozenset(ref for ref in bad if ref not in chosen)
    check_keys(plan, "slurm", blocked(plan, left_out))
    skip = here | left_out
    with queue_lock(site.store):
        submitter = Submitter(site, slurm)
        submitter.clear_leftovers()
        submission, left = submitter.submit_wave(plan, skip=skip)
    mine = {unit.ref for _, unit in submission.job_ids()}
    console.print(f"resubmitted {len(mine & bad.keys())} stages that had not succeeded and {len(mine - bad.keys())} that waited for them")
    if [ref for ref in left if ref not in skip or ref in here]:
        leave_driver(site, submitter, here, console)
    else:
        try:
            submit_report(site, submitter)
        except SubmitLimit:
            leave_driver(site, submitter, here, console)
    return 0


def _retry_here(study: Study, console: Console) -> int:
    cells = study.configs()
    with attending(study.folder, "launch"):
        plan = make_plan(cells, study.folder)
        check_budget(plan, cells[0])
        check_keys(plan, "local")
        return run_here(plan, cells, console)[0]


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
