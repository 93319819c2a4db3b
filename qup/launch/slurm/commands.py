"""SLURM's commands, with bounded patience for a controller that is away."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tenacity

from qup.errors import QupError
from qup.launch.units import parse_minutes

AWAY = (
    "Unable to contact slurm controller",
    "Connection refused",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Connection timed out",
)
TERMINAL = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "OUT_OF_MEMORY",
    "NODE_FAIL",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "REVOKED",
)
AT_THE_LIMIT = ("MaxSubmitJob", "GrpSubmitJob", "job submit limit")
"""What sbatch says where more jobs than now may be submitted once others have ended."""
_SQUEUE = "JobArrayID:40,State:24,Reason:60,RestartCnt:8,TimeUsed:20,exit_code:12,Comment:400"


FOREIGN = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SCANCEL_", "SACCT_", "SCONTROL_", "PMI_", "PMIX_")
"""Beginnings of variables by which SLURM's commands are told otherwise, or an allocation tells what it is."""
KEPT = ("SLURM_CONF", "SLURM_JWT")
"""Which cluster is spoken to, and as whom."""


def clean_environment() -> dict[str, str]:
    """What SLURM's commands and the jobs get: this environment without what an allocation or the user's habits say to them.

    All that a job asks for stands in `cluster`, so that a launch does the same from a login node and from inside a job.
    """
    return {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(FOREIGN)}


class ControllerAway(QupError):
    """SLURM's controller does not answer."""


class SubmitLimit(QupError):
    """The user has as many jobs in the queue as SLURM allows; there is room again when some have ended."""


@dataclass(frozen=True)
class Partition:
    """What one kind of node in a partition has."""

    name: str
    default: bool
    nodes: int
    cpus: int
    memory_mb: int
    gres: str
    minutes: float
    features: frozenset[str]

    def gpus(self, kind: str) -> int:
        """GPUs a node, of that type or of any."""
        total = 0
        for entry in self.gres.split(","):
            name, _, rest = entry.partition("(")[0].partition(":")
            if name != "gpu":
                continue
            model, _, count = rest.rpartition(":")
            if not kind or kind == model:
                total += int(count) if count.isdigit() else 1
        return total


@dataclass(frozen=True)
class QueueJob:
    """One line of squeue."""

    id: str
    """`123` or `123_4`."""
    state: str
    reason: str
    restarts: int
    used: str
    comment: str
    exit_code: str = ""

    @property
    def alive(self) -> bool:
        return self.state.split()[0] not in TERMINAL

    @property
    def held(self) -> bool:
        """Waits until its owner releases it."""
        return self.alive and self.reason in ("JobHeldUser", "JobHeldAdmin")

    def of(self, study: str) -> bool:
        """Whether it belongs to the study of this identity."""
        return self.comment.startswith(f"qup {study} ")

    @property
    def submission(self) -> str:
        """The submission that it came with."""
        return self.comment.split()[2].partition(".")[0]

    @property
    def what(self) -> str:
        """What it does: a stage, an array of stages, report or driver."""
        return self.comment.split()[3]


class Slurm:
    """The commands qup uses. `patience_s` bounds how long a controller that is away is waited for."""

    def __init__(self, patience_s: float = 90.0) -> None:
        self.patience_s = patience_s
        self.doubted = False
        """Whether an sbatch call had to be repeated: its job may be there twice."""
        self._ended: dict[str, QueueJob] = {}

    def check(self) -> None:
        """Raises QupError where SLURM cannot be used from here, saying why."""
        if shutil.which("sbatch") is None:
            raise QupError("hydra/launcher=slurm: no sbatch on PATH; run this on a login node of the cluster, or use hydra/launcher=local")
        conf = os.environ.get("SLURM_CONF")
        if conf and not Path(conf).is_file():
            raise QupError(f"SLURM_CONF={conf}: no such file; unset it, or point it at the cluster's slurm.conf")
        self.run("scontrol", "ping")
        self.run("sinfo", "-h", "-o", "%R")

    def run(self, *args: str) -> str:
        """Standard output of a command; ControllerAway after bounded, backed-off retries, QupError for any other failure."""
        return self._patiently()(self._once, args)

    def _patiently(self) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ControllerAway),
            wait=tenacity.wait_exponential_jitter(0.5, 15),
            stop=tenacity.stop_after_delay(self.patience_s),
            reraise=True,
        )

    def submit(self, script: Path, mark: str) -> str:
        """The id of the job that sbatch makes of a script whose comment holds `mark`.

        A controller that was slow to answer may have taken the job all the same: it is looked for before the call is
        repeated. Raises SubmitLimit, or QupError with what SLURM objects to.
        """
        called = False

        def once() -> str:
            nonlocal called
            if called:
                self.doubted = True
                there = [job.id for job in self.jobs().values() if job.alive and mark in job.comment.split()]
                if there:
                    return there[0].partition("_")[0]
            called = True
            found = re.search(r"Submitted batch job (\d+)", self._once(("sbatch", str(script))))
            if found is None:
                raise QupError(f"sbatch did not say which job it made of {script}")
            return found[1]

        try:
            return self._patiently()(once)
        except ControllerAway:
            raise
        except QupError as error:
            said = str(error)[-400:]
            if any(mark in said for mark in AT_THE_LIMIT):
                raise SubmitLimit(f"sbatch takes no more jobs for now: {said}") from None
            raise QupError(f"sbatch refused the job: {said}") from None

    def _once(self, args: Sequence[str]) -> str:
        done = subprocess.run(
            args, capture_output=True, text=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL, env=clean_environment()
        )
        if done.returncode == 0 and not (args[:2] == ("scontrol", "ping") and "DOWN" in done.stdout and "UP" not in done.stdout):
            return done.stdout
        said = (done.stderr.strip() or done.stdout.strip()).replace("\n", "; ")
        if any(mark in said for mark in AWAY) or args[:2] == ("scontrol", "ping"):
            raise ControllerAway(f"SLURM's controller does not answer ({said}); nothing was lost, try again when it is back")
        raise QupError(f"{' '.join(args[:2])}: {said or f'exit status {done.returncode}'}")

    def partitions(self) -> list[Partition]:
        """Every kind of node in every partition."""
        found = []
        for line in self.run("sinfo", "-h", "-e", "-o", "%P|%D|%c|%m|%G|%l|%f|%a").splitlines():
            name, nodes, cpus, memory, gres, limit, features, up = line.split("|")
            if up == "up":
                found.append(
                    Partition(
                        name.rstrip("*"),
                        name.endswith("*"),
                        int(nodes),
                        int(cpus.rstrip("+")),
                        int(memory.rstrip("+")),
                        gres,
                        parse_minutes(limit),
                        frozenset(features.split(",")),
                    )
                )
        return found

    def jobs(self) -> dict[str, QueueJob]:
        """All of this user's jobs by qup that SLURM still knows, by id."""
        found = {}
        widths = [int(part.rpartition(":")[2]) for part in _SQUEUE.split(",")]
        for line in self.run("squeue", "--me", "-h", "-r", "-t", "all", "-O", _SQUEUE).splitlines():
            cells, at = [], 0
            for width in widths:
                cells.append(line[at : at + width].strip())
                at += width
            if cells[6].startswith("qup "):
                restarts = int(cells[3]) if cells[3].isdigit() else 0
                found[cells[0]] = QueueJob(cells[0], cells[1], cells[2], restarts, cells[4], cells[6], cells[5])
        return found

    def accounted(self, ids: Sequence[str]) -> dict[str, QueueJob]:
        """What accounting says of jobs that squeue has forgotten; empty where there is no accounting. An end is asked for once."""
        asked = [job for job in ids if job not in self._ended]
        if asked and shutil.which("sacct") is not None:
            try:
                text = self._once(("sacct", "-n", "-X", "-P", "-j", ",".join(asked), "-o", "JobID,State,ExitCode,Elapsed"))
            except QupError:
                text = ""
            for line in text.splitlines():
                cells = line.split("|")
                if len(cells) >= 4 and cells[1]:
                    self._ended[cells[0]] = QueueJob(cells[0], cells[1], "", 0, cells[3], "", cells[2])
        return {job: self._ended[job] for job in ids if job in self._ended}

    def max_array_size(self) -> int:
        """Largest array the cluster takes."""
        for line in self.run("scontrol", "show", "config").splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "MaxArraySize":
                return int(value)
        return 1001

    def release(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), 200):
            self.run("scontrol", "release", ",".join(ids[start : start + 200]))

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancels jobs; those already gone are fine."""
        for start in range(0, len(ids), 200):
            try:
                self.run("scancel", *ids[start : start + 200])
            except ControllerAway:
                raise
            except QupError as error:
                if "Invalid job id" not in str(error):
                    raise
