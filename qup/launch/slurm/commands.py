"""SLURM's commands, with bounded patience for a controller that is away."""

from __future__ import annotations

import os
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
_SQUEUE = "JobArrayID:40,State:24,Reason:60,RestartCnt:8,TimeUsed:20,exit_code:12,Comment:250"


class ControllerAway(QupError):
    """SLURM's controller does not answer."""


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


class Slurm:
    """The commands qup uses. `patience_s` bounds how long a controller that is away is waited for."""

    def __init__(self, patience_s: float = 90.0) -> None:
        self.patience_s = patience_s

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
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ControllerAway),
            wait=tenacity.wait_exponential_jitter(0.5, 15),
            stop=tenacity.stop_after_delay(self.patience_s),
            reraise=True,
        )
        return retry(self._once, args)

    def _once(self, args: Sequence[str]) -> str:
        done = subprocess.run(args, capture_output=True, text=True, stdin=subprocess.DEVNULL)
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
        """All of qup's jobs that SLURM still knows, by id."""
        found = {}
        widths = [int(part.rpartition(":")[2]) for part in _SQUEUE.split(",")]
        for line in self.run("squeue", "-h", "-r", "-t", "all", "-O", _SQUEUE).splitlines():
            cells, at = [], 0
            for width in widths:
                cells.append(line[at : at + width].strip())
                at += width
            if cells[6].startswith("qup "):
                restarts = int(cells[3]) if cells[3].isdigit() else 0
                found[cells[0]] = QueueJob(cells[0], cells[1], cells[2], restarts, cells[4], cells[6], cells[5])
        return found

    def accounted(self, ids: Sequence[str]) -> dict[str, QueueJob]:
        """What accounting says of jobs that squeue has forgotten; empty where there is no accounting."""
        if not ids or shutil.which("sacct") is None:
            return {}
        try:
            text = self._once(("sacct", "-n", "-X", "-P", "-j", ",".join(ids), "-o", "JobID,State,ExitCode,Elapsed"))
        except QupError:
            return {}
        found = {}
        for line in text.splitlines():
            cells = line.split("|")
            if len(cells) >= 4 and cells[1]:
                found[cells[0]] = QueueJob(cells[0], cells[1], "", 0, cells[3], "", cells[2])
        return found

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
