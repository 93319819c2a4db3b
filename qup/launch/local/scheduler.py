"""Runs a plan on this machine: as many stages side by side as cores, memory and GPUs allow."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from pathlib import Path

from rich.console import Console

from qup.errors import QupError
from qup.files import read_json
from qup.launch.costs import gpu_count
from qup.launch.job import job_of
from qup.launch.local.board import Board, StageState
from qup.launch.local.display import Display
from qup.launch.local.machine import Machine, this_machine
from qup.launch.local.zygote import Zygote
from qup.launch.plan import Plan
from qup.launch.process import CORRUPT, INTERRUPTED, OUTCOMES, write_failure
from qup.launch.units import parse_memory
from qup.pipeline.graph import Ref

GRACE_S = 15.0
"""Seconds between asking children to stop and killing them; longer than a stage takes to end a server of its own."""
PROGRESS_EVERY_S = 0.5
FULL_BYTES = 1 << 20
"""Less is taken for a full disk."""

HOW = {status: outcome for outcome, status in OUTCOMES.items()}


class LocalRun:
    def __init__(self, plan: Plan, console: Console, plain: bool, max_parallel: int | None) -> None:
        self.plan, self.console, self.plain = plan, console, plain
        self.machine: Machine = this_machine()
        self.max_parallel = max_parallel or self.machine.cores
        self.jobs = {ref: job_of(planned, plan.study, plan.study_dir, plan.store) for ref, planned in plan.to_run.items()}
        self.board = Board(
            plan.study,
            {ref: StageState(ref, planned.node.label, self.jobs[ref].log, planned.cost.seconds) for ref, planned in plan.to_run.items()},
            len(plan.stored),
            self.max_parallel,
        )
        self.waiting_on = {
            ref: {parent for parent in planned.node.parents if parent in plan.to_run} for ref, planned in plan.to_run.items()
        }
        self.free_gpus = list(self.machine.gpus)
        self.gpus_of: dict[Ref, list[str]] = {}
        self.pids: dict[Ref, int] = {}
        self.numbers = dict(enumerate(plan.to_run))
        self.corrupt: list[tuple[str, str]] = []

    def run(self) -> None:
        """Runs until every stage is done, failed or blocked. Raises KeyboardInterrupt after stopping the children."""
        for job in self.jobs.values():
            job.save()
            job.log.parent.mkdir(parents=True, exist_ok=True)
            job.failure.unlink(missing_ok=True)
        zygote = Zygote(self.plan.study_dir / "logs" / "zygote.log")
        previous = signal.signal(signal.SIGTERM, _as_interrupt)
        try:
            with Display(self.board, self.console, self.plain) as display:
                self._loop(zygote, display)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._stop_children(zygote)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)
            zygote.close()

    def _loop(self, zygote: Zygote, display: Display) -> None:
        ready = False
        polled = 0.0
        while self.board.of("waiting", "running"):
            if ready:
                self._start_ready(zygote, display)
                if not self.board.of("running"):
                    break
            for message in zygote.receive(0.25):
                ready = ready or bool(message.get("ready"))
                if "started" in message:
                    self.pids[self.numbers[message["started"]]] = message["pid"]
                if "ended" in message:
                    self._ended(self.numbers[message["ended"]], message["status"], display)
            if time.monotonic() - polled > PROGRESS_EVERY_S:
                polled = time.monotonic()
                for stage in self.board.of("running"):
                    stage.read_progress(self.plan.store)
                display.tick()

    def _start_ready(self, zygote: Zygote, display: Display) -> None:
        for number, ref in self.numbers.items():
            stage = self.board.stages[ref]
            if stage.state == "waiting" and not self.waiting_on[ref] and self._fits(ref):
                stage.state, stage.began = "running", time.time()
                env = {"QUP_LOCAL": "1"}
                wanted = gpu_count(self.plan.to_run[ref].resources)
                if self.machine.gpus:
                    self.gpus_of[ref], self.free_gpus = self.free_gpus[:wanted], self.free_gpus[wanted:]
                    env["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus_of[ref])
                zygote.send({"run": number, "job": str(self.jobs[ref].path), "log": str(stage.log), "env": env})
                display.started(stage)

    def _fits(self, ref: Ref) -> bool:
        """Whether a stage may start beside those running; one alone always may, with what the machine has."""
        running = [self.plan.to_run[stage.ref].resources for stage in self.board.of("running")]
        if not running:
            return True
        asked = self.plan.to_run[ref].resources
        everyone = [*running, asked]
        if len(everyone) > self.max_parallel or sum(each.cpus * each.tasks for each in everyone) > self.machine.cores:
            return False
        if sum(parse_memory(each.mem) for each in everyone) > self.machine.memory:
            return False
        return not self.machine.gpus or gpu_count(asked) <= len(self.free_gpus)

    def _ended(self, ref: Ref, status: int, display: Display) -> None:
        stage = self.board.stages[ref]
        stage.ended = time.time()
        self.pids.pop(ref, None)
        self.free_gpus += self.gpus_of.pop(ref, [])
        if status in HOW:
            stage.state, stage.outcome = "done", HOW[status]
            for waiting in self.waiting_on.values():
                waiting.discard(ref)
        else:
            stage.state = "failed"
            failure = read_json(self.jobs[ref].failure)
            if failure:
                stage.error = _last_line(failure["error"])
            else:
                stage.error = _status_in_words(status, self.plan.store.root, self.jobs[ref].log)
                write_failure(self.jobs[ref], stage.error)
            if status == CORRUPT and failure and failure["corrupt"]:
                self.corrupt.append(tuple(failure["corrupt"]))
            self._block(ref)
        display.ended(stage)

    def _block(self, failed: Ref) -> None:
        """Marks whatever depends on a failed stage; a hint that failed holds nobody up."""
        gone = {failed}
        for ref, planned in self.plan.to_run.items():
            stage = self.board.stages[ref]
            bad = [parent for parent in planned.node.inputs.values() if parent in gone]
            if bad and stage.state == "waiting":
                stage.state, stage.error = "blocked", f"waits for {self.board.stages[bad[0]].label} ({bad[0].kind}), which failed"
                gone.add(ref)
            self.waiting_on[ref] -= gone if not bad else set()

    def _stop_children(self, zygote: Zygote) -> None:
        for pid in self.pids.values():
            with contextlib.suppress(QupError):
                zygote.send({"signal": int(signal.SIGTERM), "pid": pid})
        deadline = time.monotonic() + GRACE_S
        while self.pids and time.monotonic() < deadline:
            try:
                messages = zygote.receive(0.2)
            except QupError:
                return
            for message in messages:
                if "ended" in message:
                    self.pids.pop(self.numbers[message["ended"]], None)


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return text if len(lines) < 4 else lines[-1]


def _status_in_words(status: int, store: Path, log: Path) -> str:
    """What is known of a stage that left no word of its failure; on a full disk it could not."""
    if status == INTERRUPTED:
        return "interrupted; the next run goes on from where it was"
    if status < 0:
        name = signal.Signals(-status).name
        silent = "" if log.exists() and log.stat().st_size else ", before it said anything"
        return f"killed by {name}" + (" (out of memory, perhaps)" if -status == signal.SIGKILL else "") + silent
    if shutil.disk_usage(store).free < FULL_BYTES:
        return f"ended with status {status}: the disk of {store} is full; free space, and the same command goes on from here"
    return f"ended with status {status}; see its log"
