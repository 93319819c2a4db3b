"""Where the ranks of a training run are: this process, or its children, watched."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qup import errors
from qup.errors import Interrupted, QupError
from qup.pipeline.context import Context
from qup.training.children import Child, start
from qup.training.job import Job
from qup.training.worker import INTERRUPTED, SILENCE

GRACE_S = 10.0
"""How long the other ranks have to notice that one is gone, and to say so, before they are killed."""


@dataclass(frozen=True)
class Placement:
    """Which ranks this process answers for: itself where `size` is 1, else children of its own."""

    size: int
    first: int = 0
    here: int = 1
    local: int = 0
    """Local rank of the first of them."""
    outside: bool = False
    """Others like this process answer for the other ranks; all meet at MASTER_ADDR and MASTER_PORT."""


def placement(ctx: Context, env: Mapping[str, str]) -> Placement:
    """How many ranks, and which are here.

    Where RANK and WORLD_SIZE are set (srun, torchrun) this is one task of several, and has as many ranks as there are
    GPUs a task; else all of them: as many as GPUs, or on CPU as tasks. InputError for several nodes and no one to start them.
    """
    gpus, tasks = int(ctx.resources.gpus.rpartition(":")[2] or 0), ctx.resources.tasks
    if "RANK" in env and "WORLD_SIZE" in env:
        ours = max(1, gpus // int(env.get("LOCAL_WORLD_SIZE", tasks)))
        return Placement(int(env["WORLD_SIZE"]) * ours, int(env["RANK"]) * ours, ours, int(env.get("LOCAL_RANK", "0")) * ours, outside=True)
    if ctx.resources.nodes > 1:
        raise errors.InputError(
            f"cluster.train.nodes={ctx.resources.nodes}: several nodes need SLURM or torchrun to start them; 1 is valid here"
        )
    return Placement(max(gpus, tasks), here=max(gpus, tasks))


def train(job: Job, ctx: Context, env: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Trains and returns the metrics. Raises Interrupted, or an error that names the rank at fault."""
    ranks = placement(ctx, env)
    planned = job.view.world_size
    if planned and planned != ranks.size:
        raise errors.InputError(
            f"trainer.normalisation={job.view.trainer.normalisation}, trainer.dropout={job.view.trainer.dropout}: the result depends on the "
            f"number of ranks; planned for {planned}, started with {ranks.size}"
        )
    if ranks.size == 1:
        return _here(job, ctx)
    return Family(job, ctx, ranks).run()


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

    def __init__(self, job: Job, ctx: Context, ranks: Placement) -> None:
        self.job, self.ctx, self.ranks = job, ctx, ranks
        self.folder = _fresh_folder(ctx.work / "ranks", ranks)

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
        """Rank → process."""
        threads = str(self.job.view.model.threads)
        shared = {**os.environ, "QUP_PARENT": str(os.getpid()), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        shared["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
        if not self.ranks.outside:
            shared |= {"QUP_MASTER": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        children: dict[str, Child] = {}
        for offset in range(self.ranks.here):
            rank = self.ranks.first + offset
            place = {"RANK": str(rank), "WORLD_SIZE": str(self.ranks.size), "LOCAL_RANK": str(self.ranks.local + offset)}
            children[str(rank)] = start(self.folder, shared | place, self._log(rank), self.job.view.model.device)
        return children

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
        ours = [str(self.ranks.first + offset) for offset in range(self.ranks.here)]
        reports = {rank: self._report(rank) for rank in ours}
        done = [report for report in reports.values() if report.get("status") == "done"]
        if len(done) == len(ours):
            return done[0]["metrics"]  # type: ignore[no-any-return]
        killed = [rank for rank, end in ended.items() if end.status < 0]
        # a process aborts itself when a collective breaks, which may be because of another rank's error; all else killed it
        if died := [rank for rank in killed if ended[rank].status != -signal.SIGABRT]:
            raise self._killed(died[0], ended)
        if not killed and self.ranks.outside and not _settled(reports.values()):
            reports = self._everyones_reports()
        for report in reports.values():
            if report.get("status") == "error" and report["ours"]:
                raise _own_error(report["kind"], report["message"])
        if killed:
            raise self._killed(killed[0], ended)
        silent = [report["rank"] for report in reports.values() if report.get("status") == "silence"]
        if silent:
            raise QupError(self._about(str(silent[0]), f"said nothing for {self.job.view.trainer.timeout_s:g} s"))
        if all(report.get("status") == "interrupted" for report in reports.values()):
            raise Interrupted(reports[ours[0]]["message"])
        missing = [rank for rank in reports if not reports[rank]]
        if missing:
            raise QupError(self._about(missing[0], "ended without a word"))
        first = min((report["time"], rank) for rank, report in reports.items() if report["status"] == "error")[1]
        raise QupError(self._about(first, f"failed: {reports[first].get('kind')}: {reports[first].get('message')}"))

    def _killed(self, rank: str, ended: Mapping[str, Ended]) -> QupError:
        return QupError(self._about(rank, f"was killed by {_signal(-ended[rank].status)}"))

    def _everyones_reports(self) -> dict[str, dict[str, Any]]:
        """Rank → report, over all tasks; waits a little for those that are still falling over."""
        until = time.monotonic() + GRACE_S
        while True:
            found = {str(rank): self._report_of_any(rank) for rank in range(self.ranks.size)}
            if all(found.values()) or time.monotonic() > until:
                return found
            time.sleep(0.2)

    def _report_of_any(self, rank: int) -> dict[str, Any]:
        paths = self.ctx.work.glob(f"ranks-*/*/rank-{rank}.json")
        return next((report for path in paths if (report := _read(path))), {})

    def _about(self, rank: str, what: str) -> str:
        last = _last_line(self._log(int(rank)))
        return f"rank {rank} of {self.ranks.size} {what}; the other ranks were ended. Its log: {self._log(int(rank))}" + (
            f" ({last})" if last else ""
        )

    def _log(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.log"

    def _report(self, name: str) -> dict[str, Any]:
        return _read(self.folder / f"rank-{name}.json") or {}


def _fresh_folder(root: Path, ranks: Placement) -> Path:
    """An empty folder for this attempt; each of several tasks has its own. Those of attempts that are over go."""
    if ranks.outside:
        root = root.with_name(f"ranks-{ranks.first}")
    for old in root.glob("*"):
        if not _lives(old):
            shutil.rmtree(old, ignore_errors=True)
    folder = root / secrets.token_hex(4)
    folder.mkdir(parents=True)
    (folder / "parent").write_text(str(os.getpid()), encoding="utf-8")
    return folder


def _lives(folder: Path) -> bool:
    """Whether an attempt's parent is another process of this machine that is still there."""
    pid = _read(folder / "parent")
    return isinstance(pid, int) and pid != os.getpid() and Path(f"/proc/{pid}").exists()


def _settled(reports: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these ranks know themselves why they ended: the user's error, another's silence, a wish to stop."""
    return all(report.get("status") in ("silence", "interrupted") or report.get("ours") for report in reports)


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
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace", encoding="utf-8").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1].strip() if lines else ""
