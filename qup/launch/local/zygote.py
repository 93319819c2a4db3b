"""A process that imports the heavy libraries once and forks a child for each stage.

What only some stages need, and seconds go by to import, it takes up while it is asked for nothing.

`python -m qup.launch.local.zygote` reads one JSON object a line: {"run": id, "job": path, "log": path, "env": {…}} or
{"signal": number, "pid": pid}; it answers {"ready": true}, {"started": id, "pid": pid}, {"ended": id, "status": n},
where a status below zero is minus the number of the signal that killed the child.

Forking is sound because nothing here starts a thread: BLAS and OpenMP pools begin at the first parallel
region, which only children reach.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from qup.errors import QupError

ROOT = Path(__file__).resolve().parents[3]

PRELOAD = (
    "numpy",
    "pyarrow.parquet",
    "pyarrow.dataset",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "qup.launch.process",
    "qup.training.engine",
)
WHEN_IDLE = ("ready_weights", "ready_training")
"""Functions of this module that go on with importing."""
GPUS = ("/dev/nvidiactl", "/dev/kfd")
PR_SET_PDEATHSIG = 1


def say(message: dict[str, Any]) -> None:
    """One line to the launcher."""
    os.write(1, (json.dumps(message) + "\n").encode())


def die_with_parent() -> None:
    """The kernel kills this process when its parent dies, however the parent dies."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def preload() -> None:
    """Imports what stages need; what is not there is left to the stage that needs it."""
    from qup.pipeline import KINDS

    for name in (*PRELOAD, *(kind.module for kind in KINDS.values())):
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"zygote: {name} not preloaded: {error}", file=sys.stderr)


def ready_weights() -> None:
    """Patterns that transformers compiles in each process before it first loads weights: half a second."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("")


def ready_training() -> None:
    """DeepSpeed. Where there is a GPU each training imports it: it looks for the GPU, and a process that did so can't fork one that
    computes there."""
    if not any(map(os.path.exists, GPUS)):
        from qup.training.ranks import warm_deepspeed

        warm_deepspeed()


def child(request: dict[str, Any]) -> NoReturn:
    """Becomes the stage: own session, own log, own environment."""
    status = 1
    try:
        die_with_parent()
        os.setpgid(0, 0)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.environ.update(request["env"])
        signal.set_wakeup_fd(-1)
        from qup.launch.process import log_to_stderr, run_job

        log_to_stderr()
        status = run_job(Path(request["job"]), tell=True)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


def reap(children: dict[int, int]) -> None:
    """Reports every child that has ended."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in children:
            code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            say({"ended": children.pop(pid), "status": code})


class Zygote:
    """The launcher's end."""

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        env = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
        # stages run the code that planned them, wherever the command was given
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qup.launch.local.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=env,
            start_new_session=True,
        )
        self._pending = b""

    def send(self, message: dict[str, Any]) -> None:
        """One request; raises QupError where the zygote is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write((json.dumps(message) + "\n").encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def receive(self, timeout: float) -> list[dict[str, Any]]:
        """What has been answered within `timeout` seconds; raises QupError where the zygote is gone."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        if not ready:
            return []
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            raise self._gone()
        self._pending += data
        *lines, self._pending = self._pending.split(b"\n")
        return [json.loads(line) for line in lines]

    def _gone(self) -> QupError:
        return QupError(
            f"the process that starts stages ended unexpectedly (out of memory, perhaps), and the stages with it; see {self._log.name}. "
            "The same command goes on from here"
        )

    def close(self) -> None:
        """Ends the zygote and, with it, whatever still runs below it."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    preload()
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}
    say({"ready": True})
    pending = b""
    later = list(WHEN_IDLE)
    while True:
        ready, _, _ = select.select([0, read_end], [], [], 0.0 if later else None)
        if not ready:
            with contextlib.suppress(ImportError):
                globals()[later.pop(0)]()
            continue
        if read_end in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(read_end, 4096)
            reap(children)
        if 0 not in ready:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        pending += data
        *lines, pending = pending.split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "signal" in request:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(request["pid"], request["signal"])
                continue
            pid = os.fork()
            if pid == 0:
                child(request)
            children[pid] = request["run"]
            say({"started": request["run"], "pid": pid})
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
