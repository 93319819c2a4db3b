"""What submitit runs inside a SLURM job: one stage, or one rank or worker of it."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from qup.launch.job import Job
from qup.launch.process import INTERRUPTED, StopFlag, log_to_stderr, run_follower, run_job
from qup.pipeline import KINDS

REQUEUE_WAIT_S = 120
"""Seconds within which SLURM takes a requeued job off its node."""


@dataclass(frozen=True)
class StageTask:
    """Picklable: submitit writes it down at submission and calls it in the job."""

    job: str
    worker: tuple[int, int] | None = None
    max_requeues: int = 5

    def __call__(self) -> str:
        path = Path(self.job)
        rank, ranks = int(os.environ.get("SLURM_PROCID", 0)), int(os.environ.get("SLURM_NTASKS", 1))
        write_to_log(Job.load(path), rank, self.worker)
        log = logging.getLogger("qup.slurm")
        stop = StopFlag()
        if ranks > 1:
            if not KINDS[Job.load(path).ref.kind].ranks:
                ranks = 1
                if rank:
                    return "only the first task of a stage works, but in training"
            else:
                set_rendezvous(rank, ranks)
        status = run_follower(path, stop) if rank else run_job(path, self.worker, stop)
        if status == 0:
            return "done"
        if status == INTERRUPTED and stop.number == signal.SIGUSR2:
            if rank == 0:
                requeue(self.max_requeues, log)
            time.sleep(REQUEUE_WAIT_S)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def requeue(max_requeues: int, log: logging.Logger) -> NoReturn:
    """Puts this job back into the queue under its own id, a bounded number of times, and ends this process."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if restarts >= max_requeues:
        log.error("interrupted after %d requeues (cluster.max_requeues=%d); qup retry goes on from here", restarts, max_requeues)
        os._exit(INTERRUPTED)
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"]
    log.warning("requeueing %s (time %d of %d)", job, restarts + 1, max_requeues)
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, encoding="utf-8", errors="replace")
    if done.returncode:
        log.error("scontrol requeue: %s", done.stderr.strip())
    else:
        time.sleep(REQUEUE_WAIT_S)
    os._exit(INTERRUPTED)


def write_to_log(job: Job, rank: int, worker: tuple[int, int] | None) -> None:
    """Everything from here on goes to the stage's log, where `qup logs` finds it; ranks and workers have their own."""
    suffix = f".rank{rank}" if rank else f".worker{worker[0]}" if worker else ""
    path = job.log.with_name(job.log.stem + suffix + ".log")
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    log_to_stderr()


def set_rendezvous(rank: int, ranks: int) -> None:
    """torch.distributed's environment out of SLURM's: first host of the job, a port derived from its id."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_JOB_NODELIST"]
    hosts = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, encoding="utf-8", errors="replace", check=True
    ).stdout.split()
    mark = f"{os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    port = 20000 + int(hashlib.sha256(mark.encode()).hexdigest(), 16) % 20000
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(ranks),
        LOCAL_RANK=os.environ.get("SLURM_LOCALID", "0"),
        MASTER_ADDR=hosts[0],
        MASTER_PORT=str(port),
    )
