"""A vLLM server as a child: started, waited for, restarted once where it dies, stopped."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx

from qup.errors import InputError

START_S = 1800.0
STOP_S = 30.0


class Server:
    """`vllm serve` on a free port of this machine."""

    def __init__(
        self, model: str, revision: str | None, work: Path, log: logging.Logger, dtype: str = "auto", extra: tuple[str, ...] = ()
    ) -> None:
        self.model, self.revision, self.dtype, self.extra, self.log = model, revision, dtype, extra, log
        self.log_path = work / "server.log"
        self.served = model
        self.restarts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, timeout: float = START_S) -> str:
        """Starts the server and waits for its health; returns its address. InputError where it cannot start."""
        executable = shutil.which("vllm")
        if executable is None:
            raise InputError("backend=vllm: no `vllm` on PATH; install the extra (pip install 'qup[vllm]') or choose another backend")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [executable, "serve", self.model, "--host", "127.0.0.1", "--port", str(self.port), "--dtype", self.dtype]
        command += ["--revision", self.revision] if self.revision else []
        gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        command += ["--tensor-parallel-size", str(len(gpus))] if len(gpus) > 1 else []
        with self.log_path.open("ab") as stream:
            self.process = subprocess.Popen(
                [*command, *self.extra], stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, start_new_session=True
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise InputError(f"vllm serve {self.model}: ended with status {self.process.returncode}; see {self.log_path}")
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5).status_code == 200:
                    return self.url
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        self.stop()
        raise InputError(f"vllm serve {self.model}: not healthy after {timeout:.0f} s; see {self.log_path}")

    def restart_if_dead(self) -> bool:
        """Starts a crashed server again on its port's successor, once; False where it lives or has crashed before."""
        with self._lock:
            if self.process is not None and self.process.poll() is None:
                return False
            if self.restarts:
                return False
            self.restarts += 1
            self.log.warning("the vLLM server died with status %s; starting it again", self.process.returncode if self.process else None)
            self.start()
            return True

    def stop(self) -> None:
        """Ends the server and its workers."""
        if self.process is None or self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
