"""What of a study is alive: launches and drivers at work on it, and its jobs in SLURM's queue."""

from __future__ import annotations

from pathlib import Path

from qup.errors import QupError
from qup.launch.attendance import attendants
from qup.launch.slurm.commands import Slurm
from qup.launch.slurm.site import on_slurm
from qup.study import Study

NAMED = 5
"""Of those alive, how many are named."""


def refuse_alive(study: Study, what: str, own: Path | None = None) -> None:
    """Raises QupError where a launch of the study, other than that of the lease `own`, or a job of it is alive, naming them.

    `what` says what can't be done while they are. Where SLURM can't be asked, that is refused as well.
    """
    alive = [f"{there['what']} on {there['host']} (process {there['pid']})" for there in attendants(study.folder, own)]
    stop = "stop it with Ctrl-C"
    if on_slurm(study.folder):
        stop = f"wait for its end, or stop it with `qup cancel {study.name}`"
        try:
            slurm = Slurm(patience_s=5.0)
            slurm.check()
            jobs = slurm.jobs()
        except QupError as error:
            raise QupError(f"study {study.name}: {what} only once SLURM says that none of its jobs is left: {error}") from None
        queued = [job for job in jobs.values() if job.alive and job.of(study.identity)]
        alive += [f"job {job.id} ({job.state.lower()})" for job in sorted(queued, key=lambda job: job.state == "PENDING")]
    if alive:
        more = f", … and {len(alive) - NAMED} more" if len(alive) > NAMED else ""
        raise QupError(f"study {study.name}: {what} only once nothing of it runs or waits: {', '.join(alive[:NAMED])}{more}; {stop}")
