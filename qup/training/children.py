"""A rank as a child process: started anew, or forked where everything it needs is already imported."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Child(Protocol):
    """What of subprocess.Popen is used."""

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...


class Forked:
    """A forked child that runs one rank, with its own environment and log."""

    def __init__(self, folder: Path, env: Mapping[str, str], log: Path) -> None:
        self.status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become_rank(folder, env, log)

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self) -> int:
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def kill(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)


def _become_rank(folder: Path, env: Mapping[str, str], log: Path) -> None:
    """Never returns: whatever happens, this process must not go on as a copy of its parent."""
    # what the parent left for its collector may end in destructors that wait for threads which a fork does not carry over
    gc.freeze()
    status = 1
    try:
        os.environ.clear()
        os.environ.update(env)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
        from qup.training.worker import main

        main(folder)
        status = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def is_warm(device: str) -> bool:
    """Whether forking saves the imports and is sound: all is loaded, on CPU, and no CUDA context would be inherited."""
    torch = sys.modules.get("torch")
    if torch is None or "qup.training.loop" not in sys.modules or "deepspeed" not in sys.modules:
        return False
    return device == "cpu" or not torch.cuda.is_available()


def start(folder: Path, env: Mapping[str, str], log: Path, device: str) -> Child:
    """One rank, its output in `log`."""
    if is_warm(device):
        return Forked(folder, env, log)
    command = [sys.executable, "-m", "qup.training.worker", str(folder)]
    with log.open("wb") as stream:
        return subprocess.Popen(command, env=dict(env), stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
