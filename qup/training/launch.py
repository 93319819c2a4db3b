"""Where the ranks of a training run are: this process, children on this machine, or tasks of a SLURM allocation."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qup import errors
from qup.context import Context
from qup.errors import Interrupted, QupError
from qup.training.children import Child, start
from qup.training.job import Job
from qup.training.worker import INTERRUPTED, SILENCE

GRACE_S = 10.0
"""How long the other ranks have to notice that one is gone, and to say so, before they are killed."""


@dataclass(frozen=True)
class Placement:
    """Which ranks this process answers for. `size` 1: this process is the rank."""

    size: int
    mine: tuple[int, ...] = (0,)
    nodes: int = 1
    outside: bool = False
    """Someone else (torchrun, srun) started one process a rank, and told each its place."""


def placement(ctx: Context, env: Mapping[str, str]) -> Placement:
    """From RANK and WORLD_SIZE where they are set; else GPUs, or tasks on CPU, of the stage's resources."""
    if "RANK" in env and "WORLD_SIZE" in env:
        return Placement(int(env["WORLD_SIZE"]), (int(env["RANK"]),), outside=True)
    gpus = int(ctx.resources.gpus.rpartition(":")[2] or 0)
    here = max(gpus, ctx.resources.tasks)
    return Placement(here * ctx.resources.nodes, tuple(range(here)), ctx.resources.nodes)


def train(job: Job, ctx: Context, env: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Trains and returns the metrics. Raises Interrupted, or an error that names the rank at fault."""
    where = placement(ctx, env)
    if where.size == 1:
        return _here(job, ctx)
    return Family(job, ctx, where).run()


def _here(job: Job, ctx: Context) -> dict[str, Any]:
    from qup.training.ranks import World, pick_device, quiet_deepspeed

    quiet_deepspeed()
    from qup.training.loop import Run, Ways

    world = World(device=pick_device(job.view.model.device, 0))
    return Run(job, world, Ways(ctx.log, ctx.stopping, ctx.progress)).run()


@dataclass
class Ended:
    """How a rank's process ended."""

    status: int
    report: dict[str, Any] = field(default_factory=dict)


class Family:
    """The processes of one run, watched: all end with the first that fails."""

    def __init__(self, job: Job, ctx: Context, where: Placement) -> None:
        self.job, self.ctx, self.where = job, ctx, where
        self.folder = _fresh_folder(ctx.work / "ranks", where)

    def run(self) -> dict[str, Any]:
        self.job.save(self.folder)
        children = self._start()
        ended: dict[str, Ended] = {}
        try:
            self._watch(children, ended)
        finally:
            for child in children.values():
                if child.poll() is None:
                    child.kill()
                child.wait()
        return self._outcome(ended)

    def _start(self) -> dict[str, Child]:
        """Name → process. A process is one rank, or srun, which stands for all."""
        threads = str(self.job.view.model.threads)
        shared = {**os.environ, "QUP_PARENT": str(os.getpid()), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        shared["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
        if self.where.nodes > 1 and not self.where.outside:
            return {"srun": self._srun(shared)}
        children: dict[str, Child] = {}
        for rank in self.where.mine:
            env = dict(shared)
            if not self.where.outside:
                env |= {"RANK": str(rank), "WORLD_SIZE": str(self.where.size), "LOCAL_RANK": str(rank)}
                env |= {"QUP_MASTER": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
            children[str(rank)] = start(self.folder, env, self._log(rank), self.job.view.model.device)
        return children

    def _srun(self, shared: dict[str, str]) -> subprocess.Popen[bytes]:
        if shutil.which("srun") is None or "SLURM_JOB_ID" not in os.environ:
            raise errors.InputError(f"cluster.train.nodes={self.where.nodes}: more than one node needs a SLURM job; 1 is valid here")
        env = {name: value for name, value in shared.items() if name != "QUP_PARENT"} | {"QUP_MASTER": socket.gethostname()}
        tasks = len(self.where.mine)
        command = ["srun", f"--nodes={self.where.nodes}", f"--ntasks-per-node={tasks}", f"--ntasks={self.where.size}"]
        command += [f"--cpus-per-task={self.ctx.resources.cpus}", "--kill-on-bad-exit=1", f"--output={self.folder}/rank-%t.log"]
        command += [sys.executable, "-m", "qup.training.worker", str(self.folder)]
        with (self.folder / "srun.log").open("wb") as log:
            return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def _watch(self, children: Mapping[str, Child], ended: dict[str, Ended]) -> None:
        stop = self.folder / "stop"
        until = float("inf")
        shown: Any = None
        while len(ended) < len(children):
            for name, child in children.items():
                status = child.poll()
                if status is None or name in ended:
                    continue
                ended[name] = Ended(status, self._report(name))
                if status not in (0, INTERRUPTED):
                    until = min(until, time.monotonic() + (GRACE_S if status != SILENCE else 0))
            if time.monotonic() > until:
                return
            if self.ctx.stopping() and not stop.exists():
                stop.touch()
            progress = _read(self.folder / "progress.json")
            if progress and progress != shown:
                shown = progress
                self.ctx.progress(*progress)
            time.sleep(0.1)

    def _outcome(self, ended: Mapping[str, Ended]) -> dict[str, Any]:
        ranks = [str(rank) for rank in (range(self.where.size) if "srun" in ended else self.where.mine)]
        reports = {rank: self._report(rank) for rank in ranks}
        done = [report for report in reports.values() if report.get("status") == "done"]
        if len(done) == len(ranks):
            return done[0]["metrics"]  # type: ignore[no-any-return]
        for _rank, report in reports.items():
            if report.get("status") == "error" and report["ours"]:
                raise _own_error(report["kind"], report["message"])
        killed = [name for name, end in ended.items() if end.status < 0 and name != "srun"]
        if killed:
            raise QupError(self._about(killed[0], f"was killed by {_signal(-ended[killed[0]].status)}"))
        silent = [report["rank"] for report in reports.values() if report.get("status") == "silence"]
        if silent:
            raise QupError(self._about(str(silent[0]), f"said nothing for {self.job.view.trainer.timeout_s:g} s"))
        if all(report.get("status") == "interrupted" for report in reports.values()):
            raise Interrupted(reports[ranks[0]]["message"])
        if "srun" in ended and ended["srun"].status in (0, INTERRUPTED) and self.ctx.stopping():
            raise Interrupted("asked to stop")
        missing = [rank for rank in ranks if not reports[rank]]
        if missing:
            raise QupError(self._about(missing[0], "ended without a word"))
        first = next(name for name, end in ended.items() if end.status != 0) if "srun" not in ended else ranks[0]
        raise QupError(self._about(first, f"failed: {reports[first].get('kind')}: {reports[first].get('message')}"))

    def _about(self, rank: str, what: str) -> str:
        last = _last_line(self._log(int(rank)))
        return f"rank {rank} of {self.where.size} {what}; the other ranks were ended. Its log: {self._log(int(rank))}" + (
            f" ({last})" if last else ""
        )

    def _log(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.log"

    def _report(self, name: str) -> dict[str, Any]:
        return _read(self.folder / f"rank-{name}.json") or {}


def _fresh_folder(root: Path, where: Placement) -> Path:
    """An empty folder for this attempt; one a rank where ranks are started from outside."""
    if where.outside:
        root = root.with_name(f"ranks-{where.mine[0]}")
    shutil.rmtree(root, ignore_errors=True)
    folder = root / secrets.token_hex(4)
    folder.mkdir(parents=True)
    return folder


def _own_error(kind: str, message: str) -> QupError:
    """The error a rank raised, raised again here."""
    known = getattr(errors, kind, None)
    if known in (errors.InputError, errors.StoreError):
        return known(message)  # type: ignore[no-any-return]
    return QupError(message)


def _signal(number: int) -> str:
    name = signal.Signals(number).name
    return f"{name} (out of memory?)" if name == "SIGKILL" else name


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1].strip() if lines else ""
